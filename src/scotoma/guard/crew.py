"""Who works beside a server, each in a process of its own: the detectors of texts, those of pictures, the generator, and who decodes
pictures that clients send, so that none of these waits for that or dies of it.

    crew = Crew.start(policy, generator)         crew.guard is a Guard that asks them; crew.draw draws

The Guard itself (bounds, readings, decisions, the log) stays in the server's process: what a process that died or hangs has not
answered is a failure, about which the policy decides.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scotoma.allocator import keep_freed
from scotoma.detectors.contract import Detector, Unreadable
from scotoma.errors import ForbiddenModelError
from scotoma.guard.decide import Guard
from scotoma.guard.eyes import Eye, load_eye
from scotoma.guard.log import open_log
from scotoma.guard.process import Made, Process
from scotoma.records import sha256_text

if TYPE_CHECKING:
    from scotoma.guard.schema import Policy
    from scotoma.models.model import Model

TEXTS, PICTURES, GENERATOR = "the detectors of texts", "the detectors of pictures", "the generator"
READER = "the reader of pictures"
MOST = 4  # processes that draw, where nobody says how many
SMALL = 1 << 28  # bytes of a model's weights of which there may be several in memory unasked
# Field of the policy, the list in it, what it looks at, who does that.
STAGES = (
    ("prompts", "rules", "text", TEXTS),
    ("dialogue", "detectors", "text", TEXTS),
    ("pictures", "detectors", "image", PICTURES),
)


@dataclass(frozen=True)
class Generator:
    """A model and how it is drawn with; None: the model's own. `dtype` is torch's name of it. `threads` are those of each process;
    `processes` draw beside each other, None: as many as there are cores, up to MOST, for a small model on the CPU, else one."""

    source: str
    edits: tuple[str, ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    variant: str | None = None
    lora: str | None = None
    guidance: float | None = None
    steps: int | None = None
    scheduler: str | None = None
    batch: int | None = None
    threads: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class Served:
    """What a generator says of itself. `size` is width and height, `batch` how many pictures are drawn at once, by `processes`
    together, `labels` what it can be asked for where it is not told texts."""

    name: str
    hash: str
    edits: tuple[str, ...]
    size: tuple[int, int]
    batch: int
    credits: tuple[str, ...]
    labels: tuple[str, ...] = ()
    processes: int = 1


@dataclass(frozen=True)
class Crew:
    """`drawing` are those of `processes` that draw, of which each call asks as many as are there."""

    guard: Guard
    processes: Mapping[str, Process]
    served: Served | None = None
    drawing: tuple[Process, ...] = ()
    _together: ThreadPoolExecutor | None = field(default=None, repr=False)
    _ends: ExitStack = field(default_factory=ExitStack, repr=False)

    @classmethod
    def start(cls, policy: Policy, generator: Generator | None, *, environment: Mapping[str, str] = os.environ) -> Crew:
        """All of them there, the model admitted, the log open. Raises what stops any of it; then nothing is left running."""
        with ExitStack() as ends:
            wanted = {TEXTS: (_eyes, (policy, TEXTS)), PICTURES: (_eyes, (policy, PICTURES))}
            processes = {name: Process(name, *how) for name, how in wanted.items() if _needed(policy, name)}
            processes[READER] = Process(READER, _reader, (policy,))
            if generator is not None:
                processes[GENERATOR] = Process(GENERATOR, _generator, (policy, generator))
            with ThreadPoolExecutor(len(processes)) as pool:
                starting = {name: pool.submit(process.start) for name, process in processes.items()}
                for process in processes.values():
                    ends.callback(process.stop)
            said = {name: one.result() for name, one in starting.items()}
            served: Served | None = said.get(GENERATOR)
            drawing = [processes[GENERATOR]] if served else []
            together = None
            if served and served.processes > 1:
                together = ThreadPoolExecutor(served.processes, "drawing")
                ends.callback(together.shutdown, wait=False)  # calls that are under way end with their processes
                others = [
                    Process(f"{GENERATOR} {n}", _generator, (policy, generator)) for n in range(2, served.processes + 1)
                ]
                for process in others:
                    ends.callback(process.stop)
                list(together.map(Process.start, others))
                processes |= {p.name: p for p in others}
                drawing += others
            eyes = {
                stage: tuple(
                    _distant(eye, processes[who], stage, i, policy.limits.detector_seconds)
                    for i, eye in enumerate(said[who].get(stage, ()) if who in said else ())
                )
                for stage, _, _, who in STAGES
            }
            guard = Guard(policy, eyes["prompts"], eyes["pictures"], eyes["dialogue"])
            if policy.log is not None:
                log = open_log(policy.log, guard.identity, environment)
                ends.callback(log.close)
                guard = dataclasses.replace(guard, log=log)
            return cls(guard, processes, served, tuple(drawing), together, ends.pop_all())

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        """Pictures, uint8 H W 3. Raises Unavailable and Refused (process.py)."""
        seconds = self.guard.policy.limits.deadline_seconds
        there = [p for p in self.drawing if p.up][: len(texts)] or self.drawing[:1]
        ends = [round(len(texts) * k / len(there)) for k in range(len(there) + 1)]

        def part(k: int) -> Sequence[np.ndarray]:
            rows = slice(ends[k], ends[k + 1])
            found: np.ndarray = there[k].call("draw", list(texts[rows]), list(seeds[rows]), seconds=seconds)
            return list(found)

        each = map if self._together is None or len(there) == 1 else self._together.map
        return [picture for found in each(part, range(len(there))) for picture in found]

    def read(self, data: bytes) -> np.ndarray | Unreadable:
        """A picture from the bytes of a file, decoded beside the server. Raises Unavailable and Refused."""
        limits = self.guard.policy.limits
        found: np.ndarray | Unreadable = self.processes[READER].call("read", data, seconds=limits.detector_seconds)
        return found

    @property
    def missing(self) -> list[Process]:
        """Those that are not there at the moment."""
        return [p for p in self.processes.values() if not p.up]

    def stop(self) -> None:
        self._ends.close()


def _needed(policy: Policy, name: str) -> bool:
    return any(getattr(getattr(policy, s), f) for s, f, _, who in STAGES if who == name)


def _distant(told: tuple[Eye, int, bool], process: Process, stage: str, i: int, seconds: float) -> Eye:
    """An Eye whose detector is in a process."""
    eye, batch_size, reads_context = told

    def score(items: Sequence[Any]) -> np.ndarray:
        found: np.ndarray = process.call("score", stage, i, items, seconds=seconds)
        return found

    card: Any = eye.detector
    return dataclasses.replace(eye, detector=Detector(card, score, batch_size, reads_context))


# ------------------------------------------------------------------------------------------------- inside the processes


def _eyes(policy: Policy, who: str) -> Made:
    """Says of each stage its Eyes, with the card in the detector's place: the detector itself stays here."""
    keep_freed()
    _threads(1)
    eyes = {
        stage: [
            load_eye(look, policy, kind, f"{stage}.{name}[{i}]")
            for i, look in enumerate(getattr(getattr(policy, stage), name))
        ]
        for stage, name, kind, at in STAGES
        if at == who
    }
    _threads(1)
    hello = {
        stage: [
            (dataclasses.replace(e, detector=e.detector.card), e.detector.batch_size, e.detector.reads_context)  # type: ignore[arg-type]
            for e in of
        ]
        for stage, of in eyes.items()
    }
    cards = [e.detector.card.identity for of in eyes.values() for e in of]
    score = lambda stage, i, items: eyes[stage][i].detector.score(items)
    return Made(hello, sha256_text(" ".join(cards)), {"score": score})


def _reader(policy: Policy) -> Made:
    from scotoma.detectors.image.reading import read

    return Made(None, "", {"read": lambda data: read(data, policy.limits.picture_pixels)})


def _generator(policy: Policy, told: Generator) -> Made:
    import torch

    from scotoma.erasure.edit import Edit
    from scotoma.erasure.stacking import stack
    from scotoma.guard.verify import admit
    from scotoma.models.load import load
    from scotoma.models.sample import at_once, sample

    keep_freed()
    _threads(told.threads)
    model = load(
        told.source,
        device=told.device,
        dtype=getattr(torch, told.dtype),
        variant=told.variant,
        lora=told.lora,
    )
    edits = [Edit.load(path) for path in told.edits]
    held = admit(policy, stack(model, edits, inplace=True).model if edits else model, edits)
    width, height = held.model.picture_size
    if width * height > policy.limits.picture_pixels:
        raise ForbiddenModelError(
            f"{held.model.name} draws {width} x {height} pixels, and the policy {policy.name!r} allows "
            f"{policy.limits.picture_pixels:,}; raise limits.picture_pixels, or serve another model"
        )

    processes = told.processes or _sharing(held.model)
    if processes > 1 and told.threads is None:
        _threads(max(1, (os.cpu_count() or 1) // processes))

    def draw(texts: list[str], seeds: list[int]) -> np.ndarray:
        options = {"guidance": told.guidance, "steps": told.steps, "scheduler": told.scheduler}
        return sample(held.model, texts, seeds, batch_size=told.batch, **options)  # type: ignore[arg-type]

    labels = tuple(held.model.labels)
    draw([labels[0] if labels else "an apple"], [0])  # what does not fit is found now, and no request waits for it
    served = Served(
        held.model.name,
        held.hash,
        held.edits,
        (width, height),
        told.batch or at_once(held.model),
        tuple(held.model.defaults.get("credits", ())),
        labels,
        processes,
    )
    return Made(served, held.hash, {"draw": draw})


def _sharing(model: Model) -> int:
    """How many processes draw: operations of a small model are short, and two threads that wait for each other at each of them do
    less than two processes of one thread, the more so where others want the cores too."""
    bytes_held = sum(p.numel() * p.element_size() for part in model.modules().values() for p in part.parameters())
    small = model.device.type == "cpu" and bytes_held <= SMALL
    return min(MOST, os.cpu_count() or 1) if small else 1


def _threads(n: int | None) -> None:
    """`n` None: all cores. torch is not loaded for this: where something needs it, it takes the number from here."""
    if n is not None:
        os.environ["OMP_NUM_THREADS"] = str(n)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(n)
