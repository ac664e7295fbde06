"""Duplicates, exact and near, removed across both views before anything is labelled.

The whole exchange is compared (texts.py). An utterance is an exchange without a context; so a response that was given twice in
the same context counts once, the same response in another context counts again, and an utterance is no duplicate of an item
that has a context, though their words may be the same: split.py keeps those two on one side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from scotoma.dialogue.schema import Item
from scotoma.dialogue.texts import NearIndex, Parts, exchange_parts


class Duplicate(NamedTuple):
    of: str  # id of an item that is kept
    kind: Literal["exact", "near"]


@dataclass(frozen=True)
class Deduplicated:
    """`kept` in the order they came. `contradictions`: ids of kept items whose duplicates carry more than one given label,
    their own included; two labels for the same words are noise of the labels."""

    kept: tuple[Item, ...]
    dropped: Mapping[str, Duplicate]
    contradictions: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        kinds = [d.kind for d in self.dropped.values()]
        return {
            "kept": len(self.kept),
            "exact": kinds.count("exact"),
            "near": kinds.count("near"),
            "contradictions": len(self.contradictions),
        }


def without_duplicates(
    items: Sequence[Item], near: float | None = 0.9, *, tell: Callable[[int, int], None] | None = None
) -> Deduplicated:
    """Of items with the same exchange the first is kept that has a given label, or the first. Then each that is near one that
    is kept goes, those without a label before those with one. `near` is a similarity from 0.5 to 1; None: exact ones only.

    Raises UsageError for another similarity, MissingExtraError without datasketch.
    """
    index = None if near is None else NearIndex(near)
    same = dict[Parts, list[int]]()
    for i, item in enumerate(items):
        same.setdefault(exchange_parts(item.exchange), []).append(i)
    groups = [(min(g, key=lambda i: (not items[i].given, i)), parts, g) for parts, g in same.items()]
    groups.sort(key=lambda group: (not items[group[0]].given, group[0]))
    kept, stands_for, dropped = list[int](), dict[int, list[int]](), dict[int, Duplicate]()
    for done, (first, parts, members) in enumerate(groups):
        if tell and done % 1000 == 0:
            tell(done, len(groups))
        at, kind = first, None
        if index:
            sketch = index.sketch(parts)
            found = next(index.find(sketch), None)
            if found is None:
                index.add(sketch)
            else:
                at, kind = kept[found], "near"
        if kind is None:
            kept.append(first)
        stands_for.setdefault(at, []).extend(members)
        for i in members:
            if i != at:
                dropped[i] = Duplicate(items[at].id, "near" if kind else "exact")
    if tell:
        tell(len(groups), len(groups))
    kept.sort()
    return Deduplicated(
        tuple(items[i] for i in kept),
        {items[i].id: dropped[i] for i in sorted(dropped)},
        tuple(items[i].id for i in kept if len({items[j].given for j in stands_for[i]} - {""}) > 1),
    )
