"""Score Forgetting Distillation: losses by hand, the identities that hold at the first step, and what a run leaves."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from scotoma.erasure import sfd, sfd_loop, sfd_losses
from scotoma.erasure.conditions import Conditions, Rows, draw, label_conditions
from scotoma.erasure.edit import Edit
from scotoma.erasure.sfd import SFDConfig
from scotoma.erasure.sfd_loop import Updater
from scotoma.erasure.training import EMA, Processes
from scotoma.errors import CheckpointError, DivergedError, StackingError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule, TimeRange
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, sample, sample_latents
from scotoma.models.student import as_multistep, one_step
from scotoma.records import Concept

SMALL = SFDConfig(iterations=4, kept=4, forgotten=2, observe_every=2)
CONCEPT, INSTEAD = [Concept("class 1")], ["class 2"]


@pytest.fixture(scope="module")
def model(tiny_folders) -> Model:
    return load(tiny_folders["label-unet"])


def nets(model: Model) -> sfd.Nets:
    return sfd.Nets.of(model, 2.5)


def moved(of: sfd.Nets, seed: int = 0) -> sfd.Nets:
    """Score and student a little away from the teacher, as after some updates."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for net in (of.score, of.student):
            for p in sfd_losses.parameters(net):
                p += 0.02 * torch.randn(p.shape, generator=generator)
    return of


def rows(model: Model, instead: Sequence[str] = INSTEAD, kept: int = 4, forgotten: int = 3, step: int = 0) -> Rows:
    conditions = label_conditions(model, CONCEPT, instead)
    times = Schedule.from_config(model.scheduler.config).time_range()
    return draw(conditions, kept, forgotten, times, model.latent_shape, seed=1, step=step)


def gradient(denoiser: Denoiser) -> torch.Tensor:
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in sfd_losses.parameters(denoiser)]
    )


# ------------------------------------------------------------------------------------------------------------- the losses


def test_the_students_loss_by_hand():
    """Two numbers a sample. P - x = (1, -1), d = P - Q = (2, 0), w = mean |x - P| = 1."""
    x, teacher, score = (torch.tensor([[[v]]]) for v in ([0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]))  # 1 1 1 2
    assert sfd_losses.student_loss(x, teacher, score, 1.0).tolist() == [2 * (1 - 2)]
    assert sfd_losses.student_loss(x, teacher, score, 0.5).tolist() == [2 * (1 - 1)]
    assert torch.allclose(sfd_losses.student_loss(x, teacher, score, 1.2), torch.tensor([2 * (1 - 2.4)]))
    assert sfd_losses.score_loss(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0]]]])).tolist() == [5.0]


def test_alpha_one_is_the_difference_times_the_scores_residual():
    x, teacher, score = torch.randn(3, 5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    w = (x - teacher).abs().mean((1, 2, 3))
    expected = ((teacher - score) * (score - x)).sum((1, 2, 3)) / w
    assert torch.allclose(sfd_losses.student_loss(x, teacher, score, 1.0), expected, atol=1e-5)


def test_no_gradient_through_the_weight():
    """d L / dx with P and Q held still is -d / w: w, which depends on x as well, adds nothing."""
    teacher, score = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(3, 1, 4, 4, requires_grad=True)
    sfd_losses.student_loss(x, teacher, score, 1.2).sum().backward()
    w = teacher.abs().mean((1, 2, 3)).view(-1, 1, 1, 1)
    assert torch.allclose(x.grad, -(teacher - score) / w, atol=1e-6)


def test_diff_instruct_pulls_from_the_teacher_to_nothing_else():
    teacher, score = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(3, 1, 4, 4, requires_grad=True)
    sfd_losses.diff_instruct_loss(x, teacher, score).sum().backward()
    w = teacher.abs().mean((1, 2, 3)).view(-1, 1, 1, 1)
    assert torch.allclose(x.grad, (score - teacher) / w, atol=1e-6)


def test_a_picture_that_is_the_teachers_does_not_divide_by_zero():
    x = torch.ones(1, 1, 2, 2)
    assert torch.isfinite(sfd_losses.student_loss(x, x, x + 1, 1.0)).all()


# ----------------------------------------------------------------------------------------------------------- the gradients


def test_at_the_first_step_only_forgetting_pulls(model):
    """Score and teacher are one function: kept samples have loss 0 and a gradient of 0 up to rounding (two equal terms
    are subtracted in another order than they were made), forgotten ones have not."""
    at = nets(model)
    config = dataclasses.replace(SMALL, tie=0.0)
    drawn = rows(model)
    losses = sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=False)
    assert losses["student"][~drawn.forgotten].eq(0).all()
    assert losses["student"][drawn.forgotten].abs().min() > 0
    pulled = gradient(at.student).abs().max()
    assert pulled > 0
    kept = drawn.part(~drawn.forgotten)
    for p in sfd_losses.parameters(at.student):
        p.grad = None
    sfd_losses.student_gradient(at, at.generate(kept.z, kept.told), kept, config, also_score=False)
    assert gradient(at.student).abs().max() < 1e-5 * pulled


@pytest.mark.parametrize("alpha", [1.0, 1.2])
def test_the_students_gradient_is_that_of_the_whole_loss(model, alpha):
    """Against one backward pass through x, x_t, teacher and score, with their weights frozen."""
    at, config = moved(nets(model)), dataclasses.replace(SMALL, alpha=alpha, tie=0.0)
    drawn = rows(model)
    sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=True)
    whole = copy.deepcopy(at)
    for net in whole[:3]:
        sfd_losses.network(net).zero_grad()
    sfd_losses.network(whole.score).requires_grad_(False)
    x = whole.generate(drawn.z, drawn.told)
    x_t = whole.student.schedule.noisy(x, drawn.e, drawn.t)
    teacher, score = whole.teacher(x_t, drawn.t, drawn.teacher), whole.score(x_t, drawn.t, drawn.told)
    loss = sfd_losses.student_loss(x, teacher, score, alpha)
    (loss[:4].mean() + config.forget_weight * loss[4:].mean()).backward()
    expected = gradient(whole.student)
    assert torch.allclose(gradient(at.student), expected, atol=1e-5 * float(expected.abs().max()))


def test_a_shared_pass_gives_the_scores_own_gradient(model):
    together, apart = moved(nets(model)), moved(nets(model))
    drawn = rows(model)
    x = together.generate(drawn.z, drawn.told)
    sfd_losses.student_gradient(together, x, drawn, SMALL, also_score=True)
    x_again = apart.generate(drawn.z, drawn.told).detach()
    sfd_losses.score_gradient(apart, x_again, drawn, SMALL)
    expected = gradient(apart.score)
    assert expected.abs().max() > 0
    assert torch.allclose(gradient(together.score), expected, atol=1e-5 * float(expected.abs().max()))
    assert gradient(apart.student).abs().max() == 0


def test_the_scores_gradient_does_not_reach_the_teacher_or_student(model):
    at, drawn = moved(nets(model)), rows(model)
    sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, SMALL, also_score=False)
    assert gradient(at.score).abs().max() == 0
    assert all(p.grad is None for p in sfd_losses.parameters(at.teacher))


def test_diff_instruct_pulls_the_student_by_the_score_difference(model):
    """(Q - P) / w on x, with nothing through x_t: against the same product written out."""
    at = moved(nets(model))
    config, drawn = dataclasses.replace(SMALL, gradient="diff_instruct", tie=0.0), rows(model)
    sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=False)
    found = gradient(at.student)
    sfd_losses.network(at.student).zero_grad()
    x = at.generate(drawn.z, drawn.told)
    x_t = at.student.schedule.noisy(x.detach(), drawn.e, drawn.t)
    with torch.no_grad():
        teacher, score = at.teacher(x_t, drawn.t, drawn.teacher), at.score(x_t, drawn.t, drawn.told)
        w = (x - teacher).abs().mean((1, 2, 3)).view(-1, 1, 1, 1)
    x.backward(drawn.weights(config.forget_weight).view(-1, 1, 1, 1) * (score - teacher) / w)
    expected = gradient(at.student)
    assert expected.abs().max() > 0 and torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_other_times_by_hand(model):
    """What (4) adds: forget_weight x other_times x the mean over forgotten of |out_theta - out_phi|^2 s^2 / w, told the
    concept and the alternative, on noisy pictures of the student or, for every other row, of the teacher."""
    drawn, found = rows(model), []
    for weight in (0.0, 3.0):
        at = moved(nets(model))
        config = dataclasses.replace(SMALL, other_times=weight, forget_weight=0.5)
        losses = sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=False)
        found.append(gradient(at.student))
    sfd_losses.network(at.student).zero_grad()
    gone, schedule = drawn.part(drawn.forgotten), at.student.schedule
    assert gone.teacher.labels.eq(2).all() and gone.told.labels.eq(1).all()
    total = []
    for i in range(len(gone.t)):
        one = gone.part(slice(i, i + 1))
        low = schedule.t_for_sigma(0.14)
        t = low + (one.free[:, 0] * (len(schedule) - low)).floor().long()
        with torch.no_grad():
            draws = at.teacher if one.free[0, 1] < 0.5 else at.student
            start = torch.tensor([at.t_init])
            y = draws(schedule.coefficients(start, one.z)[1] * one.z, start, one.told)
            x_t = schedule.noisy(y, one.e, t)
            should = at.teacher.output(x_t, t, one.teacher)
            w = (y - at.teacher(x_t, t, one.teacher)).abs().mean()
        says = at.student.output(x_t, t, one.told)
        total.append((1 - schedule.alphas_cumprod[t]).float() * (says - should).square().sum() / w)
    per_sample = torch.cat(total)
    (0.5 * 3.0 * per_sample.mean()).backward()
    expected = gradient(at.student)
    assert torch.allclose(found[1] - found[0], expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose(losses["other times"][drawn.forgotten], per_sample.detach(), rtol=1e-3)


def test_the_tie_by_hand(model):
    """What (5) adds: forget_weight x tie x the mean over forgotten of |x - x_o|^2 / w, x_o the student's own picture of the
    alternative from the same noise, which learns nothing; w, the mean |x - P| of (2), neither."""
    drawn, found = rows(model), []
    for weight in (0.0, 3.0):
        at = moved(nets(model))
        config = dataclasses.replace(SMALL, tie=weight, forget_weight=0.5)
        losses = sfd_losses.student_gradient(at, at.generate(drawn.z, drawn.told), drawn, config, also_score=False)
        found.append(gradient(at.student))
    sfd_losses.network(at.student).zero_grad()
    gone, total = drawn.part(drawn.forgotten), []
    assert gone.alone.all() and not drawn.part(~drawn.forgotten).alone.any()
    noise, start = at.noise(gone.z)
    with torch.no_grad():
        instead = at.student(noise, start, Cond(labels=torch.full((len(start),), 2)))
    for x, other in zip(at.student(noise, start, Cond(labels=torch.full((len(start),), 1))), instead, strict=True):
        i = len(total)
        x_t = at.teacher.schedule.noisy(x[None], gone.e[[i]], gone.t[[i]])
        w = (x - at.teacher(x_t, gone.t[[i]], gone.teacher[[i]])).abs().mean().detach()
        total.append((x - other).square().sum() / w)
    per_sample = torch.stack(total)
    (0.5 * 3.0 * per_sample.mean()).backward()
    expected = gradient(at.student)
    assert torch.allclose(found[1] - found[0], expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose(losses["tie"][drawn.forgotten], per_sample.detach(), rtol=1e-3)


def test_nothing_is_tied_to_a_mixture_or_a_classifiers_choice(model):
    mixture = rows(model, [""])
    assert mixture.forgotten.any() and not mixture.alone.any()
    for drawn, retold in ((mixture, None), (rows(model), lambda rows, _: rows.teacher)):
        found = []
        for weight in (0.0, 3.0):
            at = moved(nets(model))
            config = dataclasses.replace(SMALL, tie=weight)
            x = at.generate(drawn.z, drawn.told)
            sfd_losses.student_gradient(at, x, drawn, config, also_score=False, retold=retold)
            found.append(gradient(at.student))
        assert found[0].equal(found[1])


def test_other_times_are_trained_where_nothing_is_tied(model):
    def weight(instead, **changes):
        logits = torch.zeros(1, 10)
        config = dataclasses.replace(SMALL, iterations=1, observe_every=0, **changes)
        edit = sfd.run(model, CONCEPT, instead, config, classify=lambda x: logits.expand(len(x), -1))
        return edit.header["config"]["other_times"]

    assert weight(INSTEAD) == 0 and weight([""]) == 1 and weight([""], alternative="classifier") == 1
    assert weight([""], other_times=0.5) == 0.5


def test_other_times_reach_the_whole_schedule_and_both_kinds_of_states(model):
    conditions = label_conditions(model, CONCEPT, INSTEAD)
    free = torch.cat(
        [draw(conditions, 1, 8, TimeRange(0, 9), model.latent_shape, seed=0, step=i).free for i in range(100)]
    )
    assert free.min() < 0.01 and free.max() > 0.99 and abs(float(free.mean()) - 0.5) < 0.02
    assert abs(float((free[:, 1] < 0.5).float().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("share", ["passes", "samples", "score_first", "nothing"])
def test_bfloat16_takes_nearly_the_same_gradients(model, share):
    found = []
    for precision in ("float32", "bfloat16"):
        at = moved(nets(model))
        config = dataclasses.replace(SMALL, share=share, precision=precision, clip=1e9)
        conditions = label_conditions(model, CONCEPT, INSTEAD)
        average = EMA(sfd_losses.network(at.student), 0.5)
        update = Updater(at, conditions, config, 4, model.latent_shape, 0, average, Processes())
        update(1)
        found.append((gradient(at.student), gradient(at.score)))
    for exact, rough in zip(*found, strict=True):
        assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.97


def test_other_times_are_trained_for_forgotten_samples_alone(model):
    at, drawn = moved(nets(model)), rows(model)
    kept = drawn.part(~drawn.forgotten)
    found = {}
    for weight in (0.0, 1.0):
        for name, part in (("all", drawn), ("kept", kept)):
            sfd_losses.network(at.student).zero_grad()
            config = dataclasses.replace(SMALL, other_times=weight)
            sfd_losses.student_gradient(at, at.generate(part.z, part.told), part, config, also_score=False)
            found[name, weight] = gradient(at.student)
    assert found["kept", 0.0].equal(found["kept", 1.0])
    assert not torch.allclose(found["all", 0.0], found["all", 1.0])


# ------------------------------------------------------- unbiased order: a case whose gradient is known in closed form


class Affine(nn.Module):
    """A network of one pixel that predicts x0 = shift + slope * input, for every time and condition."""

    def __init__(self, shift: float, slope: float):
        super().__init__()
        self.shift, self.slope = nn.Parameter(torch.tensor(shift)), nn.Parameter(torch.tensor(slope))

    def forward(self, x, time, **kwargs):
        return (self.shift + self.slope * x,)


def pulls(share: str, count: int = 400) -> np.ndarray:
    """The gradient of the student's shift in the first iteration, over `count` seeds.

    Student x = 0 + k z, teacher P = 4, score Q = 1, alpha 0: L = d (P - x) / w with d = 3 and w = |P - x|, held still,
    so that d L / d shift = -3 / |4 - x| whatever the noise e and the time; x stays far below 4.
    """
    schedule = Schedule.from_config({"num_train_timesteps": 1000, "beta_schedule": "linear"})
    conditions = Conditions(Cond(labels=torch.tensor([0])))
    config = SFDConfig(
        kept=1, alpha=0.0, share=share, lr=1e-9, lr_score=0.5, warmup=1, lr_falls=False, clip=1e9, observe_every=0
    )
    found = []
    for seed in range(count):
        three = [Denoiser(Affine(*start), schedule, "sample") for start in ((4.0, 0.0), (1.0, 0.0), (0.0, 0.5))]
        sfd_losses.network(three[0]).requires_grad_(False)
        sfd_losses.network(three[1]).slope.requires_grad_(False)
        at = sfd.Nets(*three, t_init=schedule.t_for_sigma(2.5))
        update = Updater(at, conditions, config, 10, (1, 1, 1), seed, EMA(three[2].network, 0.5), Processes())
        update(0)
        found.append(float(three[2].network.shift.grad))
    return np.array(found)


@pytest.fixture(scope="module")
def known() -> float:
    """E[-3 / |4 - 0.5 s z|] over z ~ N(0, 1), by Gauss-Hermite quadrature; s is the noise at sigma 2.5."""
    z, weights = np.polynomial.hermite_e.hermegauss(40)
    s = 2.5 / np.sqrt(1 + 2.5**2)
    return float((weights * -3 / np.abs(4 - 0.5 * s * z)).sum() / weights.sum())


@pytest.mark.parametrize("share", ["passes", "samples"])
def test_shared_samples_leave_the_students_gradient_unbiased(share, known):
    found = pulls(share)
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - known) < 4 * error


def test_a_score_that_learnt_from_the_same_samples_first_is_biased(known):
    """The score moves by 0.5 towards the very sample that it is then asked about."""
    found = pulls("score_first")
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - known) > 20 * error


# --------------------------------------------------------------------------------------------------------------- the run


@pytest.fixture(scope="module")
def edit(model) -> Edit:
    return sfd.run(model, CONCEPT, INSTEAD, SMALL, seed=3)


def test_the_model_and_the_teacher_stay(model, monkeypatch):
    made: list[sfd.Nets] = []
    whole = sfd.Nets.of
    monkeypatch.setattr(sfd.Nets, "of", lambda *a: made.append(whole(*a)) or made[-1])
    before = model.hash()
    sfd.run(model, CONCEPT, INSTEAD, SMALL)
    assert model.hash() == before
    teacher, score = (sfd_losses.network(net).state_dict() for net in (made[0].teacher, made[0].score))
    assert all(value.equal(model.unet.state_dict()[name].float()) for name, value in teacher.items())
    assert any(not value.equal(teacher[name]) for name, value in score.items())


def test_no_picture_reaches_the_loop(model, monkeypatch):
    """Labels and noise are enough: nothing is decoded, and every forward pass starts from noise of the run's own."""
    monkeypatch.setattr(Model, "decode", lambda *a: pytest.fail("a picture was made"))
    sfd.run(model, CONCEPT, INSTEAD, SMALL)


def test_what_the_header_says(edit, model):
    assert edit.header["student"] and edit.header["config"]["iterations"] == 4
    assert edit.header["figures"]["training"] == {
        "teacher": "the model",
        "stages": [{"iterations": 4, "student": "the model", "score": "the model"}],
    }
    points = edit.header["figures"]["curve"]
    assert [p["step"] for p in points] == [2, 4]
    assert all(f"score gap {s:g}" in p for p in points for s in sfd_loop.GAP_SIGMAS) and "seconds" not in points[0]
    json.dumps(edit.header)


def test_the_score_gap_of_equal_functions_is_the_difference_of_conditions(model):
    """Before any update psi = phi, so the gap is how far the teacher's two conditions are apart, which is not 0."""
    conditions = label_conditions(model, CONCEPT, INSTEAD)
    gap = sfd_loop.score_gap(nets(model), conditions, model.latent_shape, 0)
    same = dataclasses.replace(conditions, becomes=(conditions.forgotten,))
    none = sfd_loop.score_gap(nets(model), same, model.latent_shape, 0)
    assert min(gap.values()) > 0 and max(none.values()) == 0
    assert sfd_loop.score_gap(nets(model), conditions.distilling(), model.latent_shape, 0) == {}


def test_the_student_draws_in_one_call_and_stock_diffusers_draws_the_same(edit, model, tmp_path):
    from diffusers import EulerDiscreteScheduler, UNet2DModel

    student = edit.apply(model)
    assert one_step(student.scheduler)
    student.save(tmp_path / "student")
    ours = sample_latents(load(tmp_path / "student"), ["class 1", "class 4"], [7, 8])
    unet = UNet2DModel.from_pretrained(tmp_path / "student/unet")
    scheduler = EulerDiscreteScheduler.from_pretrained(tmp_path / "student/scheduler")
    scheduler.set_timesteps(1)
    noise, _ = initial_noise(model.latent_shape, [7, 8])
    x = noise * scheduler.init_noise_sigma
    (t,) = scheduler.timesteps
    with torch.no_grad():
        out = unet(scheduler.scale_model_input(x, t), t, class_labels=torch.tensor([1, 4])).sample
    theirs = scheduler.step(out, t, x).prev_sample
    assert (ours - theirs).abs().max() < 1e-4
    at = nets(student)
    with torch.no_grad():
        exact = at.generate(noise, student.encode(["class 1", "class 4"]))
    assert (ours - exact).abs().max() < 1e-4


def test_a_student_is_not_guided_but_may_be_measured_in_many_steps(edit, model):
    student = edit.apply(model)
    with pytest.raises(UsageError, match="draws in one call and cannot be guided"):
        sample(student, ["class 1"], [0], guidance=2.0)
    many = as_multistep(student, model)
    assert not one_step(many.scheduler) and one_step(student.scheduler)
    assert sample(many, ["class 1"], [0], guidance=2.0, steps=3, scheduler="ddim").shape[0] == 1


def test_a_student_hears_its_own_time_alone_until_it_is_given_back(edit, model):
    """Told another time it says the same, which the model does not; and at its own time the one call is what was trained."""
    told = torch.tensor([1])
    x = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(3))

    def says(m, t):
        with torch.no_grad():
            return m.unet(x, torch.tensor([t]), class_labels=told).sample

    student = edit.apply(model)
    own = len(student.scheduler.betas) - 1
    assert not says(model, own).equal(says(model, 10))
    assert says(student, own).equal(says(student, 10)) and says(student, own).equal(says(student, 900))
    held = as_multistep(student, model)
    assert says(held, 10).equal(says(held, own))
    back = as_multistep(student, model, give_time_back=True)
    assert not says(back, 10).equal(says(back, own)) and says(held, 10).equal(says(held, own))
    free = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, hold_time=False), seed=3).apply(model)
    assert (says(free, own) - says(student, own)).abs().max() < 1e-5
    assert not says(free, 10).equal(says(free, own))


def test_nothing_multi_step_builds_on_a_student(edit, model):
    with pytest.raises(StackingError):
        Edit.create(edit.apply(model), method="other", config={}, concepts=CONCEPT, instead=INSTEAD, seed=0, full={})


def test_the_score_can_be_kept_instead(model):
    edit = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, keep="score"))
    assert not edit.header["student"] and not edit.header["configs"]
    assert not one_step(edit.apply(model).scheduler)


def test_two_stages_keep_the_teacher_and_go_on_from_their_own_score(model, monkeypatch):
    made: list[sfd.Nets] = []
    seen: list[dict[str, torch.Tensor]] = []
    whole, loop = sfd.Nets.of, sfd_loop.train
    monkeypatch.setattr(sfd.Nets, "of", lambda *a: made.append(whole(*a)) or made[-1])

    def train(update, run):
        seen.append({k: v.clone() for k, v in sfd_losses.network(made[0].score).state_dict().items()})
        return loop(update, run)

    monkeypatch.setattr(sfd_loop, "train", train)
    edit = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, stages=2, distil_iterations=3))
    base = model.unet.state_dict()
    assert all(v.equal(base[k]) for k, v in seen[0].items())
    assert any(not v.equal(base[k]) for k, v in seen[1].items())
    assert all(v.equal(base[k]) for k, v in sfd_losses.network(made[0].teacher).state_dict().items())
    first, second = edit.header["figures"]["training"]["stages"]
    assert [p["step"] for p in first.pop("curve")] == [2, 3]
    assert first == {"iterations": 3, "student": "the model", "score": "the model"}
    assert second == {"iterations": 4, "student": "stage 1", "score": "stage 1"}


@pytest.mark.parametrize("share", ["passes", "samples", "score_first", "nothing"])
def test_accumulated_gradients_make_the_same_update(model, share):
    config = dataclasses.replace(SMALL, share=share, clip=1e9)
    gradients = []
    for at_once in (0, 4):
        at = moved(nets(model))
        conditions = label_conditions(model, CONCEPT, INSTEAD)
        update = Updater(
            at,
            conditions,
            dataclasses.replace(config, at_once=at_once),
            4,
            model.latent_shape,
            0,
            EMA(sfd_losses.network(at.student), 0.5),
            Processes(),
        )
        update(1)
        gradients.append((gradient(at.student), gradient(at.score)))
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, atol=2e-5 * float(whole.abs().max()))


def test_a_classifier_may_choose_what_it_becomes(model):
    """It sees class 1, which is forgotten, and then class 6: the teacher is told class 6, for forgotten rows alone."""
    logits = torch.zeros(10).index_fill(0, torch.tensor(1), 9.0).index_fill(0, torch.tensor(6), 5.0)
    retold = sfd.classifier_says(model, CONCEPT, lambda pictures: logits.expand(len(pictures), -1))
    drawn = rows(model)
    told = retold(drawn, drawn.z)
    assert told.labels[drawn.forgotten].eq(6).all()
    assert told.labels[~drawn.forgotten].equal(drawn.teacher.labels[~drawn.forgotten])
    with pytest.raises(UsageError, match="nobody classifies"):
        sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, alternative="classifier"))
    config = dataclasses.replace(SMALL, alternative="classifier", tie=0.0, other_times=0.0)
    with pytest.raises(UsageError, match="classifier and class 2 exclude each other"):
        sfd.run(model, CONCEPT, INSTEAD, config, classify=lambda pictures: logits)
    chosen = sfd.run(model, CONCEPT, [""], config, classify=lambda pictures: logits.expand(len(pictures), -1))
    fixed = sfd.run(model, CONCEPT, ["class 6"], dataclasses.replace(config, alternative="given"))
    assert all(value.equal(fixed.tensors[name]) for name, value in chosen.tensors.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient": "diff_instruct"},
        {"ema": 0.9},
        {"precision": "bfloat16"},
        {"other_times": 1.0},
        {"tie": 0.0},
    ],
)
def test_every_option_makes_its_own_student(model, edit, changes):
    other = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, **changes), seed=3)
    assert other.header["student"] and set(other.header["touched"]) == set(edit.header["touched"])
    values = [torch.cat([t.flatten() for t in e.tensors.values()]) for e in (edit, other)]
    assert not values[0].equal(values[1])


def test_a_budget_in_minutes_becomes_iterations_that_a_resumed_run_keeps(model, tmp_path):
    edit = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, minutes=0.01), folder=tmp_path)
    kept = json.loads((tmp_path / "budget.json").read_text())
    assert edit.header["config"]["iterations"] == kept["iterations"] >= 1 and edit.header["config"]["minutes"] == 0
    assert sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, minutes=0.01), folder=tmp_path).id == edit.id
    with pytest.raises(CheckpointError, match="other minutes"):
        sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, minutes=0.02), folder=tmp_path)


def test_what_is_kept_is_what_is_watched(model):
    """With keep="score" the curve is the score network's, many steps and all, and not the student's."""
    seen = []

    def observe(iteration, shown):
        seen.append((one_step(shown.scheduler), shown.hash()))
        return {}

    edit = sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, keep="score"), observe=observe)
    assert seen[-1] == (False, edit.apply(model).hash())


def test_keeping_the_score_goes_on_from_the_same_training(model, tmp_path, monkeypatch):
    sfd.run(model, CONCEPT, INSTEAD, SMALL, folder=tmp_path)
    monkeypatch.setattr(Updater, "__call__", lambda *a: pytest.fail("it trained again"))
    sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, keep="score"), folder=tmp_path)


def test_it_stops_at_a_plateau(model):
    config = dataclasses.replace(SMALL, iterations=50, observe_every=1, patience=2)
    edit = sfd.run(model, CONCEPT, INSTEAD, config, observe=lambda i, m: {"forgotten": 1.0, "fid": 3.0})
    assert edit.header["figures"]["training"]["stages"][0]["iterations"] == 3


def test_a_loss_that_is_not_a_number_stops_with_its_name(model):
    with pytest.raises(DivergedError, match="at step"):
        sfd.run(model, CONCEPT, INSTEAD, dataclasses.replace(SMALL, lr=1e18, warmup=1, iterations=20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be 1 or more"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"ema": 1.0}, "ema must be"),
        ({"sigma_init": 20.0}, "sigma_init must be between"),
        ({"share": "pass"}, "share must be one of"),
        ({"stages": 3}, "stages must be one of"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(UsageError, match=message):
        SFDConfig(**changes)


# ------------------------------------------------------------------------------------------------ killed, and in parallel

PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from scotoma.erasure import sfd, sfd_loop
from scotoma.models.load import load
from scotoma.records import Concept

folder, out, kill_at, iterations = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
stages = int(sys.argv[6]) if len(sys.argv) > 6 else 1
config = sfd.SFDConfig(iterations=iterations, kept=4, forgotten=2, observe_every=1, stages=stages, distil_iterations=2)

def observe(iteration, model):
    if iteration == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

Run = sfd_loop.Run
sfd_loop.Run = lambda *a, **k: Run(*a, **k, save_seconds=0.0)
run = None if out == "-" else Path(out)
edit = sfd.run(load(folder), [Concept("class 1")], ["class 2"], config, seed=3, observe=observe, folder=run)
if int(os.environ.get("RANK", "0")) == 0:
    edit.save(sys.argv[5])
"""


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher] if launcher else [sys.executable]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("stages", [1, 2])
def test_killed_and_resumed_is_the_same_edit(tiny_folders, tmp_path, stages):
    """Killed at iteration 4 of 6, of the second stage where there are two, after a checkpoint at each."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    folder, run, out = tiny_folders["label-unet"], tmp_path / "run", tmp_path / "edit.safetensors"
    killed = start(program, folder, run, 4, 6, out, stages)
    assert killed.returncode == -9 and (run / "forget/checkpoint.safetensors").exists() and not out.exists()
    resumed = start(program, folder, run, 0, 6, out, stages)
    assert resumed.returncode == 0, resumed.stderr
    config = dataclasses.replace(SMALL, iterations=6, observe_every=1, stages=stages, distil_iterations=2)
    whole = sfd.run(load(folder), CONCEPT, INSTEAD, config, seed=3)
    assert Edit.load(out).id == whole.id


def test_two_processes_train_what_one_does(tiny_folders, tmp_path):
    """accelerate launch on two gloo processes, each with half of every batch, 20 iterations."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    out = tmp_path / "edit.safetensors"
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    launcher = (*launcher, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    done = start(program, tiny_folders["label-unet"], "-", 0, 20, out, launcher=launcher)
    assert done.returncode == 0, done.stderr
    both = Edit.load(out)
    alone = sfd.run(
        load(tiny_folders["label-unet"]),
        CONCEPT,
        INSTEAD,
        dataclasses.replace(SMALL, iterations=20, observe_every=1),
        seed=3,
    )
    difference = max(float((both.tensors[k] - v).abs().max()) for k, v in alone.tensors.items())
    assert difference < 1e-5
