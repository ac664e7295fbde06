"""What benchmarks/sfd_text compares: one training each, kept under build/benchmarks/sfd_text, so that a killed run goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from erasures import Erasure
from keeping import Kept, kept

from scotoma import api
from scotoma.erasure import sfd
from scotoma.erasure.edit import Edit
from scotoma.erasure.sfd import SFDConfig
from scotoma.evaluation.along import observer
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.look import named
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import captions
from scotoma.models.model import Model

CONFIG = SFDConfig(iterations=200, observe_every=25)  # how long: the curves of results/tuning.json
CURVE_SIZE, CURVE_SEED = Size(60, 48, 120), 9_500_000


def train(model: Model, erasure: Erasure, config: SFDConfig, seed: int, cache: Path) -> Kept:
    """As `scotoma erase --method sfd` does it, the curve seen by judge A."""
    concepts, instead = named(model, erasure.concept, erasure.instead)
    task = erasure.task(CURVE_SIZE, CURVE_SEED)

    def run(folder: Path) -> Edit:
        return sfd.run(
            model,
            concepts,
            instead,
            config,
            seed=seed,
            observe=observer(task, load_judge("emoji", "a")),
            captions=captions("emoji", erasure.names, api.CAPTIONS),
            plain=captions("emoji", erasure.names, api.PLAIN, seed=1, styled=False),
            folder=folder,
        )

    kept_by = [api.CAPTIONS, api.PLAIN]
    key = [model.hash(), "sfd", erasure.concept, erasure.instead, seed, dataclasses.asdict(config), kept_by]
    return kept(run, key, cache)
