"""What benchmarks/sfd_text compares: one training each, kept under build/benchmarks/sfd_text, so that a killed run goes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from keeping import Kept, kept

from scotoma.erasure import sfd
from scotoma.erasure.edit import Edit
from scotoma.erasure.sfd import SFDConfig
from scotoma.evaluation.along import observer
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.look import named
from scotoma.evaluation.task import Size, Task
from scotoma.evaluation.zoo_task import captions, expand, label_of, zoo_task
from scotoma.models.model import Model

CURVE_SIZE, CURVE_SEED = Size(60, 48, 120), 9_500_000
CAPTIONS = 20_000  # of which a training draws what it keeps


@dataclass(frozen=True)
class Erasure:
    """A name, a style or a stand-in category, and what it becomes; with `products` the bare subject of its prompts does,
    and nothing is named."""

    label: str
    concept: str
    instead: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in expand("emoji", self.concept))

    def task(self, size: Size, first_seed: int) -> Task:
        becomes = dict.fromkeys(self.names, label_of("emoji", self.instead) or "")
        return zoo_task("emoji", becomes, size=size, first_seed=first_seed)


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
            captions=captions("emoji", erasure.names, CAPTIONS),
            plain=captions("emoji", erasure.names, CAPTIONS, styled=False),
            folder=folder,
        )

    key = [model.hash(), "sfd", erasure.concept, erasure.instead, seed, dataclasses.asdict(config)]
    return kept(run, key, cache)
