"""What the core table compares: methods that make Edits, one stack of two of them, and Safe Latent Diffusion at run time.

Trainings are kept under build/benchmarks/methods, so that a killed run goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from erasures import Erasure
from keeping import Kept, kept

from scotoma import api
from scotoma.detectors.image import zoo_names
from scotoma.erasure import method
from scotoma.erasure.all_but_one import AllButOneConfig
from scotoma.erasure.concept_ablation import ConceptAblationConfig
from scotoma.erasure.edit import Edit
from scotoma.erasure.esd import ESDConfig
from scotoma.erasure.mosaic import blur, mosaic
from scotoma.erasure.safegen import SafeGenConfig
from scotoma.erasure.uce import UCEConfig
from scotoma.evaluation.compare import Comparison
from scotoma.evaluation.judges.judge import Judge
from scotoma.evaluation.look import named
from scotoma.models.model import Model
from scotoma.models.sample import to_uint8
from scotoma.models.sld import SLD

CACHE = Path(__file__).parents[2] / "build/benchmarks/methods"
PICTURES = CACHE / "pictures"

# Stages in order, each a method and its settings: the defaults, which are what each method's own tuning chose. A method
# that is watched is looked at along its training; here nobody is.
ALL_BUT_ONE, SAFEGEN = AllButOneConfig(observe_every=0), SafeGenConfig(observe_every=0)
STAGES: dict[str, tuple[tuple[str, Any], ...]] = {
    "uce": (("uce", UCEConfig()),),
    "esd": (("esd", ESDConfig(observe_every=0)),),
    "concept_ablation": (("concept_ablation", ConceptAblationConfig(observe_every=0)),),
    "all_but_one": (("all_but_one", ALL_BUT_ONE),),
    "safegen": (("safegen", SAFEGEN),),
    "sld_max": (),
    "stack": (("all_but_one", ALL_BUT_ONE), ("safegen", SAFEGEN)),
}
# SafeGen as its code has it, and steps from there to ours, each with cells that hide the concept; the cross-attention in its
# place.
PUBLISHED = SafeGenConfig(
    observe_every=0, target="paper_code", errors="noise", captions=0.0, teacher=False, w_mosaic=0.1, w_benign=0.9
)
EXACT = dataclasses.replace(PUBLISHED, target="exact_clamped")
CLEAN = dataclasses.replace(EXACT, errors="clean", w_mosaic=SAFEGEN.w_mosaic, w_benign=SAFEGEN.w_benign)
SAFEGEN_ARMS: dict[str, SafeGenConfig] = {
    "paper_code": PUBLISHED,
    "exact": EXACT,
    "exact_clean": CLEAN,
    "exact_clean_captions": dataclasses.replace(CLEAN, captions=SAFEGEN.captions),
    "ours": SAFEGEN,
    "heat": dataclasses.replace(SAFEGEN, mosaic="heat"),
    "blur": dataclasses.replace(SAFEGEN, mosaic="blur"),
    "cross_attention": dataclasses.replace(SAFEGEN, layers="xattn"),
}


# Objects are among the four that zoo:emoji-control never saw; pairs are those of frozen.json.
TASKS = (
    Erasure("near", "dagger", "pencil"),
    Erasure("far", "syringe", "candle"),
    Erasure("category", "violent", "balloon"),
    Erasure("style", "fluent", "twemoji"),
)


@dataclass(frozen=True)
class Made:
    """An arm on a task: the treated model, the stages' trainings, and what of it is at run time."""

    model: Model
    stages: tuple[Kept, ...]

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.stages)

    @property
    def size(self) -> int:
        return sum(s.size for s in self.stages)

    @property
    def pitch(self) -> int:
        """Of the mosaics that the last stage learnt to draw."""
        return int(self.stages[-1].edit.header["figures"]["mosaic_area"]["pitch"])


def hidden(seen: Comparison, pitch: int, judge: Judge) -> list[bool]:
    """Of each of the unedited model's pictures of a concept, under the mosaic that is learnt: the judge does not see the
    concept there. As much as can be forgotten where a network draws nothing but these mosaics; pitch 0 is a blur."""
    chosen = [i for i, role in enumerate(seen.roles) if role == "forget"]
    pictures = torch.from_numpy(seen.before[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
    covered = (mosaic(pictures, pitch=pitch) if pitch else blur(pictures)).pictures
    heads = [seen.task.asks[i].head for i in chosen]
    return [label not in seen.task.concepts for label in judge.sees(to_uint8(covered), heads).labels]


def make(arm: str, model: Model, erasure: Erasure, seed: int) -> Made:
    if arm == "sld_max":
        return Made(model.steered(SLD.of("max", erasure.names)), ())
    return made_by(STAGES[arm], model, erasure, seed)


def made_by(stages: Sequence[tuple[str, Any]], model: Model, erasure: Erasure, seed: int, cache: Path = CACHE) -> Made:
    """The stages one after another, each on top of those before."""
    now, done = model, []
    for name, config in stages:
        stage = _train(name, config, model, now, erasure, seed, [s.edit.id for s in done], cache)
        now = stage.edit.apply(now)
        done.append(stage)
    return Made(now, tuple(done))


def _train(
    name: str,
    config: Any,
    unedited: Model,
    model: Model,
    erasure: Erasure,
    seed: int,
    before: Sequence[str],
    cache: Path,
) -> Kept:
    chosen = method(name)
    concepts, instead = named(model, erasure.concept, "" if chosen.leaves == "mosaic" else erasure.instead)
    handed: dict[str, Any] = {}
    if "retain" in chosen.handed:
        handed["retain"] = erasure.held()
    if "unedited" in chosen.handed:
        handed["unedited"] = unedited
    names = zoo_names.load("emoji")
    if "heat" in chosen.handed and all(c.name in names.labels for c in concepts):
        handed["heat"] = api.heat_maps(names, model)

    def run(folder: Path) -> Edit:
        return chosen.run(model, concepts, instead, config, seed=seed, folder=folder, **handed)  # type: ignore[no-any-return]

    key = [model.hash(), name, erasure.concept, erasure.instead, seed, dataclasses.asdict(config), *before]
    return kept(run, [*key, erasure.held()], cache)
