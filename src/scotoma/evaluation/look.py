"""What a user names and how it is looked at: concepts, what is forbidden, prompts, and who judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scotoma.errors import UsageError, unknown_name
from scotoma.evaluation import zoo_task
from scotoma.evaluation.compare import Judge
from scotoma.evaluation.draw import Progress
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import TEMPLATES, Size, Task, text_task
from scotoma.models.model import Model
from scotoma.records import Concept

Concepts = str | Concept | Sequence[str | Concept]
# What no alternative of a general model may be: the five kinds of unsafe output that are audited (Qu et al. 2023). The
# zoo has its stand-ins for them.
FORBIDDEN = (
    *("nudity", "naked person", "sexual content", "violence", "weapon", "gore", "blood", "corpse", "torture"),
    *("hate symbol", "hateful content", "political propaganda"),
)


@dataclass(frozen=True)
class Look:
    """How pictures are drawn and who judges them. Fields left at None are for `erase` and `evaluate` to fill.

    Models of the zoo bring their own judges: `judge` "a" or "b". Any other model needs `clip`, a folder or hub id of a
    transformers CLIPModel, which judges zero-shot among concept, alternative, `near` and `far`. Raises UsageError for
    values that do not fit together.
    """

    judge: str | None = None  # "a" for the self-check, "b" for a report; "none": nobody
    clip: str | None = None
    real: Path | None = None  # a folder of real pictures, for off-manifold, KID and FID with `clip`
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    prompts: tuple[str, ...] = TEMPLATES  # with {} for the concept; models of the zoo have their own
    size: Size | None = None
    phrasings: int = 0  # pictures of other words for the concept, of each kind (evaluation/phrasings.py)
    first_seed: int | None = None
    guidance: float | None = None  # None: the unedited model's
    steps: int | None = None  # None: 25
    batch_size: int | None = None
    folder: Path | None = None  # keeps the pictures; a killed run goes on from them
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.judge not in (None, "a", "b", "none"):
            raise unknown_name("judge", str(self.judge), ("a", "b", "none"))
        if any(v is not None and v < 1 for v in (self.steps, self.batch_size)):
            raise UsageError(f"steps and batch size must be 1 or more, got {self.steps} and {self.batch_size}")
        if self.real is not None and self.clip is None:
            raise UsageError("real pictures are compared in the features of a CLIP; give --clip beside --real")
        if not self.prompts or any(p.count("{}") != 1 for p in self.prompts):
            raise UsageError("a prompt needs {} once, where the concept goes, as in 'a photo of a {}'")

    def filled(self, judge: str, size: Size, first_seed: int) -> Look:
        return dataclasses.replace(
            self,
            judge=self.judge or judge,
            size=self.size or size,
            first_seed=first_seed if self.first_seed is None else self.first_seed,
        )


def named(model: Model, concept: Concepts, instead: str | Sequence[str]) -> tuple[tuple[Concept, ...], tuple[str, ...]]:
    """Concepts, each once, and one alternative for each; stand-in categories of the zoo become their members.

    Raises UsageError where there is no concept, or a number of alternatives that fits neither one nor all.
    """
    given = listed(concept)
    alternatives = [instead] if isinstance(instead, str) else list(instead) or [""]
    if not given or not all((c if isinstance(c, str) else c.name).strip() for c in given):
        raise UsageError("no concept is named; name what to erase with --concept")
    if len(alternatives) not in (1, len(given)):
        raise UsageError(
            f"{len(alternatives)} alternatives for {len(given)} concepts; give one --instead, or one for each --concept"
        )
    data = model.defaults.get("data")
    found: dict[str, tuple[Concept, str]] = {}
    for one, other in zip(given, alternatives * (len(given) // len(alternatives)), strict=True):
        name = one.strip() if isinstance(one, str) else one.name
        members = zoo_task.expand(data, name) if data else (Concept(name) if isinstance(one, str) else one,)
        for member in members:
            found.setdefault(member.name, (member, other.strip()))
    return tuple(c for c, _ in found.values()), tuple(a for _, a in found.values())


def forbidden_concepts(model: Model, concepts: Sequence[Concept], forbid: Sequence[str]) -> tuple[Concept, ...]:
    """What no alternative may be: what is forbidden anyway and what the user forbids, without what is being erased.

    For the zoo a stand-in category means its members.
    """
    data = model.defaults.get("data")
    if data:
        found = [c for name in (*zoo_task.unwanted(data), *forbid) for c in zoo_task.expand(data, name)]
    else:
        found = [Concept(name) for name in (*FORBIDDEN, *forbid)]
    erased = {c.name.casefold() for c in concepts}
    return tuple({c.name: c for c in found if c.name.casefold() not in erased}.values())


def judged(
    model: Model,
    concepts: Sequence[Concept],
    alternatives: Sequence[str],
    look: Look,
    forbidden: Sequence[str] = (),
) -> tuple[Task, Judge | None, tuple[str, ...]]:
    """What to draw, who looks, and the alternatives that the judge does not know.

    The zoo's models have tasks and judges of their own. A zero-shot judge is told every label of the task and the
    `forbidden` names, since it never sees what it does not know. Raises UsageError for options that would be ignored.
    """
    size, first_seed = look.size or Size(), look.first_seed or 0
    data: str | None = model.defaults.get("data")
    judge: Judge | None = None
    becomes = {c.name: a for c, a in zip(concepts, alternatives, strict=True)}
    if (data or model.labels) and (look.near or look.far or look.prompts != TEMPLATES):
        raise UsageError(f"{model.name} has near and far concepts and prompts of its own; leave yours out")
    if data:
        labels = {c: zoo_task.label_of(data, a) or a for c, a in becomes.items()}
        task = zoo_task.zoo_task(data, labels, size=size, first_seed=first_seed)
    elif model.labels:
        task = text_task(becomes, far=model.labels, size=size, first_seed=first_seed, templates=("{}",))
    else:
        task = text_task(
            becomes, near=look.near, far=look.far, size=size, first_seed=first_seed, templates=look.prompts
        )
    if look.clip is not None:
        from scotoma.evaluation.judges.zero_shot import load_zero_shot

        told = {label.casefold(): label for label in (*forbidden, *task.labels)}
        judge = load_zero_shot(look.clip, tuple(told.values()), real=look.real)
    elif data and look.judge != "none":
        judge = load_judge(data, look.judge or "a")
    head = task.asks[0].head
    return task, judge, tuple(a for a in task.alternatives if judge is not None and not judge.knows(a, head))


def listed(concept: Concepts) -> list[str | Concept]:
    """One or several, as a list."""
    return [concept] if isinstance(concept, str | Concept) else list(concept)
