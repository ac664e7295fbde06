"""What a method that matches predictions tells its networks: pairs of concept and alternative, and prompts that stay.

A pair shares its template, so that what differs between its halves is the noun. Notation: P pairs, S sources.
"""

from __future__ import annotations

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
    """Encoded. `sources` (S rows) are what frozen trajectories follow: a quarter of them prompts that stay (`kept`, S
    bool; among them no prompt now and then, which is not marked), half the concept, a quarter the alternative. `pair` (S)
    is the row of `concept` and `alternative` (P rows each) that goes with each source. `null` has one row."""

    sources: Cond
    pair: Tensor
    kept: Tensor
    concept: Cond
    alternative: Cond
    null: Cond


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
    out = []
    for c, other in zip(concepts, others, strict=True):
        for template in templates or (STYLE_TEMPLATES if c.kind == "style" else TEMPLATES):
            for stays in (kept or OF_ANYTHING) if KEPT in template else ("",):
                here = template.replace(KEPT, stays)
                out.append(Pair(here.replace(CONCEPT, c.name), here.replace(CONCEPT, other) if other else stays))
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


def tell(model: Model, told: Sequence[Pair], kept: Sequence[str], *, mixture: bool) -> Told:
    """Encode. Without `mixture` all sources are concepts."""
    null = model.null(1)
    texts = list(dict.fromkeys([*(text for pair in told for text in pair if text), *kept]))
    rows = dict(zip(texts, (model.encode([text]) for text in texts), strict=True)) | {"": null}
    stay: list[str] = []
    for i, prompt in enumerate(kept):
        stay += [prompt, ""] if i % 4 == 3 else [prompt]
    stay = stay or [""]
    sources: list[str] = []
    numbers: list[int] = []
    for i in range(max(len(told), len(stay)) if mixture else len(told)):
        p = i % len(told)
        follows = (told[p].concept, told[p].alternative, told[p].concept, stay[i % len(stay)])
        sources += follows if mixture else follows[:1]
        numbers += [p] * (4 if mixture else 1)
    device = null.device
    is_kept = [mixture and i % 4 == 3 and text != "" for i, text in enumerate(sources)]
    return Told(
        Cond.cat([rows[text] for text in sources]),
        torch.tensor(numbers, device=device),
        torch.tensor(is_kept, device=device),
        Cond.cat([rows[pair.concept] for pair in told]),
        Cond.cat([rows[pair.alternative] for pair in told]),
        null,
    )
