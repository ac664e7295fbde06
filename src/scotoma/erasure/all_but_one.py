"""All but One: erase through the guidance term, and hold the unconditional score still.

Hong, Lee, Woo: "All but One: Surgical Concept Erasing with Model Preservation in Text-to-Image Diffusion Models", AAAI
2024 (arXiv 2312.12807). The paper was not read by us beyond its abstract and first figure: the losses below are a
reconstruction from them. docs/paper_index.md lists what is open.

Classifier-free guidance draws with e(n) + w g(c), g(c) = e(c) - e(n) (notation: matching.py). Of the two parts, every
prompt shares the first; the second is the concept's own, and is what is changed:

    L_g = mean (e_th(x_t, f) - base - target)^2          the guidance term                                          (1)
    L_u = mean (e_th(x_t, n) - e_0(x_t, n))^2            the unconditional score stays                              (2)
    L_r = mean (e_th(x_t, r) - e_0(x_t, r))^2            prompts that stay, on their own states (ours)              (3)
    L   = L_g + lam L_u + mu L_r

    base     joint: e_th(x_t, n)     detached: the same, held still     anchored: e_0(x_t, n)
    target   given: g_0(x_t, a), which is 0 where a is no prompt        negated: -eta g_0(x_t, f)

With lam > 0 all three forms have the same and only minimum, e_th(f) = e_0(n) + target and e_th(n) = e_0(n); they differ
in which error is paid for on the way, since what is drawn is off by d_n + w (d_f - d_n), where d_f and d_n are the errors
of the two predictions. joint and detached weigh d_f - d_n, the part that guidance multiplies; without L_u, joint may
shift both, and detached chases its own target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scotoma.erasure.edit import Edit
from scotoma.erasure.matching import Batch, Loss, MatchingConfig, method, mse
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.model import Model
from scotoma.records import Concept


@dataclass(frozen=True)
class AllButOneConfig(MatchingConfig):
    """What `run` may be told. Defaults are those of benchmarks/all_but_one/tune.py."""

    SMALL_LR: ClassVar[float] = 1e-3

    lr: float = field(default=0.0, metadata={"help": "of Adam; 0: 1e-5, or 1e-3 for networks below 100 M parameters"})
    states: Literal["mixture", "concept"] = field(
        default="concept",
        metadata={
            "help": "what the frozen model draws to give states. concept: the concept (three quarters) and prompts that "
            "stay; mixture: the concept (half), its alternative, and prompts that stay (a quarter each)"
        },
    )
    form: Literal["joint", "detached", "anchored"] = field(
        default="joint",
        metadata={
            "help": "where the guidance term of the trained network starts. joint: from its own prediction for no "
            "prompt; detached: from that, held still; anchored: from the frozen network's"
        },
    )
    lam: float = field(default=10.0, metadata={"help": "weight of holding the unconditional score still"})
    mu: float = field(default=1.0, metadata={"help": "weight of holding kept prompts still"})
    alternative: Literal["given", "negated"] = field(
        default="given",
        metadata={
            "help": "given: what --instead names, or no prompt; negated: the opposite of the concept's own guidance"
        },
    )
    eta: float = field(default=1.0, metadata={"help": "strength of the negated guidance"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam", "mu", "eta"):
            self.require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        self.require(self.form in ("joint", "detached", "anchored"), "form", "joint, detached or anchored")
        self.require(self.alternative in ("given", "negated"), "alternative", "given or negated")


def guidance_loss(form: str, concept: Tensor, null: Tensor, frozen_null: Tensor, target: Tensor) -> Tensor:
    """(1). `concept` and `null` are the trained network's predictions, `target` a guidance term; n C H W each."""
    base = {"joint": null, "detached": null.detach(), "anchored": frozen_null}[form]
    return mse(concept - base, target)


def loss(config: AllButOneConfig) -> Loss:
    def terms(student: Denoiser, frozen: Denoiser, batch: Batch) -> dict[str, Tensor]:
        x, t, null = batch.state.x, batch.state.t, batch.state.null
        with torch.no_grad():
            if config.alternative == "given":
                target = frozen.predicts(x, t, batch.alternative) - null
            else:
                target = -config.eta * (frozen.predicts(x, t, batch.concept) - null)
        k = batch.kept if config.mu else torch.zeros_like(batch.kept)
        # States of the concept alone: those of prompts that stay serve (3) and nothing else.
        g = ~k if config.states == "concept" else torch.ones_like(k)
        told = Cond.cat([batch.concept[g], batch.null[g], batch.source[k]])
        seen = student.predicts(torch.cat([x[g], x[g], x[k]]), torch.cat([t[g], t[g], t[k]]), told)  # one call for all
        concept, own_null, stays = seen.split([int(g.sum()), int(g.sum()), int(k.sum())])
        parts = {
            "guidance": guidance_loss(config.form, concept, own_null, null[g], target[g]),
            "null": mse(own_null, null[g]),
            "kept": mse(stays, batch.state.told[k]),
        }
        return {"loss": parts["guidance"] + config.lam * parts["null"] + config.mu * parts["kept"], **parts}

    return terms


_run = method("all_but_one", loss, layers="xattn-kv")


def run(
    model: Model, concepts: Sequence[Concept], instead: Sequence[str], config: AllButOneConfig, **handed: Any
) -> Edit:
    """The Edit that takes each concept out of the guidance term. Arguments and errors as of `matching.method`."""
    if config.alternative == "negated" and any(instead):
        raise UsageError(
            f"all_but_one: alternative negated and {' and '.join(filter(None, instead))} exclude each other; leave "
            "--instead out, or set alternative to given"
        )
    return _run(model, concepts, instead, config, **handed)
