"""All but One and concept ablation: losses by hand, what gradients reach, and the loop that they share with ESD."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scotoma.erasure import all_but_one, concept_ablation, matching, tuning
from scotoma.erasure.all_but_one import AllButOneConfig, guidance_loss
from scotoma.erasure.concept_ablation import ConceptAblationConfig
from scotoma.erasure.matching import batch_of, mse
from scotoma.erasure.prompts import Pair, tell
from scotoma.erasure.states import State
from scotoma.errors import EmptyLayerGroupError, ModelError, StackingError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.models.sample import sample_latents
from scotoma.models.student import as_student, scheduler_config
from scotoma.records import Concept

SHORT = {"iterations": 4, "batch": 4, "steps": 3, "trajectories": 8, "observe_every": 2}
SMALL = AllButOneConfig(**SHORT, retain=("tree", "sea"))
CAT, DOG = [Concept("cat")], ["dog"]


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_the_guidance_term_by_hand():
    """concept 3 and 4, null 1, frozen null 0.5, target 1."""
    told = of(3.0, 4.0), of(1.0, 1.0), of(0.5, 0.5), of(1.0, 1.0)
    assert guidance_loss("joint", *told).item() == pytest.approx((1 + 4) / 2)
    assert guidance_loss("detached", *told).item() == pytest.approx((1 + 4) / 2)
    assert guidance_loss("anchored", *told).item() == pytest.approx((1.5**2 + 2.5**2) / 2)


@pytest.mark.parametrize(
    "form, on_concept, on_null", [("joint", 2.0, -2.0), ("detached", 2.0, None), ("anchored", 3.0, None)]
)
def test_what_is_held_still(form, on_concept, on_null):
    """d/dc (c - base - target)^2 = 2 (c - base - target), the opposite for a base that learns, nothing for one held still."""
    concept, null = of(3.0).requires_grad_(), of(1.0).requires_grad_()
    guidance_loss(form, concept, null, of(0.5), of(1.0)).backward()
    assert concept.grad.item() == on_concept
    assert (null.grad and null.grad.item()) == on_null


class Table(torch.nn.Module):
    """Predicts the number that stands for its label, wherever it is asked."""

    def __init__(self, *numbers: float):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.tensor(numbers))

    def forward(self, x, time, class_labels):
        return (self.numbers[class_labels].view(-1, 1, 1, 1).expand_as(x),)


NULL, CONCEPT, OTHER, STAYS = range(4)


def numbers(*values: float) -> Denoiser:
    return Denoiser(Table(*values), Schedule([0.5]), "epsilon")


def row(label: int, n: int) -> Cond:
    return Cond(labels=torch.full((n,), label))


def batch(kept=(False, True)) -> matching.Batch:
    """Two states of one number; what the frozen network of `FROZEN` says there."""
    n = len(kept)
    state = State(of(*[0.0] * n), torch.zeros(n, dtype=torch.int64), torch.zeros(n), of(*[1.0] * n), of(*[5.0] * n))
    return matching.Batch(state, row(CONCEPT, n), row(OTHER, n), row(NULL, n), row(STAYS, n), torch.tensor(kept))


FROZEN = (1.0, 2.0, 4.0, 5.0)  # null, concept, alternative, a prompt that stays
TRAINED = (1.5, 3.0, 4.0, 5.5)


@pytest.mark.parametrize(
    "settings, guidance",
    [
        ({"form": "joint"}, (3.0 - 1.5 - 3.0) ** 2),
        ({"form": "detached"}, (3.0 - 1.5 - 3.0) ** 2),
        ({"form": "anchored"}, (3.0 - 1.0 - 3.0) ** 2),
        ({"form": "joint", "alternative": "negated", "eta": 2.0}, (3.0 - 1.5 + 2.0) ** 2),
    ],
)
def test_the_whole_loss_by_hand(settings, guidance):
    config = AllButOneConfig(**settings, lam=10.0, mu=100.0)
    found = all_but_one.loss(config)(numbers(*TRAINED), numbers(*FROZEN), batch())
    assert found["guidance"].item() == pytest.approx(guidance)
    assert found["null"].item() == pytest.approx(0.25)
    assert found["kept"].item() == pytest.approx(0.25)
    assert found["loss"].item() == pytest.approx(guidance + 10 * 0.25 + 100 * 0.25)


@pytest.mark.parametrize("options", [{"mu": 0.0}, {"mu": 1.0, "kept": (False, False)}])
def test_without_kept_prompts_their_term_is_nothing(options):
    rows = batch(options.pop("kept", (False, True)))
    found = all_but_one.loss(AllButOneConfig(**options))(numbers(*TRAINED), numbers(*FROZEN), rows)
    assert found["kept"].item() == 0 and torch.isfinite(found["loss"])


def test_states_of_the_concept_alone_leave_those_that_are_held_to_their_own_term():
    """Two states, the second of a prompt that stays: the guidance term and the null term see the first alone."""
    student = numbers(*TRAINED)
    asked = []
    forward = student.network.forward
    student.network.forward = lambda x, time, class_labels: (
        asked.append(class_labels.tolist()) or forward(x, time, class_labels)
    )
    found = all_but_one.loss(AllButOneConfig(states="concept"))(student, numbers(*FROZEN), batch())
    assert asked == [[CONCEPT, NULL, STAYS]]
    assert found["guidance"].item() == pytest.approx((3.0 - 1.5 - 3.0) ** 2) and found["kept"].item() > 0


def test_anchored_without_its_constraint_is_concept_ablation():
    networks = numbers(*TRAINED), numbers(*FROZEN)
    ours = all_but_one.loss(AllButOneConfig(form="anchored", lam=0.0, mu=0.0))(*networks, batch())["loss"]
    theirs = concept_ablation.loss(ConceptAblationConfig())(*networks, batch())["loss"]
    assert ours.item() == theirs.item() == (3.0 - 4.0) ** 2


def test_no_gradient_reaches_the_frozen_network():
    student, frozen = numbers(*TRAINED), numbers(*FROZEN)
    for terms in (all_but_one.loss(AllButOneConfig()), concept_ablation.loss(ConceptAblationConfig())):
        terms(student, frozen, batch())["loss"].backward()
    assert frozen.network.numbers.grad is None and student.network.numbers.grad is not None


def test_the_only_minimum_is_the_frozen_network_with_the_alternative_in_the_concepts_place():
    for form in ("joint", "detached", "anchored"):
        student = numbers(1.0, 4.0, 4.0, 5.0)
        all_but_one.loss(AllButOneConfig(form=form))(student, numbers(*FROZEN), batch())["loss"].backward()
        assert student.network.numbers.grad.abs().max() == 0


def test_mse():
    assert mse(of(1.0, 3.0), of(0.0, 1.0)).item() == 2.5
    assert mse(of(), of()).item() == 0


def test_conditions_go_with_their_states(sd1):
    told = tell(sd1, [Pair("cat", "dog"), Pair("a cat", "a dog")], ("tree",), 8, mixture=True, holds=True, seed=0)
    source = torch.tensor([3, 0, 2])
    empty = torch.zeros(3, 1, 1, 1)
    made = batch_of(State(empty, source, source, empty, empty), told)
    assert made.concept.text.equal(told.concept[[1, 0, 1]].text)
    assert made.alternative.text.equal(told.alternative[[1, 0, 1]].text)
    assert made.source.text.equal(told.sources[[3, 0, 2]].text)
    assert made.kept.tolist() == [True, False, False] and len(made.null) == 3


# ---------------------------------------------------------------------------------------------- the loop they share


def test_training_moves_the_concept_to_its_alternative_and_holds_the_rest(sd1):
    config = dataclasses.replace(SMALL, iterations=60, batch=16, lr=3e-3)
    edited = all_but_one.run(sd1, CAT, DOG, config).apply(sd1)
    x, t = torch.randn(16, *sd1.latent_shape, generator=torch.Generator().manual_seed(1)), torch.full((16,), 500)

    def away(model: Model, prompt: str, wanted: str) -> float:
        with torch.no_grad():
            now, goal = (m.denoiser().eps(x, t, m.encode([p] * 16)) for m, p in ((model, prompt), (sd1, wanted)))
        return float(mse(now, goal))

    assert away(edited, "cat", "dog") < 0.5 * away(sd1, "cat", "dog")
    assert away(edited, "", "") < 0.2 * away(sd1, "cat", "dog")


def test_only_keys_and_values_of_cross_attention_change_by_default(sd1):
    for code, config in ((all_but_one, SMALL), (concept_ablation, ConceptAblationConfig(**SHORT))):
        edit = code.run(sd1, CAT, DOG, config)
        assert edit.header["touched"] and edit.header["config"]["layers"] == "xattn-kv"
        assert all(".attn2.to_k." in n or ".attn2.to_v." in n for n in edit.header["touched"])


def test_other_layers_by_name(sd1, tiny_folders):
    edit = all_but_one.run(sd1, CAT, DOG, dataclasses.replace(SMALL, layers="selfattn"))
    assert edit.header["touched"] and all(".attn1." in n for n in edit.header["touched"])
    with pytest.raises(EmptyLayerGroupError):
        labels = load(tiny_folders["label-unet"])
        all_but_one.run(
            labels, [Concept("class 1")], ["class 2"], dataclasses.replace(SMALL, layers="xattn", retain=())
        )


def test_a_setting_left_to_the_method_is_resolved_in_the_edit(sd1):
    edit = all_but_one.run(sd1, CAT, DOG, AllButOneConfig(**SHORT), retain=("tree",))
    assert edit.header["config"]["lr"] == 1e-3 and edit.header["config"]["retain"] == ["tree"]
    assert edit.header["figures"]["held"] == ["tree"]
    own = all_but_one.run(sd1, CAT, DOG, SMALL, retain=("hill",))
    assert own.header["config"]["retain"] == ["tree", "sea"]


def test_models_without_a_condition_of_no_prompt_are_refused(sd1, tiny_folders):
    labels = load(tiny_folders["label-unet"])
    student = as_student(labels, scheduler_config(labels.scheduler, 400))
    with pytest.raises(StackingError, match="no prompt"):
        all_but_one.run(student, [Concept("class 1")], ["class 2"], SMALL)
    distilled = sd1.copy()
    distilled.unet.register_to_config(time_cond_proj_dim=256)
    with pytest.raises(ModelError, match="no prompt"):
        all_but_one.run(distilled, CAT, DOG, SMALL)


def test_too_few_updates_for_so_many_concepts(sd1):
    many = [Concept(f"thing {i}") for i in range(5)]
    with pytest.raises(UsageError, match="too few to meet 5 concepts"):
        all_but_one.run(sd1, many, [""], dataclasses.replace(SMALL, iterations=1, trajectories=4))


def test_networks_of_the_size_of_stable_diffusion_save_memory(sd1, monkeypatch):
    monkeypatch.setattr(tuning, "SMALL", 1)
    config = dataclasses.replace(SMALL, batch=0)
    edit = all_but_one.run(sd1, CAT, DOG, config)
    assert (edit.header["config"]["lr"], edit.header["config"]["batch"]) == (1e-5, 2)
    monkeypatch.undo()
    plain = all_but_one.run(sd1, CAT, DOG, dataclasses.replace(config, lr=1e-5, batch=2))
    for name, value in edit.tensors.items():  # computed twice, not otherwise
        assert torch.allclose(value, plain.tensors[name], atol=1e-6)


def test_negated_takes_no_alternative(sd1):
    negated = dataclasses.replace(SMALL, alternative="negated")
    with pytest.raises(UsageError, match="exclude each other"):
        all_but_one.run(sd1, CAT, DOG, negated)
    assert all_but_one.run(sd1, CAT, [""], negated).header["instead"] == [""]


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on(sd1, tmp_path, monkeypatch):
    """Stopped after two of four updates, with a checkpoint: the same Edit as in one go."""
    config = dataclasses.replace(SMALL, observe_every=1)
    whole = all_but_one.run(sd1, CAT, DOG, config, observe=lambda i, m: {})
    ordinary = tuning.Run
    monkeypatch.setattr(tuning, "Run", lambda *a, **k: ordinary(*a, **k, save_seconds=0.0))

    def stop(iteration, edited):
        if iteration == 3:
            raise Stopped
        return {}

    with pytest.raises(Stopped):
        all_but_one.run(sd1, CAT, DOG, config, observe=stop, folder=tmp_path)
    again = all_but_one.run(sd1, CAT, DOG, config, observe=lambda i, m: {}, folder=tmp_path)
    assert again.id == whole.id


def test_the_curve(sd1):
    seen = []

    def observe(iteration, edited):
        seen.append(sample_latents(edited, ["cat"], [0], steps=2))
        return {"forgotten": float(iteration)}

    whole = all_but_one.run(sd1, CAT, DOG, SMALL, observe=observe)
    assert whole.header["figures"]["curve"] == [{"step": 2, "forgotten": 2.0}, {"step": 4, "forgotten": 4.0}]
    assert not seen[0].equal(seen[1])


@pytest.mark.parametrize(
    "changes", [{"lam": -1.0}, {"mu": float("nan")}, {"form": "other"}, {"alternative": "mixture"}, {"eta": -0.1}]
)
def test_settings_that_do_not_fit(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        AllButOneConfig(**changes)
