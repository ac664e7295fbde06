"""Step count: the same weights drawn in other numbers of steps than they are served with.

A one-call student was trained to forget at one noise level; under the scheduler of the model that it was made from it can be sampled
in many steps, also with that model's reading of the time put back (`as_multistep`). A model of many steps is drawn in few and in
many, guided and not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, of_many_steps
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import sample
from scotoma.models.student import as_multistep, one_step


@dataclass(frozen=True)
class StepCountConfig:
    steps: tuple[int, ...] = field(default=(5, 25, 50), metadata={"help": "of DDIM, swept"})

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise UsageError(f"step count: steps must be 1 or more, at least one, got {self.steps}")


def probe(
    model: Model,
    sought: Sought,
    config: StepCountConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each number of steps, unguided and guided, under the name; of a student also with the time given back."""
    ways = {"": model}
    if one_step(model.scheduler):
        ways = {", time given back": of_many_steps(model, sought.unedited), "": as_multistep(model, sought.unedited)}
    w = budget.guided(sought.unedited)
    guidances = {"guided": w} if w == 1.0 else {"unguided": 1.0, "guided": w}
    seeds, asked = budget.seeds(seed), [sought.asked(model)] * budget.queries
    for way, many in ways.items():
        for called, guidance in guidances.items():
            for steps in config.steps:
                variant = f"{steps} steps, {called}{way}"
                if records.wants(variant):
                    how = {"guidance": guidance, "steps": steps, "batch_size": budget.batch_size, "scheduler": "ddim"}
                    pictures = sample(many, asked, seeds, **how)  # type: ignore[arg-type]
                    records.add(Made(variant, pictures, [str(s) for s in seeds], seeds))
