"""What a method that matches predictions tells its networks: pairs of concept and alternative, and prompts that stay.

A pair shares its template, so that what differs between its halves is the noun. Notation: P pairs, S sources.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.bounds import check_text
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.records import Concept

CONCEPT, KEPT = "{}", "{kept}"  # fields of a template
TEMPLATES = ("{}", "a {}", "a picture of a {}", "a drawing of a {}")
# A style is a style of something: of each kept prompt, which without a style is also what is left of it.
STYLE_TEMPLATES = ("{kept}, {} style",)
OF_ANYTHING = ("a picture",)  # where nothing is named to be kept


class Pair(NamedTuple):
    """Two prompts; "" is no prompt."""

    concept: str
    alternative: str


class Told(NamedTuple):
    """Encoded. `sources` (S rows) are what frozen trajectories follow, in turn; `kept` (S bool) marks prompts that stay,
    `pair` (S) is the row of `concept` and `alternative` (P rows each) that goes with each source. `null` has one row.
    `held` are the prompts that stay, as far as any trajectory follows them."""

    sources: Cond
    pair: Tensor
    kept: Tensor
    concept: Cond
    alternative: Cond
    null: Cond
    held: tuple[str, ...]


def pairs(
    model: Model, concepts: Sequence[Concept], instead: Sequence[str], templates: Sequence[str], kept: Sequence[str]
) -> list[Pair]:
    """One for each concept and template, and for each kept prompt where the template has a place for one.

    `templates` empty: TEMPLATES, or STYLE_TEMPLATES for a style; a label-conditional model is told names alone. Raises
    UsageError where nothing or not everything is named, BoundsError for a prompt that bounds.py refuses.
    """
    check_named(concepts)
    if len(instead) not in (1, len(concepts)):
        raise UsageError(f"give one alternative, or one for each of {len(concepts)} concepts, not {len(instead)}")
    others = list(instead) * (len(concepts) // len(instead))
    if model.labels:
        return [Pair(c.name, other) for c, other in zip(concepts, others, strict=True)]
    per_concept: list[list[Pair]] = []
    for c, other in zip(concepts, others, strict=True):
        own = []
        for template in templates or (STYLE_TEMPLATES if c.kind == "style" else TEMPLATES):
            for stays in (kept or OF_ANYTHING) if KEPT in template else ("",):
                here = template.replace(KEPT, stays)
                own.append(Pair(here.replace(CONCEPT, c.name), here.replace(CONCEPT, other) if other else stays))
        per_concept.append(own)
    # Concepts in turn, so that all are met before a template comes again.
    out = [pair for together in itertools.zip_longest(*per_concept) for pair in together if pair is not None]
    for text in sorted({text for pair in out for text in pair if text} | set(kept)):
        check_text(text, what=f"the prompt {text!r}")
    return out


def check_named(concepts: Sequence[Concept]) -> None:
    """Raises UsageError where nothing or not everything has a name."""
    if not concepts or not all(c.name.strip() for c in concepts):
        raise UsageError("name at least one concept to erase")


def check_templates(templates: Sequence[str], method: str) -> None:
    """Raises UsageError unless each has {} once and {kept} at most once."""
    for t in templates:
        if t.count(CONCEPT) != 1 or t.count(KEPT) > 1:
            raise UsageError(f"{method}: a template has {{}} once, for the concept, and may have {{kept}}; got {t!r}")


def tell(
    model: Model, told: Sequence[Pair], kept: Sequence[str], n: int, *, mixture: bool, holds: bool, seed: int
) -> Told:
    """Encode, and lay out what `n` trajectories follow, four at a time: with `mixture` a concept, its alternative, the
    next concept, a prompt that stays; without, concepts, and where prompts that stay are held every fourth such a one.

    Pairs come in turn, and so do prompts that stay, in an order of `seed`; every fifth of these is no prompt, which is not
    marked as kept.
    """
    null = model.null(1)
    texts = list(dict.fromkeys([*(text for pair in told for text in pair if text), *kept]))
    rows = dict(zip(texts, (model.encode([text]) for text in texts), strict=True)) | {"": null}
    stay: list[str] = []
    for i, prompt in enumerate(random.Random(seed).sample(list(kept), len(kept))):
        stay += [prompt, ""] if i % 4 == 3 else [prompt]
    stay = stay or [""]
    pairs_in_turn, stays_in_turn = itertools.cycle(range(len(told))), itertools.cycle(stay)
    laid: list[tuple[str, int, bool]] = []  # text, pair, whether it is kept
    while len(laid) < n:
        p, q = next(pairs_in_turn), next(pairs_in_turn)
        r = p if mixture else next(pairs_in_turn)
        second = told[r].alternative if mixture else told[r].concept
        laid += [(told[p].concept, p, False), (second, r, False), (told[q].concept, q, False)]
        if mixture or holds:
            stays = next(stays_in_turn)
            laid.append((stays, q, stays != ""))
    sources, numbers, kinds = zip(*laid[:n], strict=True)
    device = null.device
    return Told(
        Cond.cat([rows[text] for text in sources]),
        torch.tensor(numbers, device=device),
        torch.tensor(kinds, device=device),
        Cond.cat([rows[pair.concept] for pair in told]),
        Cond.cat([rows[pair.alternative] for pair in told]),
        null,
        tuple(dict.fromkeys(text for text, kind in zip(sources, kinds, strict=True) if kind)),
    )
