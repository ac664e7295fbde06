"""The losses of Score Forgetting Distillation and their gradients; sfd.py is the method, this is its mathematics.

Notation: f_phi the teacher, which never changes; f_psi the score network, which follows what the student draws; f_theta
the student; all three are x0 = f(x, t, c) (models/denoiser.py) and start as the same weights. N samples, C H W of what
the network denoises. c_r is a condition that is kept, c_f one that is forgotten, c_o what it becomes, n no prompt, m what
the teacher is guided away from: n, or for c_f a negative prompt.

    x   = f_theta(s z, t_init, c),  z ~ N(0, 1): noise without signal, one call                                     (1)
    x_t = a_t x + s_t e,            e ~ N(0, 1)
    P   = f_phi(x_t, t, c_teacher),  Q = f_psi(x_t, t, c),  d = P - Q,  w = max(mean |x - P|, 1e-5), held still
    L_theta = sum d ((P - x) - alpha d) / w            over what the network denoises, gradient through x and x_t   (2)
    L_psi   = sum (eps_psi(x_t, t, c) - e)^2           x held still                                                 (3)
    theta: mean of (2) over kept, c = c_teacher = c_r,  + forget_weight x the mean over forgotten, c = c_f, c_teacher = c_o
    psi:   mean of (3) over kept                        + forget_weight_score x the mean over forgotten

So what is drawn for c_f is driven to what the teacher draws for c_o. Times are chosen by sigma: t_init at 2.5, t evenly
from 0.14 to 13. No picture enters; conditions alone do.

Guidance (of text; "long and short" in Zhou et al., arXiv 2406.01561, whose code SFD builds on): P and Q are those of the
outputs m + w (c - m), of which `Guidance` has four: w_1 of psi in (3), w_2 of psi in (2), w_3 of the teacher, w_4 of the
teacher where m is a negative prompt and not no prompt (which at w_4 = 1 would do nothing), where m stands for the output told m. The student is never guided. So that psi is trained on no prompt too, (3) tells it nothing
for a tenth of the samples: there c = m, and the guided output is that of m whatever w_1 is. The guided call has computed
it anyway, so these rows take it from there, and no pass is added.

One pass for both (`share="passes"`): (2) and (3) are expectations over fresh samples of the student as it is, with the
score network as it is. Both gradients are taken at the same theta, psi, z, e and t, before either network moves; each
remains unbiased, and only the noise of the two updates is correlated. With F the cost of a forward pass, of which a
gradient of the input is another F and one of the weights too, (2) and (3) cost a sample

                 student    teacher          score               sum     published loop
    unguided     1 + 2      1 + 1            1 + 1 + 2             9     11, and as many forgotten as kept samples
    guided       1 + 2      2 (1 + 1)        2 (1 + 1 + 2)        15     18

A student that is sampled in many steps after all would be called at times that were never trained. It hears none of them:
models/student.py, `hold_time`. Whoever has the model can give it the time back, and it would begin with the concept at the
noisiest times, which later steps then only finish. So as an option it learns, for forgotten conditions alone, at any time
t' of the whole schedule, what the teacher says there of c_o (which helps a mixture in one call as well, and is the default
there):

    y = x, or for every other sample what the teacher draws for c_f in one call;  x_t' = a y + s e
    L_other = sum s^2 (out_theta(x_t', t', c_f) - out_phi(x_t', t', c_o))^2 / w'                                    (4)

with out the networks' outputs (for v-prediction s^2 (out - out)^2 is the squared difference of x0) and w' that of (2) at
y. The teacher is guided, away from n for y and from m for its output, the student is not. It is added to theta's loss
with weight other_times x forget_weight, mean over forgotten; 5 F more for each forgotten sample, guided 7 F.

The gradient of (2) knows what a sample should look more like; where c_f and c_o look alike already it is faint, and (1)
answers it slowly. The student itself knows more: what it draws for c_o from the same noise. So where c_f has one
alternative alone its samples are drawn to that, held still:

    L_tie = sum (x - x_o)^2 / w,   x_o = f_theta(s z, t_init, c_o),   w that of (2)                                 (5)

with weight tie x forget_weight, mean over forgotten; 1 F more for each forgotten sample. It fades as x comes to x_o. It says
nothing of a mixture, of which no picture belongs to a noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scotoma.erasure.conditions import Rows
from scotoma.erasure.sfd_config import SFDConfig
from scotoma.models.denoiser import Cond, Denoiser, guide
from scotoma.models.model import Model
from scotoma.models.student import ignore_guidance

Retold = Callable[[Rows, Tensor], Cond]  # rows and the score's pictures -> what the teacher is told
SIGMA_MIN = 0.14  # lowest noise level of (4)


class Guidance(NamedTuple):
    """w_1 to w_4; 1 is none."""

    training: float = 1.0
    score: float = 1.0
    teacher: float = 1.0
    negative: float = 1.0

    @classmethod
    def of(cls, config: SFDConfig) -> Guidance:
        """Of a config that is resolved."""
        return cls(config.guidance_training, config.guidance_score, config.guidance_teacher, config.guidance_negative)


UNGUIDED = Guidance()


class Nets(NamedTuple):
    """Three networks as denoisers, in float32, the time at which the student draws, and how the other two are guided.

    `waits`: the teacher is on the device only while it is `teaching`, and its graph is not held (`student_gradient`).
    """

    teacher: Denoiser
    score: Denoiser
    student: Denoiser
    t_init: int
    guidance: Guidance = UNGUIDED
    waits: bool = False

    @classmethod
    def of(cls, model: Model, sigma_init: float, guidance: Guidance = UNGUIDED, start: nn.Module | None = None) -> Nets:
        """All three with the weights of `model`, which stays as it is, but the student with those of `start`; the
        teacher's do not learn."""
        like = model.denoiser()

        def started(network: Any, *, learns: bool, one_call: bool = False) -> Denoiser:
            own = copy.deepcopy(network).float().eval().requires_grad_(learns)
            if one_call and not model.labels:
                ignore_guidance(own)
            own = own.to(memory_format=torch.channels_last)  # convolutions on two CPU cores: 2 to 6 % of an iteration
            return Denoiser(own, like.schedule, like.prediction)

        return cls(
            started(model.unet, learns=False),
            started(model.unet, learns=True),
            started(start or model.unet, learns=True, one_call=True),
            like.schedule.t_for_sigma(sigma_init),
            guidance,
        )

    def generate(self, z: Tensor, told: Cond) -> Tensor:
        """(1): N C H W from noise z, one call of the student."""
        x, t = self.noise(z)
        return self.student(x, t, told)

    def noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the student draws from: s z (N C H W) and t_init (N,)."""
        t = torch.full((len(z),), self.t_init, device=z.device)
        _, s = self.student.schedule.coefficients(t, z)
        return s * z, t

    def teaches(self, x: Tensor, t: Tensor, told: Cond, away: Cond | None, led: Tensor | None = None) -> Tensor:
        """What the teacher's network says (N C H W), guided away from `away` (N rows), by w_4 where `led` (N bool), else by
        w_3: one call of N rows, or 2 N."""
        time, w = self.teacher.schedule.network_time(t), self.guidance
        if away is None or led is None or w.teacher == w.negative or not bool(led.any()):
            return self.teacher.output(x, time, told, away, w.teacher)
        null, cond = self.teacher.outputs(x, time, [away, told])
        return guide(null, cond, torch.where(led, w.negative, w.teacher).view(-1, 1, 1, 1).to(x))

    def scores(self, x: Tensor, rows: Rows, negatives: str) -> tuple[Tensor, Tensor]:
        """What the score's network says in (3) and in (2) (N C H W each), from one call of N rows, or guided of 2 N."""
        time, w = self.score.schedule.network_time(rows.t), self.guidance
        away = rows.negative if negatives == "all" else rows.null
        if w.training == w.score == 1 or away is None:
            said = self.score.output(x, time, rows.told)
            return said, said
        null, cond = self.score.outputs(x, time, [away, rows.told])
        trained = torch.where(rows.untold.view(-1, 1, 1, 1), null, guide(null, cond, w.training))
        return trained, guide(null, cond, w.score)

    @contextmanager
    def teaching(self, like: Tensor) -> Iterator[None]:
        """The teacher is where `like` is."""
        if self.waits:
            network(self.teacher).to(like.device)
        try:
            yield
        finally:
            if self.waits:
                network(self.teacher).to("cpu")


def network(denoiser: Denoiser) -> nn.Module:
    assert isinstance(denoiser.network, nn.Module)
    return denoiser.network


def parameters(denoiser: Denoiser) -> list[nn.Parameter]:
    return [p for p in network(denoiser).parameters() if p.requires_grad]


# ------------------------------------------------------------------------------------------------------------- the losses


def residual(x: Tensor, teacher: Tensor) -> Tensor:
    """w of (2), (N,): mean |x - P|."""
    return (x - teacher).abs().mean((1, 2, 3)).clamp(min=1e-5).detach()


def student_loss(x: Tensor, teacher: Tensor, score: Tensor, alpha: float) -> Tensor:
    """(2), one number a sample (N,). x, `teacher` P and `score` Q: N C H W."""
    w = residual(x, teacher)
    d = teacher - score
    return (d * ((teacher - x) - alpha * d)).sum((1, 2, 3)) / w


def diff_instruct_loss(x: Tensor, teacher: Tensor, score: Tensor) -> Tensor:
    """(N,), with the gradient (Q - P) / w on x: Diff-Instruct (Luo et al. 2023) in the normalisation of (2)."""
    w = residual(x, teacher)
    return (((score - teacher) / w.view(-1, 1, 1, 1)).detach() * x).sum((1, 2, 3))


def score_loss(eps: Tensor, e: Tensor) -> Tensor:
    """(3), one number a sample (N,)."""
    return (eps - e).square().sum((1, 2, 3))


# ---------------------------------------------------------------------------------------------------------- the gradients


def student_gradient(
    nets: Nets,
    x: Tensor,
    rows: Rows,
    config: SFDConfig,
    *,
    also_score: bool,
    retold: Retold | None = None,
) -> dict[str, Tensor]:
    """Add the gradient of (2), (4) and (5) to the student's, and with `also_score` that of (3) at the same states to the
    score's. `x` (N C H W) is the student's, with its graph. Returns the loss of each sample (N,), detached.

    `retold` says what the teacher is told instead, given the score's pictures (N C H W). Where the teacher waits, its
    gradient is taken in a second pass, when the score's graph is gone: one of them is in memory at a time.
    """
    schedule, through, weight = nets.student.schedule, config.gradient == "sid", rows.weights(config.forget_weight)
    held = x.detach().requires_grad_(through)
    x_t = schedule.noisy(held, rows.e, rows.t)
    # With a gradient wanted of x alone, autograd leaves out those of the score's weights, and the other way round.
    with nullcontext() if through or also_score else torch.no_grad():
        trained, output = nets.scores(x_t, rows, config.negatives)
        score = nets.score.x0_from(output, x_t, rows.t)
    losses = {}
    told = rows.teacher if retold is None else retold(rows, score.detach())
    with nullcontext() if through and not nets.waits else torch.no_grad(), nets.teaching(x):
        teacher = nets.teacher.x0_from(nets.teaches(x_t, rows.t, told, rows.negative, rows.led), x_t, rows.t)
    if through:
        pulls = [held, teacher.requires_grad_()] if nets.waits else [held]
        loss = student_loss(held, teacher, score, config.alpha)
        on_x, *on_teacher = torch.autograd.grad((weight * loss).sum(), pulls, retain_graph=also_score)
    else:
        leaf = x.detach().requires_grad_()
        loss = diff_instruct_loss(leaf, teacher, score)
        (on_x,), on_teacher = torch.autograd.grad((weight * loss).sum(), leaf), []
    losses["student"] = loss.detach()
    if also_score:
        of_score = score_loss(nets.score.eps_from(trained, x_t, rows.t), rows.e)
        (rows.weights(config.forget_weight_score) * of_score).sum().backward(inputs=parameters(nets.score))
        losses["score"] = of_score.detach()
        del of_score
    del trained, output, score, loss
    for pull in on_teacher:
        on_x = on_x + through_teacher(nets, x.detach(), rows, told, pull)
    if config.tie:
        losses["tie"] = torch.zeros_like(losses["student"])
    if config.tie and retold is None and bool((alone := rows.alone).any()):
        own = x.detach()[alone]
        losses["tie"][alone], pull = tie(nets, own, rows.part(alone), residual(own, teacher[alone]))
        each = config.tie * rows.part(alone).weights(config.forget_weight)
        on_x = on_x.index_add(0, alone.nonzero()[:, 0], each.view(-1, 1, 1, 1) * pull)
    x.backward(on_x)
    if config.other_times > 0:
        losses["other times"] = torch.zeros_like(losses["student"])
    if config.other_times > 0 and bool((gone := rows.forgotten).any()):
        other = other_times_loss(nets, x.detach()[gone], rows.part(gone), told[gone])
        (config.other_times * rows.part(gone).weights(config.forget_weight) * other).sum().backward()
        losses["other times"][gone] = other.detach()
    return losses


def through_teacher(nets: Nets, x: Tensor, rows: Rows, told: Cond, pull: Tensor) -> Tensor:
    """The gradient on x (N C H W) of a loss whose gradient on P is `pull` (N C H W)."""
    held = x.requires_grad_()
    with nets.teaching(x):
        x_t = nets.teacher.schedule.noisy(held, rows.e, rows.t)
        teacher = nets.teacher.x0_from(nets.teaches(x_t, rows.t, told, rows.negative, rows.led), x_t, rows.t)
        (on_x,) = torch.autograd.grad(teacher, held, pull)
    return on_x


@torch.no_grad()
def tie(nets: Nets, x: Tensor, rows: Rows, w: Tensor) -> tuple[Tensor, Tensor]:
    """(5), one number a sample (N,), and its gradient on the student's samples x (N C H W); w (N,) is that of (2)."""
    apart = x - nets.generate(rows.z, rows.teacher)
    return apart.square().sum((1, 2, 3)) / w, 2 * apart / w.view(-1, 1, 1, 1)


def other_times_loss(nets: Nets, x: Tensor, rows: Rows, teacher_told: Cond) -> Tensor:
    """(4), one number a sample (N,), for N forgotten rows and the student's samples x of them (N C H W, held still)."""
    schedule = nets.teacher.schedule
    low, end = schedule.t_for_sigma(SIGMA_MIN), len(schedule)
    t = (low + rows.free[:, 0] * (end - low)).long().clamp(max=end - 1)
    with torch.no_grad(), nets.teaching(x):
        noise, t_init = nets.noise(rows.z)
        theirs = nets.teacher.x0_from(nets.teaches(noise, t_init, rows.told, rows.null), noise, t_init)
        y = torch.where((rows.free[:, 1] < 0.5).view(-1, 1, 1, 1), theirs, x)
        x_t = schedule.noisy(y, rows.e, t)
        should = nets.teaches(x_t, t, teacher_told, rows.negative, rows.led)
        w = residual(y, nets.teacher.x0_from(should, x_t, t))
    says = nets.student.output(x_t, schedule.network_time(t), rows.told)
    _, s = schedule.coefficients(t, x)
    return (s * (says - should)).square().sum((1, 2, 3)) / w


def score_gradient(nets: Nets, x: Tensor, rows: Rows, config: SFDConfig) -> dict[str, Tensor]:
    """Add the gradient of (3) at samples `x` (N C H W, detached) to the score's. Returns the loss of each sample."""
    x_t = nets.score.schedule.noisy(x, rows.e, rows.t)
    trained, _ = nets.scores(x_t, rows, config.negatives)
    loss = score_loss(nets.score.eps_from(trained, x_t, rows.t), rows.e)
    (rows.weights(config.forget_weight_score) * loss).sum().backward(inputs=parameters(nets.score))
    return {"score": loss.detach()}
