"""Score Forgetting Distillation of text-to-image models: guidance, prompts, starts, and what stock diffusers draws."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from scotoma.erasure import sfd, sfd_loop, sfd_losses, sfd_memory
from scotoma.erasure.conditions import Conditions, Rows, draw
from scotoma.erasure.edit import Edit
from scotoma.erasure.sfd import SFDConfig
from scotoma.erasure.sfd_loop import Updater, score_gap
from scotoma.erasure.sfd_losses import Guidance, Nets, network, parameters
from scotoma.erasure.text_conditions import (
    EXAMPLE,
    Forgotten,
    Prompts,
    forgotten_prompts,
    product_prompts,
    read_products,
    read_prompts,
    text_conditions,
)
from scotoma.erasure.training import EMA, Processes, Run
from scotoma.errors import BoundsError, MissingExtraError, ModelError, StackingError, UsageError
from scotoma.models.denoiser import Denoiser, guide
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, sample, sample_latents
from scotoma.models.sld import SLD
from scotoma.models.student import GUIDANCE_WEIGHT, as_multistep, as_student, one_step, scheduler_config
from scotoma.records import Concept

KEPT = ("a red dog", "a house", "a tree")
CAT, DOG = [Concept("cat")], ["dog"]
SMALL = SFDConfig(iterations=2, distil_iterations=2, kept=3, forgotten=2, observe_every=0, retain=KEPT)
LIGHT = dataclasses.replace(SMALL, stages=1)


@pytest.fixture(scope="module")
def sd2(tiny_folders) -> Model:
    return load(tiny_folders["sd2"])


@pytest.fixture(scope="module")
def conditions(sd1) -> Conditions:
    gone = (Forgotten("a cat", "a dog", "cat, red cat"), Forgotten("cat", "dog"))
    return text_conditions(sd1, Prompts(KEPT, gone))


def nets(model: Model, guidance: Guidance = Guidance(3.0, 2.0, 4.0, 4.0), seed: int = 0) -> Nets:  # noqa: B008 (frozen)
    """Score and student a little away from the teacher, as after some updates."""
    made = Nets.of(model, 2.5, guidance)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for net in (made.score, made.student):
            for p in parameters(net):
                p += 0.02 * torch.randn(p.shape, generator=generator)
    return made


def rows(model: Model, conditions: Conditions, untold: float = 0.4, kept: int = 4, forgotten: int = 3) -> Rows:
    times = model.denoiser().schedule.time_range()
    return draw(conditions, kept, forgotten, times, model.latent_shape, seed=1, step=0, untold=untold)


def gradient(denoiser: Denoiser) -> torch.Tensor:
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters(denoiser)])


def near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    assert expected.abs().max() > 0
    return torch.allclose(found, expected, atol=tolerance * float(expected.abs().max()))


def updated(model: Model, conditions: Conditions, config: SFDConfig, *, light: bool = False) -> Nets:
    """The networks after one update, whose gradients they still have."""
    config = config.resolved(model)
    at = nets(model, Guidance.of(config))
    if light:
        at = sfd_memory.lightened(at, config, 0)
    average = EMA(network(at.student), 0.5)
    Updater(at, conditions, config, 4, model.latent_shape, 0, average, Processes())(1)
    return at


# --------------------------------------------------------------------------------------------------------------- guidance


def test_the_guided_outputs_by_hand(sd1, conditions):
    """m + w (c - m) with w 3 in the score's training, 2 in the student's loss, 4 for the teacher; no prompt for the score
    where it is untold."""
    at, drawn = nets(sd1), rows(sd1, conditions)
    assert drawn.untold.any() and not drawn.untold.all()
    x, time = drawn.z, drawn.t
    with torch.no_grad():
        trained, in_loss = at.scores(x, drawn, "teacher")
        null, cond = (at.score.output(x, time, c) for c in (drawn.null, drawn.told))
        taught = at.teaches(x, time, drawn.teacher, drawn.negative)
        away, becomes = (at.teacher.output(x, time, c) for c in (drawn.negative, drawn.teacher))
        _, with_negatives = at.scores(x, drawn, "all")
        away_score = at.score.output(x, time, drawn.negative)
    told = ~drawn.untold
    assert torch.allclose(trained[told], (null + 3 * (cond - null))[told], atol=1e-5)
    assert torch.allclose(trained[~told], null[~told], atol=1e-6)
    assert torch.allclose(in_loss, null + 2 * (cond - null), atol=1e-5)
    assert torch.allclose(taught, away + 4 * (becomes - away), atol=1e-5)
    assert torch.allclose(with_negatives, away_score + 2 * (cond - away_score), atol=1e-5)


def test_what_the_rows_are_guided_away_from(sd1, conditions):
    """Kept rows and "cat" from no prompt, "a cat" from its negative prompt."""
    drawn = rows(sd1, conditions)
    null, negative = sd1.null(1).text, sd1.encode(["cat, red cat"]).text
    away = [negative if i in (4, 6) else null for i in range(7)]
    assert drawn.negative.text.equal(torch.cat(away)) and drawn.null.text.equal(null.expand(7, -1, -1))
    assert drawn.told.text[4].equal(sd1.encode(["a cat"]).text[0])
    assert drawn.teacher.text[4].equal(sd1.encode(["a dog"]).text[0])


def test_a_negative_prompt_leads_away_where_nothing_else_is_guided(sd1, conditions):
    """Rows with one by w_4, the others as they are told: a start that was distilled unguided still forgets by one."""
    at, drawn = nets(sd1, Guidance(1.0, 1.0, 1.0, 3.0)), rows(sd1, conditions)
    assert drawn.led.tolist() == [i in (4, 6) for i in range(7)]
    with torch.no_grad():
        taught = at.teaches(drawn.z, drawn.t, drawn.teacher, drawn.negative, drawn.led)
        away, becomes = (at.teacher.output(drawn.z, drawn.t, c) for c in (drawn.negative, drawn.teacher))
    assert torch.allclose(taught[drawn.led], (away + 3 * (becomes - away))[drawn.led], atol=1e-5)
    assert torch.allclose(taught[~drawn.led], becomes[~drawn.led], atol=1e-5)
    assert not torch.allclose(taught[drawn.led], becomes[drawn.led], atol=1e-3)


def test_a_negative_prompt_that_would_do_nothing_is_refused(sd1):
    plain = dataclasses.replace(sd1, defaults={**sd1.defaults, "guidance": 1.0})
    with pytest.raises(UsageError, match="a negative prompt does nothing; set guidance_negative above 1"):
        sfd.run(plain, [Concept("cat")], [""], dataclasses.replace(LIGHT, retain=("a house",), products="stand-ins"))
    with pytest.raises(UsageError, match="set guidance_training above 1"):
        SFDConfig(negatives="all").resolved(plain)
    started = SFDConfig().resolved(sd1, plain)  # a start that was distilled unguided
    assert (started.guidance_teacher, started.guidance_negative) == (1.0, sd1.guidance)


def test_an_untold_row_has_the_gradient_of_a_row_without_a_prompt(sd1, conditions):
    """Of a guided call in which all rows are untold against a plain call told no prompt at all."""
    drawn = rows(sd1, conditions, untold=1.0)
    assert drawn.untold.all()
    guided, plain = nets(sd1), nets(sd1)
    x = guided.generate(drawn.z, drawn.told).detach()
    sfd_losses.score_gradient(guided, x, drawn, LIGHT)
    x_t = plain.score.schedule.noisy(x, drawn.e, drawn.t)
    loss = (plain.score.eps(x_t, drawn.t, drawn.null) - drawn.e).square().sum((1, 2, 3))
    (drawn.weights(LIGHT.forget_weight_score) * loss).sum().backward(inputs=parameters(plain.score))
    assert near(gradient(guided.score), gradient(plain.score))


def test_untold_rows_are_a_tenth_and_spread(sd1, conditions):
    times = sd1.denoiser().schedule.time_range()
    drawn = [draw(conditions, 20, 5, times, (1, 1, 1), seed=0, step=i, untold=0.1).untold for i in range(200)]
    assert all(int(u[:20].sum()) == 2 and int(u[20:].sum()) <= 1 for u in drawn)
    assert abs(float(torch.stack(drawn)[:, 20:].float().mean()) - 0.1) < 0.03


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_students_gradient_is_that_of_the_whole_guided_loss(tiny_folders, family):
    """Against one backward pass through x, x_t, both branches of teacher and score, with their weights frozen."""
    model = load(tiny_folders[family])
    conditions = text_conditions(model, Prompts(KEPT, (Forgotten("a cat", "a dog", "red cat"),)))
    at, config = nets(model), dataclasses.replace(LIGHT, tie=0.0)
    drawn = rows(model, conditions)
    sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=True)
    whole = copy.deepcopy(at)
    for net in whole[:3]:
        network(net).zero_grad()
    network(whole.score).requires_grad_(False)
    x = whole.generate(drawn.z, drawn.told)
    x_t = whole.student.schedule.noisy(x, drawn.e, drawn.t)

    def guided(by: Denoiser, told, away, w: float) -> torch.Tensor:
        return guide(by(x_t, drawn.t, away), by(x_t, drawn.t, told), w)

    teacher = guided(whole.teacher, drawn.teacher, drawn.negative, 4.0)
    score = guided(whole.score, drawn.told, drawn.null, 2.0)
    loss = sfd_losses.student_loss(x, teacher, score, config.alpha)
    (loss[:4].mean() + config.forget_weight * loss[4:].mean()).backward()
    assert near(gradient(at.student), gradient(whole.student))
    assert all(p.grad is None for p in network(at.teacher).parameters())


def test_a_shared_pass_gives_the_scores_own_gradient(sd1, conditions):
    together, apart, drawn = nets(sd1), nets(sd1), rows(sd1, conditions)
    x = together.generate(drawn.z, drawn.told)
    sfd_losses.student_gradient(together, x, drawn, LIGHT, also_score=True)
    sfd_losses.score_gradient(apart, x.detach(), drawn, LIGHT)
    assert near(gradient(together.score), gradient(apart.score))


def test_rows_through_each_network(sd1, conditions):
    """As counted in the docstring of sfd_losses: student N, teacher and score 2 N each, one call; (4) for the F forgotten
    2 F + 2 F more of the teacher and F of the student; (5) F of the student, but for the one of two whose teacher has a
    negative prompt. Backward passes are as many as there are gradients wanted."""
    counts = {}
    for tie, other_times in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        at, drawn = nets(sd1), rows(sd1, conditions, kept=5, forgotten=2)
        seen: dict[str, list[int]] = {"teacher": [], "score": [], "student": []}
        for name, calls in seen.items():
            network(getattr(at, name)).register_forward_pre_hook(lambda m, a, calls=calls: calls.append(len(a[0])))
        config = dataclasses.replace(LIGHT, tie=tie, other_times=other_times)
        sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=True)
        counts[tie, other_times] = seen
    assert counts[0.0, 0.0] == {"teacher": [14], "score": [14], "student": [7]}
    assert counts[0.0, 1.0] == {"teacher": [14, 4, 4], "score": [14], "student": [7, 2]}
    assert counts[1.0, 0.0] == {"teacher": [14], "score": [14], "student": [7, 1]}


@pytest.mark.parametrize(
    ("w", "score", "teacher"),
    [((1.0, 1.0, 1.0), 7, 7), ((3.0, 1.0, 1.0), 14, 7), ((1.0, 3.0, 1.0), 14, 7), ((1.0, 1.0, 3.0), 7, 14)],
)
def test_every_combination_of_guidances(sd1, conditions, w, score, teacher):
    """What is not guided takes one pass; w of 1 is the conditional output, up to rounding."""
    at, drawn = nets(sd1, Guidance(*w)), rows(sd1, conditions)
    seen: dict[str, list[int]] = {"teacher": [], "score": []}
    for name, calls in seen.items():
        network(getattr(at, name)).register_forward_pre_hook(lambda m, a, calls=calls: calls.append(len(a[0])))
    with torch.no_grad():
        trained, in_loss = at.scores(drawn.z, drawn, "teacher")
        taught = at.teaches(drawn.z, drawn.t, drawn.teacher, drawn.negative)
        assert (seen["score"], seen["teacher"]) == ([score], [teacher])
        cond = at.score.output(drawn.z, drawn.t, drawn.told)
        if w[0] == 1:
            told = ~drawn.untold if score == 14 else torch.ones_like(drawn.untold)
            assert torch.allclose(trained[told], cond[told], atol=1e-5)
        if w[1] == 1:
            assert torch.allclose(in_loss, cond, atol=1e-5)
        if w[2] == 1:
            assert torch.allclose(taught, at.teacher.output(drawn.z, drawn.t, drawn.teacher), atol=1e-5)


def test_other_times_by_hand(sd1, conditions):
    """(4): the teacher's states are guided from no prompt, what it says there from the negative one; the student is told
    the concept, unguided."""
    at, drawn = nets(sd1), rows(sd1, conditions)
    gone, schedule = drawn.part(drawn.forgotten), at.student.schedule
    x = at.generate(gone.z, gone.told).detach()
    with torch.no_grad():
        found = sfd_losses.other_times_loss(at, x, gone, gone.teacher)
        low = schedule.t_for_sigma(0.14)
        t = low + (gone.free[:, 0] * (len(schedule) - low)).floor().long()
        noise, start = at.noise(gone.z)
        theirs = at.teacher.x0_from(at.teacher.output(noise, start, gone.told, gone.null, 4.0), noise, start)
        y = torch.stack([theirs[i] if gone.free[i, 1] < 0.5 else x[i] for i in range(len(x))])
        x_t = schedule.noisy(y, gone.e, t)
        should = at.teacher.output(x_t, t, gone.teacher, gone.negative, 4.0)
        says = at.student.output(x_t, t, gone.told)
        w = (y - at.teacher.x0_from(should, x_t, t)).abs().mean((1, 2, 3))
        expected = (1 - schedule.alphas_cumprod[t]).float() * (says - should).square().sum((1, 2, 3)) / w
    assert torch.allclose(found, expected, rtol=1e-4)


def test_the_score_gap_is_guided(sd1, conditions, monkeypatch):
    """With psi = phi, one guidance and no negative, the gap is that of the conditions, times w; 0 for equal ones."""
    monkeypatch.setattr(sfd_loop, "GAP_SIGMAS", (2.5,))
    plain = dataclasses.replace(conditions, negatives=())
    gaps = [
        score_gap(Nets.of(sd1, 2.5, Guidance(w, w, w, w)), plain, sd1.latent_shape, 0)["score gap 2.5"]
        for w in (1.0, 3.0)
    ]
    assert gaps[1] == pytest.approx(3 * gaps[0], rel=1e-3)
    same = dataclasses.replace(plain, becomes=tuple(plain.forgotten[i] for i in range(2)))
    assert score_gap(Nets.of(sd1, 2.5), same, sd1.latent_shape, 0)["score gap 2.5"] == 0


def test_labels_may_be_guided_and_are_not_by_default(tiny_folders):
    labels, texts = load(tiny_folders["label-unet"]), load(tiny_folders["sd1"])
    assert Guidance.of(SFDConfig().resolved(labels)) == (1.0, 1.0, 1.0, 1.0)
    assert Guidance.of(SFDConfig().resolved(texts)) == (7.5, 7.5, 7.5, 7.5)
    assert SFDConfig().resolved(labels).stages == 1 and SFDConfig().resolved(texts).stages == 2
    texts.defaults = {"guidance": 1.5}
    assert Guidance.of(SFDConfig().resolved(load(tiny_folders["sd1"]), texts)) == (1.5, 1.5, 1.5, 1.5)
    chosen = SFDConfig(guidance_training=2.0, guidance_teacher=3.0).resolved(texts)
    assert Guidance.of(chosen) == (2.0, 2.0, 3.0, 3.0)
    config = SFDConfig(iterations=1, kept=2, forgotten=1, guidance_training=2.0, guidance_teacher=3.0)
    guided = sfd.run(labels, [Concept("class 1")], ["class 2"], config)
    plain = sfd.run(labels, [Concept("class 1")], ["class 2"], SFDConfig(iterations=1, kept=2, forgotten=1))
    assert any(not v.equal(plain.tensors[k]) for k, v in guided.tensors.items())


# ---------------------------------------------------------------------------------------------------------------- prompts


def test_templates_and_products(sd1, tmp_path):
    file = tmp_path / "products.yaml"
    file.write_text("subjects: [a picture, an emoji]\nkeywords: [cat, lynx]\n")
    ask = {"model": sd1, "concepts": CAT, "instead": [""], "kept": KEPT}
    by_products = forgotten_prompts(**ask, templates=(), products=str(file))
    assert len(by_products) == 8 and {f.negative for f in by_products} == {"cat, lynx"}
    assert {f.prompt for f in by_products if f.becomes == "an emoji"} == {
        "an emoji, cat",
        "cat, an emoji",
        "an emoji, lynx",
        "lynx, an emoji",
    }
    both = forgotten_prompts(**ask, templates=("a {}",), products=str(file))
    assert both[0] == Forgotten("a cat", "", "cat, lynx") and both[1:] == by_products
    named = {**ask, "instead": ["dog"]}
    assert forgotten_prompts(**named, templates=("a {}",), products="") == [Forgotten("a cat", "a dog")]
    with pytest.raises(UsageError, match="dog is not used"):
        forgotten_prompts(**named, templates=(), products=str(file))


def test_several_concepts_with_their_own_alternatives_and_styles(sd1):
    two = forgotten_prompts(sd1, [*CAT, Concept("oak")], ["dog", "pine"], templates=("a {}",), products="", kept=KEPT)
    assert two == [Forgotten("a cat", "a dog"), Forgotten("a oak", "a pine")]
    style = [Concept("noto", kind="style")]
    assert forgotten_prompts(sd1, style, [""], templates=(), products="", kept=KEPT[:1]) == [
        Forgotten("a red dog, noto style", "a red dog")
    ]
    many = [f"a thing {i}" for i in range(2000)]
    assert len(forgotten_prompts(sd1, style, ["fluent"], templates=(), products="", kept=many)) == 512


def test_the_example_that_ships_takes_the_names_of_the_concepts(sd1):
    subjects, keywords = read_products(EXAMPLE)
    assert len(subjects) >= 5 and not keywords
    made = forgotten_prompts(sd1, [Concept("axe"), Concept("dagger")], [""], templates=(), products=EXAMPLE, kept=KEPT)
    assert len(made) == len(subjects) * 4 and all(f.negative == "axe, dagger" for f in made)
    assert {f.becomes for f in made[: 3 * len(subjects)]} == set(subjects)  # a fixed random order, not by subject


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("subjects: [", "is not YAML"),
        ("[a, b]", "must hold subjects"),
        ("keywords: [a]", "must hold subjects"),
        ("subjects: [a]\nwords: [b]", "must hold subjects"),
        ("subjects: a", "must be a list of texts"),
        ("subjects: [1]", "must be a list of texts"),
        ("subjects: []", "names no subject"),
    ],
)
def test_a_products_file_that_does_not_fit(tmp_path, text, message):
    file = tmp_path / "products.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_products(str(file))


def test_a_file_of_kept_prompts(tmp_path):
    file = tmp_path / "kept.txt"
    file.write_text("a tree\n\n a house \na tree\n")
    assert read_prompts(str(file)) == ("a tree", "a house")
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no prompt"):
        read_prompts(str(file))
    with pytest.raises(UsageError, match="cannot be read"):
        read_prompts(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(("a nude child",)),
        Prompts(("a tree",), (Forgotten("a nude child", "a tree"),)),
        Prompts(("a tree",), (Forgotten("a tree, x", "a nude child"),)),
        Prompts(("a tree",), (Forgotten("a child, x", "a child", "nude, x"),)),
    ],
)
def test_every_prompt_is_checked(prompts):
    """The last: harmless apart, refused together, as a subject and what is taken away from it."""
    with pytest.raises(BoundsError):
        prompts.check()


def test_a_subject_is_not_what_is_forgotten(sd1, tmp_path):
    file = tmp_path / "products.yaml"
    file.write_text("subjects: [a cat]\nkeywords: [red]\n")
    with pytest.raises(BoundsError):
        forgotten_prompts(sd1, CAT, [""], templates=(), products=str(file), kept=KEPT)


def test_what_is_kept(sd1, tmp_path):
    """The config's prompts, those of its file, or else captions; none that is forgotten."""
    asked = {"model": sd1, "concepts": CAT, "instead": DOG, "plain": ()}
    file = tmp_path / "kept.txt"
    file.write_text("a boat\na cat\n")
    config = dataclasses.replace(SMALL, retain_file=str(file))
    assert sfd._prompts(config=config, captions=("a sea",), **asked).kept == (*KEPT, "a boat")
    bare = dataclasses.replace(SMALL, retain=())
    assert sfd._prompts(config=bare, captions=("a sea", "a cat"), **asked).kept == ("a sea",)
    with pytest.raises(UsageError, match="comes with no captions"):
        sfd._prompts(config=bare, captions=(), **asked)
    asked |= {"concepts": [Concept("noto", kind="style")], "plain": ("a sky",)}
    made = sfd._prompts(config=bare, captions=("a sea, fluent style",), **asked)
    assert made.forgotten == (Forgotten("a sky, noto style", "a sky, dog style"),)


def test_prompts_are_encoded_once_and_become_any_kept_one_as_a_mixture(sd1, monkeypatch):
    asked: list[str] = []
    whole = Model.encode
    monkeypatch.setattr(Model, "encode", lambda self, texts, **k: asked.extend(texts) or whole(self, texts, **k))
    prompts = Prompts(KEPT, tuple(product_prompts(["a picture"], ["cat", "lynx"])))
    made = text_conditions(sd1, prompts)
    assert sorted(asked) == sorted({*KEPT, "a picture", "cat, lynx", "", *(f.prompt for f in prompts.forgotten)})
    assert len(made.forgotten) == 4 and made.negatives[0].text.equal(whole(sd1, ["cat, lynx"]).text)
    mixed = text_conditions(sd1, prompts, mixture=True)
    assert all(c.text.equal(mixed.kept.text) for c in mixed.becomes)


def test_captions_of_the_zoo():
    """Of names in turn, with the places and colours of the training, without what is forgotten or held out."""
    from scotoma.evaluation.zoo_task import captions, frozen

    found = captions("emoji", ["dagger", "noto"], 900)
    assert found == captions("emoji", ["dagger", "noto"], 900) and found != captions(
        "emoji", ["dagger", "noto"], 900, 1
    )
    assert len(found) == 900 and len(set(found)) > 800
    assert not any("dagger" in text or "noto" in text for text in found)
    assert {
        word for text in found for word in ("fluent style", "pink background", "top left", "a drawing") if word in text
    } == {
        "fluent style",
        "pink background",
        "top left",
        "a drawing",
    }
    assert not any("style" in text for text in captions("emoji", [], 300, styled=False))
    held_out = {f"small {name} in the {place} on a {colour} background" for name, colour, place in frozen()["held_out"]}
    assert not held_out & {text.removeprefix("a ") for text in captions("emoji", [], 3000, styled=False)}
    with pytest.raises(UsageError, match="has none"):
        captions("fashion", [], 3)


# ------------------------------------------------------------------------------------------------------------- the student


@pytest.fixture(scope="module")
def edit(sd1) -> Edit:
    return sfd.run(sd1, CAT, DOG, SMALL, seed=3)


def test_what_the_header_says(edit, sd1):
    header = edit.header
    training = header["figures"]["training"]
    assert header["student"] and header["family"] == "sd1" and edit.concepts == ("cat",)
    assert [header["config"][f"guidance_{name}"] for name in ("training", "score", "teacher")] == [7.5, 7.5, 7.5]
    assert training["teacher"] == "the model" and "start" not in training
    assert {k: v for k, v in training["prompts"].items() if k != "sha256"} == {"kept": 3, "forgotten": 4, "negative": 0}
    assert [(s["iterations"], s["student"], s["score"]) for s in training["stages"]] == [
        (2, "the model", "the model"),
        (2, "stage 1", "stage 1"),
    ]
    assert set(header["configs"]) == {"scheduler", "unet"}
    added = {name for name, entry in header["touched"].items() if entry["kind"] == "added"}
    assert added == {f"unet.{GUIDANCE_WEIGHT}"} and not edit.tensors[f"value/unet.{GUIDANCE_WEIGHT}"].any()
    assert all(name.startswith("unet.") for name in header["touched"])
    json.dumps(header)


STOCK = """
import json, sys
import torch
from diffusers import StableDiffusionPipeline

for folder in sys.argv[2:]:
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    shape = (1, pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    drawn = {}
    for name, options in json.loads(sys.argv[1]).items():
        drawn[name] = pipe("a cat", num_inference_steps=1, latents=noise, output_type="latent", **options).images
    drawn["picture"] = pipe("a cat", num_inference_steps=1, latents=noise, output_type="pt").images
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, timestep_spacing="leading")
    drawn["leading"] = pipe("a cat", num_inference_steps=1, latents=noise, output_type="latent").images
    torch.save(drawn, folder + ".pt")
assert not any(name.startswith("scotoma") for name in sys.modules)
"""


def test_stock_diffusers_draws_the_same_whatever_the_guidance(tiny_folders, tmp_path):
    """With all defaults (guidance 7.5), in a process that knows nothing of us; eps- and v-prediction."""
    models = {family: load(tiny_folders[family]) for family in ("sd1", "sd2")}
    for family, model in models.items():
        made = sfd.run(model, CAT, DOG, dataclasses.replace(LIGHT, iterations=1, lr=1e-2, warmup=1))
        made.apply(model).save(tmp_path / family)
    asked = {"defaults": {}, "none": {"guidance_scale": 0.0}, "more": {"guidance_scale": 30.0}}
    asked["negative"] = {"negative_prompt": "a house", "guidance_scale": 12.0}
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    command = [sys.executable, script, json.dumps(asked), *(tmp_path / family for family in models)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0 and "steps_offset" not in done.stderr, done.stderr
    for family, model in models.items():
        drawn = torch.load(tmp_path / f"{family}.pt", weights_only=True)
        student = load(tmp_path / family)
        assert one_step(student.scheduler) and student.unet.config.time_cond_proj_dim == 4
        ours = sample_latents(student, ["a cat"], [5])
        assert (drawn["defaults"] - ours).abs().max() < 3e-6
        assert (drawn["leading"] - ours).abs().max() > 1e-2  # the noise is scaled by 2.69 there, not by 2.50
        assert all(drawn[name].equal(drawn["defaults"]) for name in asked)
        with torch.no_grad():
            noise, _ = initial_noise(model.latent_shape, [5])
            exact = Nets.of(student, 2.5).generate(noise, student.encode(["a cat"]))
            pictures = student.decode(ours) / 2 + 0.5
        assert (exact - ours).abs().max() < 3e-6
        assert (drawn["picture"] - pictures).abs().max() < 3e-6
        untrained = as_student(model, student.scheduler.config)
        assert (ours - sample_latents(untrained, ["a cat"], [5])).abs().max() > 1e-3


def test_the_pipeline_accepts_no_narrower_guidance_input(sd1):
    """4 numbers are told without a number that is not one; 3 and 2 are not."""
    for width, finite in ((4, True), (3, False), (2, False)):
        told = sd1.pipeline.get_guidance_scale_embedding(torch.tensor([6.5]), embedding_dim=width)
        assert bool(torch.isfinite(told).all()) is finite


def test_a_student_is_drawn_in_one_call_and_measured_in_many(edit, sd1, tmp_path):
    student = edit.apply(sd1)
    with pytest.raises(UsageError, match="draws in one call and cannot be guided"):
        sample(student, ["a cat"], [0], guidance=2.0)
    with pytest.raises(UsageError, match="Safe Latent Diffusion steers by its condition of no prompt"):
        sample(student.steered(SLD.of("max", ["cat"])), ["a dog"], [0])
    many = as_multistep(student, sd1)
    assert not one_step(many.scheduler) and one_step(student.scheduler)
    drawn = [sample_latents(many, ["a cat"], [0], guidance=w, steps=3, scheduler="ddim") for w in (1.0, 2.0)]
    assert torch.isfinite(drawn[1]).all() and not drawn[0].equal(drawn[1])
    with pytest.raises(StackingError, match="draws in one call already"):
        sfd.run(student, CAT, DOG, SMALL)
    with pytest.raises(StackingError):
        Edit.create(student, method="other", config={}, concepts=CAT, instead=DOG, seed=0, full={})


def test_only_a_guidance_input_that_does_nothing_is_loaded(edit, sd1, tmp_path):
    """As in a student's folder; one whose weights are used, or under a scheduler of many steps, is refused as before."""
    student = edit.apply(sd1)
    student.save(tmp_path / "student")
    assert load(tmp_path / "student").hash() == student.hash()
    swapped = as_multistep(student, sd1)
    swapped.save(tmp_path / "swapped")
    with pytest.raises(ModelError, match="LCM"):
        load(tmp_path / "swapped")
    used = student.copy()
    used.unet.time_embedding.cond_proj.weight.data.fill_(0.1)
    used.save(tmp_path / "used")
    with pytest.raises(ModelError, match="uses it, as LCM does"):
        load(tmp_path / "used")


def test_v_prediction_negatives_and_bfloat16_run(sd2, tmp_path):
    file = tmp_path / "products.yaml"
    file.write_text("subjects: [a picture]\nkeywords: [cat, lynx]\n")
    config = dataclasses.replace(
        LIGHT, products=str(file), negatives="all", precision="bfloat16", alternative="given", iterations=1
    )
    edit = sfd.run(sd2, CAT, [""], config)
    assert edit.header["figures"]["training"]["prompts"]["negative"] == 1
    teacher_only = sfd.run(sd2, CAT, [""], dataclasses.replace(config, negatives="teacher"))
    assert any(not v.equal(teacher_only.tensors[k]) for k, v in edit.tensors.items())


def test_no_picture_is_made_and_the_model_stays(sd1, monkeypatch):
    before = sd1.hash()
    monkeypatch.setattr(Model, "decode", lambda *a: pytest.fail("a picture was made"))
    sfd.run(sd1, CAT, DOG, LIGHT)
    assert sd1.hash() == before


def test_the_score_can_be_kept_instead(sd1):
    edit = sfd.run(sd1, CAT, DOG, dataclasses.replace(LIGHT, keep="score"))
    assert not edit.header["student"] and not edit.header["configs"]
    assert not one_step(edit.apply(sd1).scheduler)


@pytest.mark.parametrize("share", ["passes", "nothing"])
def test_accumulated_gradients_make_the_same_update(sd1, conditions, share):
    config = dataclasses.replace(LIGHT, share=share, clip=1e9)
    whole, parts = (updated(sd1, conditions, dataclasses.replace(config, at_once=n)) for n in (0, 2))
    for name in ("student", "score"):
        assert near(gradient(getattr(parts, name)), gradient(getattr(whole, name)), 2e-5)


# ---------------------------------------------------------------------------------------------------- stages and a start


@pytest.fixture(scope="module")
def generator(sd1, tmp_path_factory) -> Path:
    """A one-call generator of sd1 in a folder."""
    config = SFDConfig(iterations=1, kept=2, observe_every=0)
    student = sfd.distil(sd1, KEPT, config, seed=1)
    assert student.guidance == config.resolved(sd1).guidance_teacher
    folder = tmp_path_factory.mktemp("start") / "generator"
    student.save(folder)
    return folder


def test_distilled_alone(sd1, generator):
    found = load(generator)
    assert one_step(found.scheduler) and found.scheduler.config.num_train_timesteps == 626
    moved = [
        k for k, v in found.unet.state_dict().items() if k != GUIDANCE_WEIGHT and not v.equal(sd1.unet.state_dict()[k])
    ]
    assert moved and found.text_encoders[0].state_dict().keys() == sd1.text_encoders[0].state_dict().keys()
    with pytest.raises(BoundsError):
        sfd.distil(sd1, ["a nude child"], LIGHT)


def test_a_start_is_the_students_and_the_score_begins_with_the_teacher(sd1, generator, monkeypatch):
    made: list[Nets] = []
    whole = Nets.of
    monkeypatch.setattr(Nets, "of", lambda *a: made.append(copy.deepcopy(whole(*a))) or made[-1])
    edit = sfd.run(sd1, CAT, DOG, dataclasses.replace(SMALL, start=str(generator)))
    at, base, start = made[0], sd1.unet.state_dict(), load(generator)
    monkeypatch.undo()
    assert all(v.equal(network(at.teacher).state_dict()[k]) for k, v in base.items())
    training = edit.header["figures"]["training"]
    assert training["start"] == {"name": "generator", "hash": start.hash()}
    assert [(s["student"], s["score"]) for s in training["stages"]] == [("the start", "the model")]
    begun = Nets.of(sd1, 2.5, Guidance(), start.unet)
    assert all(v.equal(start.unet.state_dict()[k]) for k, v in network(begun.student).state_dict().items())
    assert all(v.equal(base[k]) for k, v in network(begun.score).state_dict().items())


def test_the_zoos_own_start_is_taken_where_it_ships(sd1, generator, monkeypatch):
    assert sfd._start(sd1, SMALL.resolved(sd1)) is None
    monkeypatch.setattr(sfd, "STARTS", {sd1.source: str(generator)})
    monkeypatch.setattr(sfd, "zoo_names", lambda: [str(generator)])
    found = sfd._start(sd1, SMALL.resolved(sd1))
    assert found is not None and found.hash() == load(generator).hash()
    for config in (dataclasses.replace(SMALL, start="none"), LIGHT):
        assert sfd._start(sd1, config.resolved(sd1)) is None


def test_a_start_that_does_not_fit(sd1, sd2, generator, tmp_path, tiny_folders):
    def refused(source: Path, message: str, config: SFDConfig = SMALL, model: Model = sd1) -> None:
        with pytest.raises(ModelError, match=message):
            sfd._start(model, dataclasses.replace(config, start=str(source)).resolved(model))

    refused(tiny_folders["sd1"], "does not say at which noise")
    refused(generator, "draws at sigma 2.50, time 625", dataclasses.replace(SMALL, sigma_init=4.0))
    refused(generator, "predicts epsilon", model=sd2)
    other = load(generator)
    with torch.no_grad():
        next(other.text_encoders[0].parameters()).add_(1)
    other.save(tmp_path / "text")
    refused(tmp_path / "text", "another text_encoder")
    wide = load(tiny_folders["sd1"])
    from diffusers import UNet2DConditionModel

    config = {k: v for k, v in wide.unet.config.items() if not k.startswith("_")} | {"block_out_channels": (16, 48)}
    wide.pipeline.register_modules(unet=UNet2DConditionModel(**config))
    as_student(wide, scheduler_config(wide.scheduler, 625)).save(tmp_path / "wide")
    refused(tmp_path / "wide", "another architecture")
    with pytest.raises(ModelError, match="is not in the zoo"):
        sfd._start(sd1, dataclasses.replace(SMALL, start="zoo:none").resolved(sd1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": 1, "start": "zoo:emoji-1step"}, "has no start"),
        ({"keep": "score", "score_rank": 2}, "for the training alone"),
        ({"untold": 1.5}, "untold must be between 0 and 1"),
        ({"guidance_teacher": -1.0}, "guidance_teacher must be 0 or more"),
        ({"negatives": "none"}, "negatives must be one of"),
        ({"optimiser": "sgd"}, "optimiser must be one of"),
        ({"templates": ("cat",)}, "a template has"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(UsageError, match=message):
        SFDConfig(**changes)


def test_models_that_do_not_fit(tiny_folders, sd1):
    with pytest.raises(UsageError, match="is sdxl"):
        sfd.run(load(tiny_folders["sdxl"]), CAT, DOG, SMALL)
    with pytest.raises(UsageError, match="retain is for texts"):
        sfd.run(load(tiny_folders["label-unet"]), [Concept("class 1")], ["class 2"], SMALL)
    with pytest.raises(UsageError, match="classifies"):
        sfd.run(sd1, CAT, [""], dataclasses.replace(SMALL, alternative="classifier"))
    with pytest.raises(UsageError, match="exclude each other"):
        sfd.run(sd1, CAT, DOG, dataclasses.replace(SMALL, alternative="mixture"))


# ------------------------------------------------------------------------------------------------------------- resuming


def test_stopped_and_resumed_is_the_same_edit(sd1, tmp_path):
    """Stopped after the first iteration of the second stage; the edit is that of a run that was never stopped."""
    config = dataclasses.replace(SMALL, iterations=3, observe_every=1, kept=2, forgotten=1)

    class Stop(Exception):
        pass

    def observe(iteration: int, shown: Model) -> dict[str, float]:
        seen.append(shown.unet.config.time_cond_proj_dim)
        if len(seen) == 4:
            raise Stop
        return {}

    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sfd_loop, "GAP_SIGMAS", (2.5,))
        patched.setattr(sfd_loop, "Run", lambda *a, **k: Run(*a, **k, save_seconds=0.0))
        with pytest.raises(Stop):
            sfd.run(sd1, CAT, DOG, config, seed=3, observe=observe, folder=tmp_path)
        assert seen == [4] * 4 and (tmp_path / "forget/checkpoint.safetensors").exists()
        resumed = sfd.run(sd1, CAT, DOG, config, seed=3, folder=tmp_path)
        assert resumed.id == sfd.run(sd1, CAT, DOG, config, seed=3).id


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"checkpointing": True}, "passes"),
        ({"offload": True}, "passes"),
        ({"checkpointing": True, "offload": True}, "samples"),
    ],
)
def test_levers_leave_the_gradients_as_they_are(sd1, conditions, changes, share):
    config = dataclasses.replace(LIGHT, share=share, clip=1e9)
    plain, light = (updated(sd1, conditions, dataclasses.replace(config, **c), light=bool(c)) for c in ({}, changes))
    assert light.waits is changes.get("offload", False)
    for name in ("student", "score"):
        assert near(gradient(getattr(light, name)), gradient(getattr(plain, name)), 2e-5)


def test_a_waiting_teacher_is_gone_between_uses(sd1, conditions):
    """It comes for its first pass, for its gradient and for (4), and leaves each time; on this machine from CPU to CPU."""
    at = sfd_memory.lightened(nets(sd1), dataclasses.replace(LIGHT, offload=True), 0)
    moves: list[str] = []
    teacher = network(at.teacher)
    whole = teacher.to
    teacher.to = lambda where: moves.append(str(where)) or whole(where)
    drawn = rows(sd1, conditions)
    config = dataclasses.replace(LIGHT, other_times=1.0)
    sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=True)
    assert moves == ["cpu"] * 6


def test_adam_without_its_first_moment_is_adam():
    steps = {}
    for kind in ("adam", "lean"):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        optimiser = sfd_memory.optimiser(kind, list(layer.parameters()), 0.1)
        for i in range(5):
            optimiser.zero_grad()
            layer(torch.randn(4, 5, generator=torch.Generator().manual_seed(i))).square().sum().backward()
            optimiser.step()
        steps[kind] = layer.weight.detach()
    assert torch.allclose(steps["adam"], steps["lean"], atol=1e-6)


def test_eight_bit_adam_is_the_users_own(monkeypatch):
    import types

    layer = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="bitsandbytes, which is not installed"):
        sfd_memory.optimiser("adam8bit", list(layer.parameters()), 0.1)
    made = types.SimpleNamespace(optim=types.SimpleNamespace(Adam8bit=lambda p, **k: ("eight", len(p), k["betas"])))
    monkeypatch.setitem(sys.modules, "bitsandbytes", made)
    monkeypatch.setattr(sfd_memory.importlib.util, "find_spec", lambda name: object())
    assert sfd_memory.optimiser("adam8bit", list(layer.parameters()), 0.1) == ("eight", 2, (0.0, 0.999))


def test_frozen_weights_are_held_in_bfloat16(sd1, conditions):
    config = dataclasses.replace(LIGHT, frozen="bfloat16", score_rank=2, clip=1e9)
    light = updated(sd1, conditions, config, light=True)
    assert {p.dtype for p in network(light.teacher).parameters()} == {torch.bfloat16}
    held = {p.dtype: p.requires_grad for p in network(light.score).parameters()}
    assert held == {torch.bfloat16: False, torch.float32: True}
    plain = updated(sd1, conditions, dataclasses.replace(config, frozen="float32", score_rank=0))
    similar = nn.functional.cosine_similarity(gradient(light.student), gradient(plain.student), dim=0)
    assert similar > 0.9


def test_a_score_of_low_rank_follows_what_a_whole_one_does(sd1, conditions):
    """30 updates on one batch of samples that are not the model's: the loss falls by at least half of what training
    everything gains, with a fraction of the parameters, and the frozen weights stay."""
    drawn = rows(sd1, conditions, untold=0.0, kept=3, forgotten=1)
    x = 0.5 * torch.ones_like(drawn.z)
    gains = {}
    for rank in (0, 4):
        at = Nets.of(sd1, 2.5)
        if rank:
            at = sfd_memory.lightened(at, dataclasses.replace(LIGHT, score_rank=rank), 0)
        learns = parameters(at.score)
        before = {k: v.clone() for k, v in network(at.score).state_dict().items() if "lora" not in k}
        optimiser = torch.optim.Adam(learns, lr=5e-3)
        losses = []
        for _ in range(30):
            optimiser.zero_grad()
            losses.append(float(sfd_losses.score_gradient(at, x, drawn, LIGHT)["score"].mean()))
            optimiser.step()
        gains[rank] = (losses[0] - losses[-1], sum(p.numel() for p in learns))
        if rank:
            assert all(v.equal(network(at.score).state_dict()[k]) for k, v in before.items())
    assert gains[4][0] > 0.5 * gains[0][0] > 0 and gains[4][1] < 0.5 * gains[0][1]


def test_a_run_with_every_lever_resumes(sd1, tmp_path):
    config = dataclasses.replace(
        LIGHT,
        iterations=1,
        checkpointing=True,
        offload=True,
        frozen="bfloat16",
        optimiser="lean",
        score_rank=2,
        ema=0.0,
    )
    first = sfd.run(sd1, CAT, DOG, config, folder=tmp_path)
    assert first.id == sfd.run(sd1, CAT, DOG, config, folder=tmp_path).id


def test_a_budget_leaves_the_networks_as_they_were(sd1):
    """Iterations are timed on the networks themselves, which are then put back."""
    timed = sfd.run(sd1, CAT, DOG, dataclasses.replace(LIGHT, minutes=0.005))
    config = dataclasses.replace(LIGHT, iterations=timed.header["config"]["iterations"])
    again = sfd.run(sd1, CAT, DOG, config)
    assert all(v.equal(again.tensors[k]) for k, v in timed.tensors.items())


def test_a_score_of_low_rank_needs_peft(sd1, monkeypatch):
    monkeypatch.setattr(sfd_memory.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[lora\]"):
        sfd_memory.low_rank(copy.deepcopy(sd1.unet), 2, 0)
