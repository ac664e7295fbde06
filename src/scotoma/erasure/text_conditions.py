"""What a training of a text-to-image model draws from: prompts that stay, and prompts that become others.

A prompt is forgotten in one of two ways. By a template, it becomes the same prompt with the alternative in the concept's
place. By a product of the user's file, a subject and one keyword ("a picture, dagger") become the bare subject, from
whose guidance all keywords are taken away as a negative prompt (the second way of the authors' code,
SD/training/dataset.py).

    subjects: [a picture, an emoji]
    keywords: [bomb, dagger]

Without `keywords` they are the names of the concepts, so that one file serves every category.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scotoma.bounds import check_concepts, check_text
from scotoma.erasure.conditions import Conditions
from scotoma.erasure.prompts import pairs
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.records import Concept

EXAMPLE = "stand-ins"  # the products file that ships
SHIPPED = Path(__file__).with_name("products.yaml")
TOGETHER = 64  # prompts that are encoded at once
STYLED = 512  # kept prompts, at most, of which a style is forgotten


class Forgotten(NamedTuple):
    """A prompt, what it becomes, and what the teacher is guided away from; "" is no prompt."""

    prompt: str
    becomes: str
    negative: str = ""


class Prompts(NamedTuple):
    """All prompts of a run."""

    kept: tuple[str, ...]
    forgotten: tuple[Forgotten, ...] = ()

    def figures(self) -> dict[str, Any]:
        """How many there are, and a hash of all."""
        found = json.dumps([self.kept, self.forgotten])
        return {
            "kept": len(self.kept),
            "forgotten": len(self.forgotten),
            "negative": len({f.negative for f in self.forgotten if f.negative}),
            "sha256": hashlib.sha256(found.encode()).hexdigest(),
        }

    def distilling(self) -> Prompts:
        """The same without forgetting: everything is kept."""
        return Prompts((*self.kept, *(f.prompt for f in self.forgotten)))

    def check(self) -> Prompts:
        """Raises BoundsError for a prompt that bounds.py refuses, alone or with the keywords that are taken away from it."""
        texts = {text for f in self.forgotten for text in f} | {f"{f.becomes}, {f.negative}" for f in self.forgotten}
        for text in sorted({*self.kept, *texts} - {""}):
            check_text(text, what=f"the prompt {text!r}")
        return self


def forgotten_prompts(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    *,
    templates: Sequence[str],
    products: str,
    kept: Sequence[str],
) -> list[Forgotten]:
    """Of all concepts: by `templates`, and by the file `products` (or EXAMPLE). Where there is a file, templates count only
    if some are given, and then what they become is guided away from its keywords as well. `kept` are the prompts that a
    style is forgotten in; of many, STYLED are taken.

    Raises UsageError for a file that cannot be read and for an alternative that nothing would become, BoundsError.
    """
    by_products: list[Forgotten] = []
    if products:
        subjects, keywords = read_products(products)
        for subject in subjects:
            check_concepts(concepts, subject)
        by_products = product_prompts(subjects, keywords or [c.name for c in concepts])
        if not templates and any(instead):
            raise UsageError(
                f"sfd: with products a prompt becomes its bare subject, and {' and '.join(filter(None, instead))} is not used; "
                "leave --instead out, or give templates beside the products"
            )
        if not templates:
            return by_products
    negative = by_products[0].negative if by_products else ""
    styled = kept if len(kept) <= STYLED else random.Random(0).sample(list(kept), STYLED)
    return [*(Forgotten(*pair, negative) for pair in pairs(model, concepts, instead, templates, styled)), *by_products]


def product_prompts(subjects: Sequence[str], keywords: Sequence[str]) -> list[Forgotten]:
    """Each subject with each keyword before and after it, in a fixed random order, so that any few of them are of many
    subjects and keywords. The authors' code draws the same prompts with equal probability."""
    negative = ", ".join(keywords)
    found = [
        Forgotten(prompt, subject, negative)
        for subject in subjects
        for keyword in keywords
        for prompt in (f"{subject}, {keyword}", f"{keyword}, {subject}")
    ]
    return random.Random(0).sample(found, len(found))


def read_products(source: str) -> tuple[list[str], list[str]]:
    """Subjects and keywords, the latter perhaps empty, of a YAML file or of EXAMPLE. Raises UsageError."""
    import yaml

    path = SHIPPED if source == EXAMPLE else Path(source)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(f"products {source} cannot be read ({e.strerror}); give a YAML file, or {EXAMPLE}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"products {source} is not YAML ({' '.join(str(e).split())}); correct it") from e
    if not isinstance(content, dict) or not {"subjects"} <= content.keys() <= {"subjects", "keywords"}:
        raise UsageError(f"products {source} must hold subjects, and may hold keywords; each is a list of texts")
    lists = []
    for name in ("subjects", "keywords"):
        words = content.get(name, [])
        if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
            raise UsageError(f"products {source}: {name} must be a list of texts, got {words!r}")
        lists.append(list(dict.fromkeys(w.strip() for w in words)))
    if not lists[0]:
        raise UsageError(f"products {source} names no subject; name at least one")
    return lists[0], lists[1]


def read_prompts(path: str) -> tuple[str, ...]:
    """One a line, empty lines left out. Raises UsageError for a file that cannot be read or holds none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise UsageError(
            f"retain_file {path} cannot be read ({reason}); give a text file with one prompt a line"
        ) from e
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise UsageError(f"retain_file {path} holds no prompt; give a text file with one a line")
    return found


def text_conditions(model: Model, prompts: Prompts, *, mixture: bool = False) -> Conditions:
    """Every prompt encoded once. With `mixture` a forgotten prompt becomes any of the kept ones, evenly."""
    texts = [*prompts.kept, *(text for f in prompts.forgotten for text in f if text)]
    rows = encoded(model, list(dict.fromkeys(texts)))
    null = model.null(1)
    rows[""] = null
    kept = Cond.cat([rows[text] for text in prompts.kept])
    if not prompts.forgotten:
        return Conditions(kept, null=null)
    return Conditions(
        kept,
        Cond.cat([rows[f.prompt] for f in prompts.forgotten]),
        tuple(kept if mixture else rows[f.becomes] for f in prompts.forgotten),
        null,
        tuple(rows[f.negative] for f in prompts.forgotten),
    )


def encoded(model: Model, texts: Sequence[str]) -> dict[str, Cond]:
    """Each text to its condition of one row, TOGETHER at a time."""
    found: dict[str, Cond] = {}
    for start in range(0, len(texts), TOGETHER):
        some = texts[start : start + TOGETHER]
        together = model.encode(some)
        found |= {text: together[i] for i, text in enumerate(some)}
    return found
