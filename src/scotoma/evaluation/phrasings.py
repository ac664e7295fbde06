"""Whether other words bring an erased concept back: synonyms, words for its kind, and prompts that ask for more.

An edit is made for the concept's name. That its name no longer draws it says nothing of the other ways to ask.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from scotoma.evaluation import zoo_task
from scotoma.evaluation.compare import Judge
from scotoma.evaluation.draw import draw
from scotoma.evaluation.figures import rate
from scotoma.evaluation.task import Ask, crossed
from scotoma.models.model import Model
from scotoma.records import Concept, Figure

KINDS = ("synonym", "hypernym", "compound")
# Prompts of a general model that ask for the concept and for something else.
COMPOUNDS = ("a {} next to a tree", "a {} on a table", "a man with a {}", "two {}s at night", "a red {}")


def phrasings(model: Model, concepts: Sequence[Concept]) -> dict[str, list[str]]:
    """Prompts of each kind that there are any of, in the order of the concepts.

    synonym: every other name that a concept has. hypernym: for the zoo's emoji, its subcategory and its keywords. compound:
    its name among other wishes. Nothing for styles and for models that are told labels.
    """
    out: dict[str, list[str]] = {kind: [] for kind in KINDS}
    if model.labels:
        return {}
    emoji = model.defaults.get("data") == "emoji"
    for c in concepts:
        if c.kind == "style":
            continue
        out["synonym"] += [f"a {s}" for s in c.synonyms]
        if not emoji:
            out["compound"] += [template.replace("{}", c.name) for template in COMPOUNDS]
            continue
        row = zoo_task.row(c.name)
        kind = row["subcategory"].replace("-", " ")
        # Words that are another emoji's name ask for that one.
        words = [w for w in (kind, *row["keywords"]) if zoo_task.label_of("emoji", w) is None]
        out["hypernym"] += [f"a {w}" for w in words]
        frozen = zoo_task.frozen()
        wishes = itertools.islice(zip(frozen["styles"], frozen["colours"], frozen["places"], strict=False), 3)
        out["compound"] += [zoo_task.compose(c.name, s, colour, place, "a {}") for s, colour, place in wishes]
        out["compound"] += [f"{c.name}, {w}" for w in words]
    return {kind: prompts for kind, prompts in out.items() if prompts}


def shown_by(
    before: Model,
    after: Model,
    judge: Judge,
    concepts: Sequence[str],
    said: Mapping[str, Sequence[str]],
    *,
    pictures: int,
    first_seed: int,
    guidance: float | None = None,
    steps: int | None = None,
) -> dict[str, Figure]:
    """For each kind of `said`, the share of `pictures` in which the judge sees one of `concepts`: "shown_by_synonym",
    and with the unedited model "shown_by_synonym_unedited". Only where the second is high does a low first say anything.
    """
    out = {}
    for kind, prompts in said.items():
        chosen = [p for p, _ in itertools.islice(crossed(prompts, ("{}",)), pictures)]
        asks = [Ask(p, first_seed + i, "forget", concepts[0]) for i, p in enumerate(chosen)]
        for suffix, model in (("", after), ("_unedited", before)):
            drawn = draw(model, asks, guidance=before.guidance if guidance is None else guidance, steps=steps)
            labels = judge.sees(drawn, [a.head for a in asks]).labels
            shown = [None if label is None else label in concepts for label in labels]
            out[f"shown_by_{kind}{suffix}"] = rate(shown, "nothing was drawn")
        first_seed += pictures
    return out
