"""The loop that every training of the project runs in: erasures and the zoo's own models.

Exact resume needs no saved random state: step `i` of a run with seed `s` draws everything from `step_generator(s, i)`.
A checkpoint is one safetensors file written beside the old one and renamed over it, so a kill at any moment leaves a
whole checkpoint; a resumed run ends in the same bytes as one that was never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scotoma.errors import CheckpointError, DivergedError, UsageError
from scotoma.records import write_text

log = logging.getLogger(__name__)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random stream of one step: a function of run seed and step alone."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % (1 << 63))


class EMA:
    """Exponential moving average of a module's parameters and buffers, fp32.

    The rate at step i is min(decay, (1 + i) / (10 + i)), so that a short run is not an average of its start.
    """

    def __init__(self, module: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.average = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        rate = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in module.state_dict().items():
            self.average[name].lerp_(value.float(), 1 - rate)

    def copy_to(self, module: nn.Module) -> None:
        state = module.state_dict()
        module.load_state_dict({k: v.to(state[k].dtype) for k, v in self.average.items()})

    def state_dict(self) -> dict[str, Tensor]:
        return {"updates": torch.tensor(self.updates), **{f"average.{k}": v for k, v in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The averages stay on the device where they are. Raises KeyError if one is missing."""
        self.updates = int(state["updates"])
        self.average = {k: state[f"average.{k}"].to(v.device, copy=True) for k, v in self.average.items()}


class Clock:
    """Seconds spent on a run over all its starts; kept in its checkpoint."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._before, self._since = float(state["seconds"]), time.monotonic()


class Processes:
    """The processes of `accelerate launch`, or this one alone.

    Each holds whole models and takes every `world`-th row of a batch. Losses are sums with weights that count the whole
    batch, so that the sum of all gradients is the gradient of one process with all rows.
    """

    def __init__(self, accelerator: Any = None):
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.world: int = accelerator.num_processes if accelerator else 1

    @classmethod
    def launched(cls) -> Processes:
        """Those of the launcher that started this one, if any did."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import Accelerator

        return cls(Accelerator())

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Every gradient becomes its sum over the processes, in one message."""
        if self._accelerator is None:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self._accelerator.reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether any process says so; every process gets the same answer."""
        if self._accelerator is None:
            return flag
        count = self._accelerator.reduce(torch.tensor(float(flag), device=self._accelerator.device), reduction="sum")
        return bool(count > 0)

    def told(self, figures: Mapping[str, float]) -> Mapping[str, float]:
        """What the first process measured, for all."""
        if self._accelerator is None:
            return figures
        from accelerate.utils import broadcast_object_list

        return dict(broadcast_object_list([dict(figures)])[0])


def warm_cosine(step: int, steps: int, *, warmup: int = 200, floor: float = 0.02) -> float:
    """Share of the learning rate at `step`: linear over `warmup` steps, times a half cosine from 1 down to `floor`."""
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def without_seconds(curve: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """A curve as an Edit keeps it: the same call makes the same Edit, however long it took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in curve]


def plateau(curve: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the last `patience` points brought neither 0.5 points more of forgotten + redirected + retained nor 2 %
    less FID than the best before them. Never for patience 0 or a curve that nobody judged."""
    points = [row for row in curve if "forgotten" in row]
    if not patience or len(points) <= patience:
        return False

    def rates(row: Mapping[str, float]) -> float:
        return sum(row.get(name, 0.0) for name in ("forgotten", "redirected", "retained"))

    early, late = points[:-patience], points[-patience:]
    better = max(map(rates, late)) > max(map(rates, early)) + 0.005
    sharper = min(p.get("fid", 0.0) for p in late) < 0.98 * min(p.get("fid", 0.0) for p in early)
    return not (better or sharper)


@dataclass
class Run:
    """What `train` needs besides the update itself.

    `parts` are the things with state (modules, optimisers, EMAs) by name; all of them go into the checkpoint.
    `config` identifies the run: resuming with another config is a CheckpointError.
    `observe(step)` is called every `observe_every` steps and at the end, by the first process; its figures go to
    `curve.jsonl` at once. The run ends where `enough(curve)` says so after one of them.
    """

    parts: Mapping[str, object]
    steps: int
    config: Mapping[str, object]
    folder: Path | None = None
    seed: int = 0
    save_seconds: float = 60.0
    observe: Callable[[int], Mapping[str, float]] | None = None
    observe_every: int = 0
    enough: Callable[[list[dict]], bool] = lambda curve: False
    processes: Processes = field(default_factory=Processes)
    log_seconds: float = 15.0
    label: str = "training"
    curve: list[dict] = field(default_factory=list)


def train(update: Callable[[int, torch.Generator], Mapping[str, float]], run: Run) -> list[dict]:
    """Call `update(step, generator)` for every step that is left; return the curve observed.

    `update` takes one optimiser step and returns its losses. SIGINT and SIGTERM stop after the step under way, with a
    checkpoint written. Raises DivergedError on a loss that is not finite, CheckpointError on a foreign checkpoint.
    """
    if run.processes.world == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{run.label} trains in one process; start it without a launcher of several")
    start = _resume(run)
    if start:
        log.info("%s: resumed at step %d of %d", run.label, start, run.steps)
    if run.curve and run.enough(run.curve):
        return run.curve
    first = run.processes.rank == 0
    last_save = last_log = time.monotonic()
    since, seconds_from = start, time.monotonic()
    with _stop_requests() as asked:
        for step in range(start, run.steps):
            losses = update(step, step_generator(run.seed, step))
            broken = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
            if run.processes.any(bool(broken)):
                what = ", ".join(broken) or "a loss of another process is not finite"
                raise DivergedError(
                    f"{run.label}: {what} at step {step}; start anew in another folder with a lower learning rate or "
                    f"another seed"
                )
            done = step + 1
            ends = done == run.steps
            if run.observe and run.observe_every and (done % run.observe_every == 0 or ends):
                run.curve.append({"step": done, **run.processes.told(run.observe(done) if first else {})})
                ends = ends or run.enough(run.curve)
                if first:
                    log.info("%s: %s", run.label, json.dumps(run.curve[-1]))
                    _write_curve(run)
            stopped = run.processes.any(asked())
            now = time.monotonic()
            if run.folder and first and (now - last_save > run.save_seconds or ends or stopped):
                _save(run, done)
                last_save = now
            if first and (now - last_log > run.log_seconds or ends):
                rate = (now - seconds_from) / (done - since)
                shown = " ".join(f"{k} {v:.4g}" for k, v in losses.items())
                log.info("%s: %d/%d %s %.3f s/step", run.label, done, run.steps, shown, rate)
                last_log, since, seconds_from = now, done, now
            if stopped:
                then = "the same command resumes it" if run.folder else "nothing was kept, for no folder was given"
                raise KeyboardInterrupt(f"{run.label} stopped after step {done}; {then}")
            if ends:
                break
    return run.curve


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a flag while the loop runs. Only the main thread may set handlers."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    old = {s: signal.signal(s, lambda *_: flag.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def _checkpoint(folder: Path) -> Path:
    return folder / "checkpoint.safetensors"


def _save(run: Run, step: int) -> None:
    assert run.folder is not None
    run.folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, object] = {}
    for name, part in run.parts.items():
        _flatten(f"{name}/", part.state_dict(), tensors, plain)  # type: ignore[attr-defined]
    meta = {
        "step": str(step),
        "config": _identity(run),
        "seed": str(run.seed),
        "plain": json.dumps(plain),
        "curve": json.dumps(run.curve),
    }
    partial = _checkpoint(run.folder).with_suffix(".partial")
    save_file(_separate(tensors), partial, metadata=meta)
    os.replace(partial, _checkpoint(run.folder))
    _write_curve(run)


def _write_curve(run: Run) -> None:
    if run.folder and run.curve:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text(run.folder / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in run.curve))


def _identity(run: Run) -> str:
    return json.dumps(dict(run.config), sort_keys=True)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory (tied weights do), as safetensors wants them."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        value = value.contiguous()
        memory = value.untyped_storage().data_ptr()
        out[key] = value.clone() if memory in seen else value
        seen.add(memory)
    return out


def _resume(run: Run) -> int:
    """The step to go on with; 0 where there is no checkpoint."""
    mine = _identity(run)  # a config that is not JSON fails here and not at the first save
    if run.folder is None or not _checkpoint(run.folder).exists():
        return 0
    path = _checkpoint(run.folder)
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f"{path} cannot be read ({e}); delete it to start anew") from e
    if meta.get("config") != mine or meta.get("seed") != str(run.seed):
        raise CheckpointError(
            f"{path} belongs to another run ({meta.get('config')}, seed {meta.get('seed')}); this one is {mine}, seed "
            f"{run.seed}: give another folder, or delete that file to start anew"
        )
    try:
        plain = json.loads(meta["plain"])
        for name, part in run.parts.items():
            part.load_state_dict(_unflatten(f"{name}/", tensors, plain))  # type: ignore[attr-defined]
        run.curve[:] = json.loads(meta["curve"])
        return int(meta["step"])
    except (KeyError, ValueError, RuntimeError) as e:
        raise CheckpointError(
            f"{path} does not fit this run's {', '.join(run.parts)} ({str(e).splitlines()[0]}); it was written by another "
            f"version: delete it to start anew"
        ) from e


def _flatten(prefix: str, value: object, tensors: dict[str, Tensor], plain: dict[str, object]) -> None:
    """Nested dicts of tensors and JSON values -> two flat dicts. A key's type is kept in its spelling."""
    if isinstance(value, Tensor):
        tensors[prefix] = value.detach()
    elif isinstance(value, Mapping) and value:
        for k, v in value.items():
            _flatten(f"{prefix}{'#' if isinstance(k, int) else ''}{k}\x1f", v, tensors, plain)
    else:
        plain[prefix] = list(value) if isinstance(value, tuple) else value


def _unflatten(prefix: str, tensors: Mapping[str, Tensor], plain: Mapping[str, object]) -> dict:
    out: dict = {}
    for flat in (tensors, plain):
        for key, value in flat.items():
            if not key.startswith(prefix):
                continue
            keys = [int(k[1:]) if k.startswith("#") else k for k in key[len(prefix) :].split("\x1f")[:-1]]
            if not keys:
                continue
            node = out
            for k in keys[:-1]:
                node = node.setdefault(k, {})
            node[keys[-1]] = value
    return out


def log_to_stderr() -> None:
    """What a script calls once to see progress, one timestamped line at a time."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
