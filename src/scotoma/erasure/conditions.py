"""What a training draws from instead of data: conditions that are kept or forgotten, noise, and times.

Row i of an iteration depends on (seed, iteration, stream, i) alone, whatever the batch is split into and whichever
process draws it. Notation: N rows, C H W of what the network denoises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.erasure.training import Processes
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, TimeRange
from scotoma.models.model import Model
from scotoma.records import Concept


@dataclass(frozen=True)
class Conditions:
    """Encoded: `kept` K rows; for each of the F rows of `forgotten` the conditions that it may become, one of which is
    drawn evenly, and one row that its teacher is guided away from. `forgotten` is None where nothing is, `null`, the
    condition of no prompt (one row), where nobody is guided, and `negatives` empty where everybody is guided away from
    that."""

    kept: Cond
    forgotten: Cond | None = None
    becomes: tuple[Cond, ...] = ()
    null: Cond | None = None
    negatives: tuple[Cond, ...] = ()

    @cached_property
    def led(self) -> tuple[bool, ...]:
        """Of each of the F rows: whether its teacher is guided away from a negative prompt."""
        if self.null is None or not self.negatives:
            return (False,) * len(self.becomes)
        null = self.null.text
        return tuple(n.text is None or null is None or not n.text.equal(null) for n in self.negatives)

    @cached_property
    def alone(self) -> tuple[bool, ...]:
        """Of each of the F rows: whether it becomes one condition, by that alone and no negative prompt."""
        return tuple(len(c) == 1 and not led for c, led in zip(self.becomes, self.led, strict=True))

    def distilling(self) -> Conditions:
        """The same without forgetting: everything is kept."""
        everything = self.kept if self.forgotten is None else Cond.cat([self.kept, self.forgotten])
        return Conditions(everything, null=self.null)


class Rows(NamedTuple):
    """N samples of one iteration, the kept ones first: what they are told, what their teacher is told, whether they are
    forgotten (N bool), become one condition alone, by that condition alone (N bool), or are led away from a negative prompt
    (N bool), one over how many of their kind the iteration has (N), noise z and e (N C H W), times t (N,), and two more even
    numbers in [0, 1) for each (N 2). For guidance: whether the score, in its own training, is told no prompt (N bool), the condition of no prompt, and what the
    teacher is guided away from."""

    told: Cond
    teacher: Cond
    forgotten: Tensor
    alone: Tensor
    led: Tensor
    share: Tensor
    z: Tensor
    e: Tensor
    t: Tensor
    free: Tensor
    untold: Tensor
    null: Cond | None
    negative: Cond | None

    def part(self, rows: slice | Tensor) -> Rows:
        """Some of them; their shares remain those of the whole iteration."""
        return Rows(*(None if value is None else value[rows] for value in self))  # type: ignore[arg-type]

    def weights(self, of_forgotten: float) -> Tensor:
        """(N,) such that a sum over the iteration is the mean over kept plus `of_forgotten` times that over forgotten."""
        return self.share * torch.where(self.forgotten, of_forgotten, 1.0)


def draw(
    conditions: Conditions,
    kept: int,
    forgotten: int,
    times: TimeRange,
    shape: tuple[int, int, int],
    *,
    seed: int,
    step: int,
    stream: int = 0,
    processes: Processes | None = None,
    untold: float = 0.0,
) -> Rows:
    """The samples of iteration `step`, or this process's of them.

    Conditions come in turn. Times are even in [times.low, times.high] and stratified: n rows of a kind fall into n equal
    parts of the range, in random order, so that each row has the same distribution and their sum varies less. So are those
    of which the score is told no prompt, a share `untold` of each kind.
    """
    device = conditions.kept.device
    counts = (kept, forgotten if conditions.forgotten is not None else 0)
    rank, world = (processes.rank, processes.world) if processes else (0, 1)
    order = torch.Generator().manual_seed(mix(seed, step, stream))
    parts = [torch.randperm(n, generator=order).tolist() for n in counts]
    places = [torch.randperm(n, generator=order).tolist() for n in counts]
    null = conditions.null
    told, teacher, negative, alone, led, zs, es, ts, free, silent = ([] for _ in range(10))
    rows = range(rank, sum(counts), world)
    for i in rows:
        own = torch.Generator().manual_seed(mix(seed, step, stream, i))
        zs.append(torch.randn(shape, generator=own))
        es.append(torch.randn(shape, generator=own))
        u, v, *rest = torch.rand(4, generator=own, dtype=torch.float64).tolist()
        w = torch.rand(1, generator=own, dtype=torch.float64).item()
        free.append(rest)
        kind, k = (0, i) if i < kept else (1, i - kept)
        silent.append(places[kind][k] + w < untold * counts[kind])
        ts.append(times.low + int((parts[kind][k] + u) / counts[kind] * (times.high - times.low + 1)))
        turn = step * counts[kind] + k
        if kind == 0:
            told.append(conditions.kept[turn % len(conditions.kept)])
            teacher.append(told[-1])
            negative.append(null)
            alone.append(False)
            led.append(False)
        else:
            assert conditions.forgotten is not None
            f = turn % len(conditions.forgotten)
            told.append(conditions.forgotten[f])
            teacher.append(conditions.becomes[f][int(v * len(conditions.becomes[f]))])
            negative.append(conditions.negatives[f] if conditions.negatives else null)
            alone.append(conditions.alone[f])
            led.append(conditions.led[f])
    gone = torch.tensor([i >= kept for i in rows])
    return Rows(
        Cond.cat(told),
        Cond.cat(teacher),
        gone.to(device),
        torch.tensor(alone, device=device),
        torch.tensor(led, device=device),
        torch.where(gone, 1 / max(counts[1], 1), 1 / kept).to(device),
        torch.stack(zs).to(device),
        torch.stack(es).to(device),
        torch.tensor(ts, device=device),
        torch.tensor(free, device=device),
        torch.tensor(silent, device=device),
        None if null is None else null.expand(len(rows)),
        None if null is None else Cond.cat([n for n in negative if n is not None]),
    )


def mix(*numbers: int) -> int:
    """One 63-bit seed of several numbers, each of which changes all of it (the finaliser of splitmix64)."""
    h = len(numbers)
    for n in numbers:
        h = (h + (n + 1) * 0x9E3779B97F4A7C15) % (1 << 64)
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB % (1 << 64)
        h ^= h >> 31
    return h >> 1


def label_conditions(model: Model, concepts: Sequence[Concept], instead: Sequence[str]) -> Conditions:
    """Of a label-conditional model: every class that is not forgotten is kept. A forgotten class becomes its alternative,
    or evenly any of the kept where it has none.

    Raises UsageError for a class that is unknown, an alternative that is forgotten too, or where nothing is kept.
    """
    names = [c.name for c in concepts]
    if not names:
        raise UsageError("no class is named to be forgotten; name one with --concept")
    if len(instead) not in (1, len(names)):
        raise UsageError(f"give one alternative, or one for each of {len(names)} classes, not {len(instead)}")
    kept = [label for label in model.labels if label not in names]
    if not kept:
        raise UsageError("every class is to be forgotten and nothing is kept; name fewer with --concept")
    others = list(instead) * (len(names) // len(instead))
    for name, other in zip(names, others, strict=True):
        if other in names:
            raise UsageError(f"{name} would become {other}, which is forgotten too; choose a class that is kept")
    everything = model.encode(kept)
    becomes = tuple(model.encode([other]) if other else everything for other in others)
    return Conditions(everything, model.encode(names), becomes, null=model.null(1))
