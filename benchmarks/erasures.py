"""What benchmarks on zoo:emoji erase: a name, a style or a stand-in category, and what it becomes."""

from __future__ import annotations

from dataclasses import dataclass

from scotoma.evaluation.task import Size, Task
from scotoma.evaluation.zoo_task import expand, label_of, near_and_far, some_kept, zoo_task


@dataclass(frozen=True)
class Erasure:
    """`instead` is empty where the concept becomes nothing that is named."""

    label: str
    concept: str
    instead: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in expand("emoji", self.concept))

    def task(self, size: Size, first_seed: int) -> Task:
        becomes = dict.fromkeys(self.names, label_of("emoji", self.instead) or "")
        return zoo_task("emoji", becomes, size=size, first_seed=first_seed)

    def held(self) -> tuple[str, ...]:
        """Kept names that a training holds still."""
        return some_kept("emoji", self.names)

    def benign(self, count: int) -> list[str]:
        """Prompts of far names that no training holds still."""
        _, far = near_and_far("emoji", self.names)
        held = set(self.held())
        return [f"a {name}" for name in far if name not in held][:count]
