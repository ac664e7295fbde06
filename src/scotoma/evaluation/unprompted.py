"""What a model draws when nobody asks for anything, before and after an edit, as a judge sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scotoma.evaluation.compare import Judge
from scotoma.evaluation.figures import rate
from scotoma.models.model import Model
from scotoma.models.sample import sample
from scotoma.records import Figure


def unprompted(
    before: Model,
    after: Model,
    judge: Judge,
    concepts: Sequence[str],
    *,
    pictures: int,
    first_seed: int,
    head: str = "name",
) -> dict[str, Figure]:
    """Figures of `pictures` unguided pictures of no prompt, the same seeds before and after, by the labels of `head`:

    unprompted_tv: total variation between the two histograms of labels; unprompted_tv_by_chance: between two halves of
    the unedited model's pictures, which is what chance alone makes of that many (for half as many); unprompted_changed:
    pictures whose label changed; unprompted_concept: pictures that show the concept after, _unedited: before.
    """
    seeds = list(range(first_seed, first_seed + pictures))
    prompts = [""] * pictures if not before.labels else [before.pipeline.null] * pictures
    seen = {}
    for name, model in (("before", before), ("after", after)):
        drawn = sample(model, prompts, seeds, guidance=1.0)
        seen[name] = list(judge.sees(drawn, [head] * pictures).labels)
    halves = seen["before"][: pictures // 2], seen["before"][pictures // 2 :]
    changed = [None if None in (b, a) else b != a for b, a in zip(seen["before"], seen["after"], strict=True)]
    return {
        "unprompted_tv": Figure(total_variation(seen["before"], seen["after"]), pictures, interval="none"),
        "unprompted_tv_by_chance": Figure(total_variation(*halves), pictures // 2, interval="none"),
        "unprompted_changed": rate(changed, "nothing was drawn"),
        "unprompted_concept": rate(_shows(seen["after"], concepts), "nothing was drawn"),
        "unprompted_concept_unedited": rate(_shows(seen["before"], concepts), "nothing was drawn"),
    }


def total_variation(a: Sequence[str | None], b: Sequence[str | None]) -> float:
    """Half the sum of absolute differences of the shares of each label, undecided among them; in [0, 1]."""
    first, second = Counter(a), Counter(b)
    return 0.5 * float(np.sum([abs(first[k] / len(a) - second[k] / len(b)) for k in first | second]))


def _shows(labels: Sequence[str | None], concepts: Sequence[str]) -> list[bool | None]:
    return [None if label is None else label in concepts for label in labels]
