"""SafeGen: a network that turns what must not be drawn into a mosaic, by self-attention alone and whatever the text.

Li, Yang, Deng, Yan, Chen, Ji, Xu: "SafeGen: Mitigating Sexually Explicit Content Generation in Text-to-Image Models", CCS
2024 (arXiv 2404.06666). Followed: github.com/LetterLiGo/SafeGen_CCS2024 at 20f627b; the paper's body was not read.

Notation: z_u, z_m, z_b latents of an unwanted picture, of the same under a mosaic, of a benign one; z_t = a z + s e noisy
at time t; n no prompt, c what a picture shows; e_th the trained network's prediction of the noise, e_0 the frozen one's.

    L_m = mean (e_th(z_u_t, t, n) - [e + k (z_u - z_m)])^2                                                           (1)
    L_p = mean (e_th(z_b_t, t, n) - e)^2                                                                             (2)
    L   = w_m L_m + w_p L_p

A prediction e + k (z_u - z_m) of the noise reads as the clean latent z_u - (s / a) k (z_u - z_m), which is z_m where
k = a / s. The code has k = 1 (`target="paper_code"`): too much early in sampling and next to nothing at its end; ours is
min(a / s, k_max) (`exact_clamped`).

An error of the noise is k = a / s times that of the clean latent: counted as it is (`errors="noise"`, as published), most of
(1) lies at times so late that no sampler of a few steps visits them, and little where it is decided what a picture shows.
With `errors="clean"` those of (1) and (2) count 1 / max(k, k_least)^2 as much, over that of all times: as errors of the clean
latent, up to the noise level 1 / k_least.

The guidance trap: what is drawn is e(n) + w (e(c) - e(n)). With d_n, d_c the changes of the two predictions and
rho = <d_c, d_n> / |d_n|^2, the change of the guided one along d_n is 1 - w (1 - rho) of it: above 0 only where
rho > 1 - 1 / w. Trained on no prompt alone, nothing is said of rho; `captions` is the share of rows that are told c
instead. rho by noise level is in the Edit.

Departures: that share, `exact_clamped`, how errors count, the frozen network's prediction as the target of (2) (`teacher`);
cells twice as coarse as hides the concept from a classifier (triplets.py); latents and mosaics are made once; all of it in the
prediction of the noise, which is right for v as well, where the code's own branches are not; no moving average.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scotoma.bounds import check_concepts
from scotoma.erasure.conditions import mix
from scotoma.erasure.edit import Edit
from scotoma.erasure.prompts import check_named, check_templates, pairs
from scotoma.erasure.triplets import KINDS, Heat, Shown, Source, Triplets, triplets
from scotoma.erasure.tuning import Observe, TuningConfig, check_null, tune
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.model import Model
from scotoma.models.sample import to_uint8
from scotoma.records import Concept

RHO_TIMES, RHO_ROWS = 10, 32  # noise levels and pictures at which rho is measured
K_LEAST = 0.1


@dataclass(frozen=True)
class SafeGenConfig(TuningConfig):
    """What `run` may be told."""

    SMALL_LR: ClassVar[float] = 1e-3

    iterations: int = field(default=400, metadata={"help": "updates"})
    lr: float = field(default=0.0, metadata={"help": "of Adam; 0: 1e-5, or 1e-3 for networks below 100 M parameters"})
    target: Literal["paper_code", "exact_clamped"] = field(
        default="exact_clamped", metadata={"help": "how far towards the mosaic; paper_code: k = 1 at every time"}
    )
    k_max: float = field(default=5.0, metadata={"help": "largest k of exact_clamped"})
    errors: Literal["noise", "clean"] = field(
        default="clean", metadata={"help": "what errors count as those of; noise: as published"}
    )
    captions: float = field(
        default=0.5, metadata={"help": "share of rows that are told what the picture shows; 0: none, as published"}
    )
    teacher: bool = field(
        default=True, metadata={"help": "benign pictures keep the frozen network's prediction, not the noise itself"}
    )
    w_mosaic: float = field(default=0.5, metadata={"help": "weight of the mosaic term"})
    w_benign: float = field(default=0.5, metadata={"help": "weight of the benign term"})
    mosaic: Literal["heat", "full", "blur"] = field(
        default="full",
        metadata={"help": "full: all of a picture; heat: cells where a classifier sees the concept; blur: no cells"},
    )
    pitch: int = field(
        default=0,
        metadata={
            "help": "side of a mosaic's cells in pixels; 0: twice the finest that hide the concept from the classifier, or "
            "without one half of the picture"
        },
    )
    folder: str = field(
        default="", metadata={"help": "pictures of your own, in its unwanted/ and benign/; empty: the model draws them"}
    )
    pictures: int = field(default=128, metadata={"help": "unwanted ones that the model draws, and as many benign ones"})
    benign: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prompts of benign pictures, near ones among them; empty: those that the zoo's models come with"
        },
    )
    templates: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prompts of unwanted pictures, with {} for the concept; empty: some that fit an object, or a style"
        },
    )
    guidance: float = field(default=3.0, metadata={"help": "with which the model draws those pictures"})
    steps: int = field(default=25, metadata={"help": "in which it does"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pictures", "steps"):
            self.require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("w_mosaic", "w_benign", "guidance", "pitch"):
            self.require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        check_templates(self.templates, "SafeGen")
        self.require(self.k_max > 0, "k_max", "above 0")
        self.require(0 <= self.captions <= 1, "captions", "from 0 to 1")
        self.require(self.errors in ("noise", "clean"), "errors", "noise or clean")
        self.require(self.target in ("paper_code", "exact_clamped"), "target", "paper_code or exact_clamped")
        self.require(self.mosaic in KINDS, "mosaic", f"one of {', '.join(KINDS)}")


def towards(config: SafeGenConfig, schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """k at times t (n,), n 1 1 1."""
    a, s = schedule.coefficients(t, like)
    return torch.ones_like(a) if config.target == "paper_code" else (a / s).clamp(max=config.k_max)


def counts(config: SafeGenConfig, schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """How much the squared errors of the noise at times t (n,) count, n 1 1 1; 1 in the mean of all times."""

    def of(times: Tensor) -> Tensor:
        a, s = schedule.coefficients(times, like)
        return (a / s).clamp(min=K_LEAST) ** -2

    if config.errors == "noise":
        return torch.ones(len(t), 1, 1, 1).to(like)
    return of(t) / of(torch.arange(1, len(schedule) - 1, device=t.device)).mean()


def terms(
    student: Denoiser, frozen: Denoiser, seen: Triplets, config: SafeGenConfig, number: int, seed: int
) -> dict[str, Tensor]:
    """The losses of update `number`: half of its rows unwanted, half benign, in one call of the network."""
    generator = torch.Generator().manual_seed(mix(seed, number))
    n = max(1, config.batch // 2)
    u, b = (torch.randint(0, len(x), (n,), generator=generator).to(x.device) for x in (seen.unwanted, seen.benign))
    schedule = student.schedule
    # The last time of all has no signal in some schedules, and the first no noise.
    t = torch.randint(1, len(schedule) - 1, (2 * n,), generator=generator).to(seen.unwanted.device)
    e = torch.randn(2 * n, *seen.unwanted.shape[1:], generator=generator).to(seen.unwanted)
    captioned = (torch.rand(2 * n, generator=generator) < config.captions).to(t.device)
    z = torch.cat([seen.unwanted[u], seen.benign[b]])
    x = schedule.noisy(z, e, t)
    told = Cond.cat([seen.unwanted_told[u], seen.benign_told[b]]).where(captioned, seen.null.expand(2 * n))
    mosaic = e[:n] + towards(config, schedule, t[:n], z) * (z[:n] - seen.covered[u])
    benign = e[n:]
    if config.teacher:
        with torch.no_grad():
            benign = frozen.eps(x[n:], t[n:], told[n:])
    says = student.eps(x, t, told)
    each = counts(config, schedule, t, z) * (says - torch.cat([mosaic, benign])).square()
    parts = {"mosaic": each[:n].mean(), "benign": each[n:].mean()}
    return {"loss": config.w_mosaic * parts["mosaic"] + config.w_benign * parts["benign"], **parts}


@torch.no_grad()
def rho(student: Denoiser, frozen: Denoiser, seen: Triplets, seed: int) -> list[dict[str, float]]:
    """<d_c, d_n> / |d_n|^2 over noisy unwanted pictures, from noisy to clean: {"sigma", "rho"}."""
    schedule, rows = student.schedule, slice(0, RHO_ROWS)
    z, told = seen.unwanted[rows], seen.unwanted_told[rows]
    null = seen.null.expand(len(z))
    out = []
    for index in torch.linspace(len(schedule) - 2, 1, RHO_TIMES).round().long().tolist():
        t = torch.full((len(z),), index, device=z.device)
        generator = torch.Generator().manual_seed(mix(seed, index, -3))
        x = schedule.noisy(z, torch.randn(z.shape, generator=generator).to(z), t)
        d_n, d_c = (student.eps(x, t, c) - frozen.eps(x, t, c) for c in (null, told))
        size = float(d_n.square().sum())
        if size:
            out.append({"sigma": float(schedule.sigma(index)), "rho": float((d_c * d_n).sum()) / size})
    return out


def material(
    model: Model, concepts: Sequence[Concept], config: SafeGenConfig, seed: int, heat: Heat | None = None
) -> Triplets:
    """What a training of a resolved config learns from, as `triplets` draws it from `model`."""
    lists = [
        [Shown(p.concept, c.name) for p in pairs(model, [c], [""], config.templates, config.benign)] for c in concepts
    ]
    shown = [s for together in itertools.zip_longest(*lists) for s in together if s is not None]  # concepts in turn
    benign = config.benign or tuple(label for label in model.labels if label not in {c.name for c in concepts})
    folder = Path(config.folder) if config.folder else None
    source = Source(folder, config.pictures, config.guidance, config.steps, seed)
    return triplets(model, shown, benign, source, config.mosaic, heat, config.pitch)


class Example(NamedTuple):
    """A picture that was learnt from, and what is to be drawn in its place: uint8 H W 3 each; whether the concept is seen
    in either (None: nobody looks)."""

    prompt: str
    concept: str
    seed: int
    unwanted: np.ndarray
    covered: np.ndarray
    seen: tuple[bool | None, bool | None]


@torch.no_grad()
def examples(model: Model, edit: Edit, heat: Heat | None = None, count: int = 6) -> list[Example]:
    """The first of what an Edit was learnt from, drawn again by the unedited model: they never were on the disk."""
    header = edit.header
    told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()}
    concepts = [Concept.of(c) for c in header["concepts"]]
    area = header["figures"]["mosaic_area"]
    told |= {"pictures": count, "pitch": area["pitch"]} | (
        {"mosaic": "full"} if area["pitch"] and area["whole"] else {}
    )
    config = SafeGenConfig(**told)
    found = material(model, concepts, config, header["seed"], heat)
    out = []
    for i, (prompt, concept, seed) in enumerate(found.shows[:count]):
        both = [
            model.decode(z[i : i + 1].to(model.device)).expand(-1, 3, -1, -1) for z in (found.unwanted, found.covered)
        ]
        seen = [None if heat is None else bool(heat(picture, concept).any()) for picture in both]
        unwanted, covered = (to_uint8(picture)[0] for picture in both)
        out.append(Example(prompt, concept, seed, unwanted, covered, (seen[0], seen[1])))
    return out


def run(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: SafeGenConfig,
    *,
    seed: int = 0,
    observe: Observe | None = None,
    heat: Heat | None = None,
    unedited: Model | None = None,
    retain: Sequence[str] = (),
    folder: Path | None = None,
) -> Edit:
    """The Edit that draws a mosaic where each concept would be; it takes no alternative. `model` is not changed.

    `heat` says where a concept is in a picture; `unedited` draws the pictures where `model` has lost the concept to an
    earlier Edit; `retain` are prompts of benign pictures where the config names none.
    Others and errors as of `tuning.tune`; UsageError for an alternative or an unknown kind of mosaic, DataError for a
    folder without pictures.
    """
    check_concepts(concepts, instead)
    check_named(concepts)
    check_null(model, "safegen")
    if any(instead):
        raise UsageError(
            f"safegen: a concept becomes a mosaic, and {' and '.join(filter(None, instead))} has no part in it; leave "
            "--instead out"
        )
    if config.folder and config.benign:
        raise UsageError(
            "safegen: benign pictures come from the folder; give them captions there, and leave benign out"
        )
    config = dataclasses.replace(
        config,
        benign=config.benign or (() if config.folder else tuple(retain)),
    ).resolved(model, "selfattn")
    seen = material(unedited or model, concepts, config, seed, heat)
    frozen = model.denoiser()

    def measure(student: Denoiser) -> dict[str, Any]:
        benign_area = None if seen.benign_area is None else round(seen.benign_area, 4)
        still = None if seen.still_seen is None else round(seen.still_seen, 4)
        covered = {"unwanted": round(seen.area, 4), "benign": benign_area, "left_out": seen.left_out}
        covered |= {"pitch": seen.pitch, "whole": seen.whole, "still_seen": still}
        return {"rho": rho(student, frozen, seen, seed), "mosaic_area": covered}

    return tune(
        model,
        concepts,
        instead,
        config,
        lambda student, number, generator: terms(student, frozen, seen, config, number, seed),
        method="safegen",
        seed=seed,
        observe=observe,
        folder=folder,
        measure=measure,
    )
