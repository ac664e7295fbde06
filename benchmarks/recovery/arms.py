"""What benchmarks/recovery probes: the trainings of benchmarks/methods and benchmarks/sfd_text, made here where they are missing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from keeping import code

from scotoma import api
from scotoma.models.folders import zoo_names
from scotoma.models.model import Model

BENCHMARKS = Path(__file__).parents[1]
CACHE = BENCHMARKS.parent / "build/benchmarks/recovery"
METHODS = ("uce", "esd", "all_but_one", "safegen", "stack")
MORE = ("concept_ablation",)  # with --full
CODE = code("auditing", "models", "evaluation", "detectors")  # that this process runs, whatever becomes of the files


def of(folder: str) -> ModuleType:
    """arms.py of another benchmark, under a name of its own."""
    name = f"{folder}_arms"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / folder / "arms.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def tasks() -> dict[str, Any]:
    """Both are control stand-ins: dagger has a near neighbour that stays (kitchen knife), syringe has none so near."""
    return {task.concept: task for task in of("methods").TASKS if task.label in ("near", "far")}


def models(concept: str, unedited: Model, methods: Sequence[str], seed: int = 0) -> dict[str, Model]:
    """Every model that is probed for a concept. The student is left out while the zoo has no one-call model to begin with."""
    task = tasks()[concept]
    made = {"unedited": unedited, "control": api.load("zoo:emoji-control")}
    for name in methods:
        print(f"{concept}: {name}", file=sys.stderr, flush=True)
        made[name] = of("methods").make(name, unedited, task, seed).model
    if "emoji-1step" in zoo_names():
        print(f"{concept}: sfd", file=sys.stderr, flush=True)
        text = of("sfd_text")
        erasure = text.Erasure("object", concept, task.instead)
        made["sfd"] = text.train(unedited, erasure, text.CONFIG, seed, CACHE.parent / "sfd_text").edit.apply(unedited)
    return made


def place(what: str, key: Sequence[Any]) -> Path:
    """Where records are kept: by what they are of, the code that makes them, and `key`."""
    return CACHE / f"{what}-{hashlib.sha256(json.dumps([CODE, *key], sort_keys=True).encode()).hexdigest()[:16]}"
