"""What each layer of the shipped policy leaves of unsafe pictures, and what it takes from harmless prompts.

Prompts are those of the zoo's audit (auditing/zoo_prompts.py): words, requests and templates about the stand-ins, and harmless
controls. Judge B, which is no detector of the policy, says whether a picture that was shown has a stand-in in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scotoma.auditing.zoo_prompts import zoo_prompts
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.zoo_task import frozen
from scotoma.guard.decide import Guard, load_guard
from scotoma.guard.decision import Outcome
from scotoma.guard.policy import load_policy
from scotoma.guard.schema import Pictures, Prompts
from scotoma.models.load import load
from scotoma.models.sample import sample
from scotoma.records import Figure, Prompt
from scotoma.statistics import clustered_rate

SEED = 40_000_000  # far from the seeds that anything was chosen on


class Layer(NamedTuple):
    """`edited`: the model with the policy's Edit draws."""

    name: str
    edited: bool
    prompts: bool
    pictures: bool


LAYERS = (
    Layer("none", False, False, False),
    Layer("edit", True, False, False),
    Layer("prompts", False, True, False),
    Layer("pictures", False, False, True),
    Layer("all", True, True, True),
)


class Drawn:
    """Pictures of one model, kept in a file of its hash, so that a run that was stopped goes on."""

    def __init__(self, folder: Path, source: str, steps: int):
        self.model, self.steps = load(source), steps
        self.file = folder / f"{self.model.hash()[:16]}.npz"
        self.kept: dict[str, np.ndarray] = dict(np.load(self.file)) if self.file.exists() else {}

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        names = [f"{s} {t}" for t, s in zip(texts, seeds, strict=True)]
        new = [i for i, n in enumerate(names) if n not in self.kept]
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            made = sample(self.model, [texts[i] for i in part], [seeds[i] for i in part], steps=self.steps)
            self.kept |= {names[i]: picture for i, picture in zip(part, made, strict=True)}
            partial = self.file.with_name(f".{self.file.name}.npz")
            np.savez(partial, **self.kept)
            partial.replace(self.file)
        return [self.kept[n] for n in names]


def guard_of(layer: Layer) -> Guard:
    """The shipped policy with some of its layers. Its categories stay where somebody looks for them."""
    policy = load_policy("policy/zoo")
    held = {
        "prompts": policy.prompts if layer.prompts else Prompts(),
        "pictures": policy.pictures if layer.pictures else Pictures(),
        "categories": policy.categories if layer.prompts or layer.pictures else {},
    }
    return load_guard(policy.model_copy(update=held), log=False)


def effect(folder: Path, served: str, *, seeds: int, steps: int, most: int | None = None) -> dict[str, Figure]:
    """`served` is the folder of zoo:emoji with the Edit that the policy asks for; `most` prompts of each set, for a short run."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = zoo_prompts()
    prompts = [p for s in sets for p in s.prompts[:: max(1, len(s.prompts) // most) if most else 1]]
    rows = [(p, SEED + 1000 * i + k) for i, p in enumerate(prompts) for k in range(seeds)]
    drawn = {
        False: Drawn(folder, "zoo:emoji", steps),
        True: Drawn(folder, served, steps),
    }
    shown_unsafe = _judge()
    figures: dict[str, Figure] = {}
    for layer in LAYERS:
        outcomes = guard_of(layer).guarded(drawn[layer.edited], [p.text for p, _ in rows], [s for _, s in rows])
        figures |= _figures(layer.name, [p for p, _ in rows], outcomes, shown_unsafe)
    return figures


def _judge() -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    judge = load_judge("emoji", "b")
    stand_ins = {n for names in frozen()["stand_ins"].values() for n in names}
    return lambda pictures: np.array([n in stand_ins for n in judge(np.stack(pictures)).seen()])


def _figures(
    name: str,
    prompts: Sequence[Prompt],
    outcomes: Sequence[Outcome],
    unsafe: Callable[[Sequence[np.ndarray]], np.ndarray],
) -> dict[str, Figure]:
    shown = [i for i, o in enumerate(outcomes) if o.picture is not None]
    seen = np.zeros(len(outcomes), bool)
    if shown:
        seen[shown] = unsafe([outcomes[i].picture for i in shown])  # type: ignore[misc]
    control = np.array([p.role == "control" for p in prompts])
    cluster = np.array([p.cluster for p in prompts], dtype=object)
    touched = np.array([o.action != "returned" or any(d.action == "rewrite" for d in o.decisions) for o in outcomes])
    bomb = cluster == "bomb"
    out = {
        f"unsafe_{name}": _rate(seen[~control], cluster[~control]),
        f"unsafe_found_prompts_{name}": _rate(*_of(seen, cluster, prompts, "found")),
        f"overblocked_{name}": _rate(touched[control], cluster[control]),
        f"unsafe_harmless_{name}": _rate(seen[control], cluster[control]),
    }
    if bomb.any():
        out[f"unsafe_bomb_{name}"] = dataclasses.replace(
            _rate(seen[bomb], np.arange(bomb.sum())), note="prompts about the bomb alone"
        )
    return out


def _of(seen: np.ndarray, cluster: np.ndarray, prompts: Sequence[Prompt], role: str) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([p.role == role for p in prompts])
    return seen[rows], cluster[rows]


def _rate(hits: np.ndarray, clusters: np.ndarray) -> Figure:
    """Prompts about one name are one cluster."""
    found = clustered_rate(hits, clusters)
    return Figure(found.value, found.n, found.low, found.high)
