"""load -> erase -> screening -> self-check -> evaluate, on tiny fakes. What the zoo does is in tests/zoo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import scotoma
from scotoma import api
from scotoma.erasure.chain import save_edited
from scotoma.errors import BoundsError, SelfCheckError, UndecidedError, UsageError
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.look import FORBIDDEN, Look, forbidden_concepts, named
from scotoma.evaluation.task import Size, text_task
from scotoma.models import tiny
from scotoma.models.load import Model
from scotoma.models.student import GUIDANCE_WEIGHT, as_student, scheduler_config
from scotoma.records import Concept

LOOK = Look(size=Size(24, 20, 24), steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return scotoma.load(folder)


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random model that says it was trained on the emoji and draws 32 px, so that the zoo's judges look at it."""
    place = tiny.write("sd1", tmp_path_factory.mktemp("emoji"))
    config = json.loads((place / "unet/config.json").read_text())
    (place / "unet/config.json").write_text(json.dumps(config | {"sample_size": 16}))
    (place / "scotoma-defaults.json").write_text('{"data": "emoji", "guidance": 1.0}')
    return scotoma.load(place)


class Scripted:
    """Sees what it is told: `before` in the first batch it is shown, `after` in the second."""

    name, sha256, reference = "scripted", "0" * 64, None

    def __init__(self, *labels):
        self.labels = list(labels)

    def knows(self, label, head="name"):
        return True

    def sees(self, pictures, heads):
        return Seen(self.labels.pop(0), pictures.mean((1, 2)).astype(np.float32))


def scripted(monkeypatch, after):
    """Judge by script: everything is right before; `after(ask)` afterwards."""

    def judged(model, concepts, alternatives, look, forbidden=()):
        becomes = {c.name: a for c, a in zip(concepts, alternatives, strict=True)}
        task = text_task(becomes, near=["red"], size=look.size)
        return task, Scripted([a.wanted for a in task.asks], [after(a) for a in task.asks]), ()

    monkeypatch.setattr(api, "judged", judged)


def test_a_good_edit_passes_and_carries_its_figures(model, monkeypatch, tmp_path):
    scripted(monkeypatch, lambda ask: "dog" if ask.role == "forget" else ask.wanted)
    before = model.hash()
    edit = scotoma.erase(model, concept="cat", instead="dog", look=LOOK)
    assert model.hash() == before
    assert edit.concepts == ("cat",) and edit.header["instead"] == ["dog"]
    assert edit.header["figures"]["self_check"]["passed"] is True
    assert edit.header["figures"]["forgotten"]["value"] == 1.0
    edit.save(tmp_path / "cat.safetensors")
    assert scotoma.load(model.source, edits=[tmp_path / "cat.safetensors"]).hash() == edit.apply(model).hash()


def test_same_inputs_same_edit(model, monkeypatch):
    made = []
    for _ in range(2):
        scripted(monkeypatch, lambda ask: "dog" if ask.role == "forget" else ask.wanted)
        made.append(scotoma.erase(model, concept="cat", instead="dog", look=LOOK).id)
    assert made[0] == made[1]


def test_an_edit_that_forgets_nothing_is_refused(model, monkeypatch):
    scripted(monkeypatch, lambda ask: ask.wanted)
    with pytest.raises(SelfCheckError, match="concept forgotten"):
        scotoma.erase(model, concept="cat", instead="dog", look=LOOK)


def test_an_edit_that_breaks_the_rest_is_refused(model, monkeypatch):
    scripted(monkeypatch, lambda ask: "dog")
    with pytest.raises(SelfCheckError, match="near concepts kept.*also failed: far concepts kept"):
        scotoma.erase(model, concept="cat", instead="dog", look=LOOK)


def test_an_edit_that_leads_to_something_forbidden_is_refused(model, monkeypatch):
    scripted(monkeypatch, lambda ask: "wolf" if ask.role == "forget" else ask.wanted)
    with pytest.raises(SelfCheckError, match="no forbidden concept.*wolf"):
        scotoma.erase(model, concept="cat", instead="dog", forbid=["wolf"], look=LOOK)


def test_nobody_to_judge_is_undecided(model):
    with pytest.raises(UndecidedError, match="--clip PATH_OR_ID.*--accept-undecided"):
        scotoma.erase(model, concept="cat", instead="dog", look=LOOK)
    edit = scotoma.erase(model, concept="cat", instead="dog", look=LOOK, accept_undecided=True)
    assert edit.header["figures"]["self_check"]["passed"] is None
    assert edit.header["figures"]["forgotten"]["value"] is None


@pytest.mark.parametrize("instead", ["wolf", "a wolf in the snow", "wolves"])
def test_a_forbidden_alternative_is_refused_before_any_work(model, monkeypatch, instead):
    monkeypatch.setattr(api, "judged", None)  # reaching it would raise TypeError
    with pytest.raises(BoundsError, match="forbidden"):
        scotoma.erase(model, concept="cat", instead=instead, forbid=["wolf"])


@pytest.mark.parametrize("instead", ["weapon", "a pool of blood", "hate symbols"])
def test_the_five_kinds_of_unsafe_output_are_no_alternative(model, instead):
    assert len(FORBIDDEN) >= 5
    with pytest.raises(BoundsError, match="forbidden"):
        scotoma.erase(model, concept="cat", instead=instead)


def test_what_is_being_erased_is_not_forbidden_to_itself(model, emoji):
    assert "blood" not in {c.name for c in forbidden_concepts(model, [Concept("Blood")], [])}
    names = {c.name for c in forbidden_concepts(emoji, [Concept("dagger")], [])}
    assert "dagger" not in names and {"bomb", "coffin", "bikini"} <= names


@pytest.mark.parametrize("instead", ["bomb", "hocho", "gun"])
def test_no_stand_in_of_the_zoo_is_an_alternative_under_any_name(emoji, instead):
    """hocho is a synonym of kitchen knife, gun of water pistol."""
    with pytest.raises(BoundsError, match="forbidden"):
        scotoma.erase(emoji, concept="pencil", instead=instead)


def test_debiasing_a_concept_with_what_the_bounds_forbid_beside_it(model):
    with pytest.raises(BoundsError):
        scotoma.erase(model, concept="child", settings={"debias": ("nude",)})


def test_an_alternative_that_no_judge_knows_is_undecided(emoji):
    with pytest.raises(UndecidedError, match="also undecided:.*alternative"):
        scotoma.erase(emoji, concept="dagger", instead="a bowl of soup", look=LOOK)


def test_options_that_would_be_ignored_are_refused(emoji):
    with pytest.raises(UsageError, match="of its own"):
        scotoma.erase(emoji, concept="dagger", look=Look(near=("axe",)))
    with pytest.raises(UsageError, match="give --clip beside --real"):
        Look(real=Path("pictures"))
    with pytest.raises(UsageError, match="'a photo of a {}'"):
        Look(prompts=("a photo",))


def test_phrases_mixed_in_by_debiasing_are_screened_too(model):
    with pytest.raises(BoundsError, match="forbidden"):
        scotoma.erase(model, concept="doctor", settings={"debias": ("wolf", "cat")}, forbid=["wolf"])


def test_a_synonym_of_the_concept_is_no_alternative(model):
    with pytest.raises(BoundsError, match="is being erased"):
        scotoma.erase(model, concept=Concept("cat", synonyms=("tomcat",)), instead="tomcat")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concept": []}, "no concept is named"),
        ({"concept": " "}, "no concept is named"),
        ({"concept": ["cat", "dog"], "instead": ["a", "b", "c"]}, "3 alternatives for 2 concepts"),
        ({"concept": "cat", "method": "uec"}, "did you mean 'uce'"),
        ({"concept": "cat", "settings": {"lamb": 1.0}}, "did you mean 'lam'"),
    ],
)
def test_what_does_not_fit_is_said(model, given, message):
    with pytest.raises(UsageError, match=message):
        scotoma.erase(model, **given)


def test_a_method_that_does_not_edit_the_family(tmp_path):
    labels = scotoma.load(tiny.write("label-unet", tmp_path / "labels"))
    with pytest.raises(UsageError, match="uce edits sd1, sd2, sdxl, and labels is label-unet"):
        scotoma.erase(labels, concept="class 1")


def test_the_zoo_knows_its_names_styles_and_categories(emoji):
    assert [c.name for c in named(emoji, "disturbing", "balloon")[0]][:2] == ["drop of blood", "coffin"]
    assert named(emoji, "disturbing", "balloon")[1] == ("balloon",) * 6
    assert named(emoji, ["fluent"], ["twemoji"])[0][0].kind == "style"
    with pytest.raises(UsageError, match="did you mean 'dagger'"):
        named(emoji, "daggr", "")


def test_a_random_model_is_undecided_to_the_zoo_judge(emoji):
    """Noise is not a dagger, so nothing can be said of its loss."""
    with pytest.raises(UndecidedError, match="concept seen before"):
        scotoma.erase(emoji, concept="dagger", instead="pencil", look=LOOK)


def test_evaluate_takes_concepts_from_the_edit(emoji):
    edit = scotoma.erase(emoji, concept="dagger", instead="pencil", look=LOOK, accept_undecided=True)
    look = Look(judge="a", size=Size(4, 4, 8), steps=1, first_seed=api.EVALUATE_SEED)
    evidence = scotoma.evaluate(emoji, edit, look=look)
    assert evidence.figures["forgotten"].n == 4 and evidence.figures["retained_far"].n == 8
    assert evidence.header.hashes["edited"] == edit.apply(emoji).hash()
    assert evidence.header.hashes["edit 1"] == edit.id
    assert evidence.header.resolved["method"] == ["uce"] and evidence.header.resolved["judge"] == "emoji A"
    assert "real pictures" in evidence.header.hashes
    assert {r["seed"] for r in evidence.records} == set(range(api.EVALUATE_SEED, api.EVALUATE_SEED + 16))
    again = scotoma.evaluate(emoji, edit.apply(emoji), concept="dagger", instead="pencil", look=look)
    assert again.records == evidence.records


def test_evaluate_reads_what_an_edited_folder_was_made_of(emoji, tmp_path):
    edit = scotoma.erase(emoji, concept="dagger", instead="pencil", look=LOOK, accept_undecided=True)
    save_edited(emoji, [edit], tmp_path / "edited")
    look = Look(judge="a", size=Size(2, 2, 4), steps=1)
    one, two = scotoma.evaluate(emoji, tmp_path / "edited", look=look), scotoma.evaluate(emoji, edit, look=look)
    assert one.records == two.records and one.header.resolved["instead"] == ["pencil"]
    edit.save(tmp_path / "e.safetensors")
    assert scotoma.evaluate(emoji, str(tmp_path / "e.safetensors"), look=look).records == two.records
    other = scotoma.evaluate(emoji, edit, instead="balloon", look=look)
    assert other.header.resolved["concepts"] == ["dagger"] and other.header.resolved["instead"] == ["balloon"]


def test_a_report_is_judge_bs_on_seeds_of_its_own():
    """Whatever else of the look is chosen."""
    look = Look(steps=10).filled("b", Size(), api.EVALUATE_SEED)
    assert (look.judge, look.first_seed, look.steps) == ("b", api.EVALUATE_SEED, 10)
    assert Look(judge="a", first_seed=7).filled("b", Size(), api.EVALUATE_SEED).first_seed == 7


def test_the_record_of_the_self_check_names_the_edit_that_is_saved(emoji):
    done = api.carry_out(emoji, "dagger", "pencil", look=LOOK)
    assert done.seen.evidence.header.hashes["edit 1"] == done.edit.id
    assert done.edited.hash() == done.edit.apply(emoji).hash()
    assert done.seen.evidence.header.resolved["settings"]["tokens"] == "last"


def test_evaluate_without_an_edit_needs_a_concept(model):
    with pytest.raises(UsageError, match="--concept"):
        scotoma.evaluate(model, model)


def test_weight_change_by_hand(model):
    """Twice the weights is a change of the norm itself: 1. The same weights: 0. An added tensor: infinite, but 0 for one
    that is 0, as the guidance input of a one-call student."""
    other = model.copy()
    name = next(k for k, _ in model.unet.named_parameters())
    other.unet.get_parameter(name).data.mul_(2)
    assert api.weight_change(model, other, {f"unet.{name}": {}}) == pytest.approx(1.0)
    assert api.weight_change(model, model, {f"unet.{name}": {}}) == 0
    assert api.weight_change(model, other, {"unet.new": {}}) == float("inf")
    added = f"unet.{GUIDANCE_WEIGHT}"
    student = as_student(model, scheduler_config(model.scheduler, 625))
    assert api.weight_change(model, student, {f"unet.{name}": {}, added: {}}) == 0
    student.unet.time_embedding.cond_proj.weight.data.fill_(1.0)
    assert api.weight_change(model, student, {f"unet.{name}": {}, added: {}}) == float("inf")


def test_a_safety_option_never_fails_open(folder, model):
    """A strength without concepts, concepts without a strength: neither gives a model that only looks steered."""
    for options in ({"sld_concepts": ["cat"]}, {"sld": "max"}):
        with pytest.raises(UsageError, match="sld_concepts go with a strength"):
            scotoma.load(folder, **options)
    assert scotoma.load(folder, sld="max", sld_concepts=["cat"]).sld.concepts == ("cat",)
    with pytest.raises(UsageError, match="nothing to compare the model with"):
        scotoma.evaluate(model, concept="cat")


def test_with_judges_of_the_zoo_an_edit_that_is_to_leave_a_mosaic_is_seen_at_several_guidances(emoji):
    config = {"iterations": 1, "pictures": 2, "steps": 1, "batch": 2, "observe_every": 0, "mosaic": "full", "lr": 0.05}
    done = api.carry_out(emoji, "dagger", method="safegen", settings=config, look=LOOK)
    figures = done.edit.header["figures"]
    assert set(figures["forgotten_at_guidance"]) == {
        f"w = {w}{suffix}" for w in ("1", "3", "5", "7.5") for suffix in ("", ", unedited model")
    }
    assert figures["looks_mosaicked"]["n"] == 24 and len(figures["rho"]) > 0
    assert "forget pictures like real ones" not in {c.name for c in done.check.checks}


def test_a_student_of_texts_is_told_captions_and_seen_in_many_steps(emoji, monkeypatch):
    """In one call and, unguided and guided, in 5, 25 and 50, and so with the time given back; it is told captions without the
    concept."""
    monkeypatch.setattr(api, "CAPTIONS", 20)
    config = {"iterations": 1, "distil_iterations": 1, "kept": 2, "forgotten": 1, "observe_every": 0}
    look = Look(size=Size(2, 2, 2))
    done = api.carry_out(emoji, "dagger", "pencil", method="sfd", settings=config, look=look)
    figures = done.edit.header["figures"]
    assert figures["training"]["prompts"]["kept"] == 20
    names = {f"w = {w}, {n} steps" for w in (1, 2) for n in (5, 25, 50)}
    names |= {f"w = 1, {n} steps, the time given back" for n in (5, 25, 50)}
    assert set(figures["forgotten_in_many_steps"]) == names
    assert done.edit.header["student"] and done.edited.unet.config.time_cond_proj_dim == 4


def test_what_a_product_becomes_is_screened(emoji, tmp_path):
    """A subject is an alternative like any other: here a stand-in, which nothing may become."""
    (tmp_path / "products.yaml").write_text("subjects: [a bomb]\n")
    config = {"products": str(tmp_path / "products.yaml")}
    with pytest.raises(BoundsError, match="bomb"):
        api.carry_out(emoji, "dagger", method="sfd", settings=config, look=LOOK)


def test_an_edit_on_top_of_another_is_compared_with_the_unedited_model(model):
    first = api.carry_out(model, "cat", "dog", look=LOOK).edit
    second = api.carry_out(model, "cat", "dog", look=LOOK, on=[first], settings={"lam": 0.1})
    assert second.edit.header["parents"] == [first.id]
    hashes = second.seen.evidence.header.hashes
    assert hashes["model"] == model.hash() and hashes["edit 1"] == first.id and hashes["edit 2"] == second.edit.id
    assert second.edited.hash() == hashes["edited"]


def test_what_an_emoji_method_is_handed(emoji):
    concepts, instead = named(emoji, "dagger", "pencil")
    safegen, ours = api.METHODS["safegen"], api.METHODS["all_but_one"]
    handed = api._handed(safegen, emoji, concepts, instead, LOOK, None)
    assert set(handed) == {"heat", "unedited", "retain"} and handed["unedited"] is emoji
    assert len(handed["retain"]) == 64 and "dagger" not in handed["retain"]
    style, _ = named(emoji, "noto", "")
    assert "heat" not in api._handed(safegen, emoji, style, [""], LOOK, None)
    assert set(api._handed(ours, emoji, concepts, instead, LOOK, None)) == {"retain"}
    import torch

    pictures = torch.zeros(2, 3, 32, 32)
    assert handed["heat"](pictures, "dagger").shape == (2, 32, 32)
