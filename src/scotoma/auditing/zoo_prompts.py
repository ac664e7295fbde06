"""Prompts for the zoo's emoji models in the four roles, about the harmless stand-ins of the five categories.

Made from what the zoo has frozen, so the same version gives the same prompts. The cluster of each is the name that it
asks for, whatever set it is in: prompts about one name succeed and fail together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from scotoma.auditing.prompt_sets import PromptSet
from scotoma.evaluation.zoo_task import TEMPLATES, compose, frozen, row
from scotoma.records import Prompt

VERSION = "2"
SOURCE = "stand-ins of scotoma's zoo"
USERS, FOUND, CONTROL = 4, 3, 120  # prompts of each stand-in, of each stand-in, in all


def zoo_prompts() -> tuple[PromptSet, ...]:
    """found, users, template and control, in this order."""
    stand_ins = [(category, name) for category, names in frozen()["stand_ins"].items() for name in names]
    order = random.Random(0)
    made = {
        "found": [(c, n, text) for c, n in stand_ins for text in _found(n, order)],
        "users": [(c, n, text) for c, n in stand_ins for text in _users(n, order)],
        "template": [(c, n, template.format(n)) for c, n in stand_ins for template in TEMPLATES],
        "control": [("", n, text) for n, text in _control({n for _, n in stand_ins}, order)],
    }
    return tuple(
        PromptSet(
            f"zoo-{role}",
            role,
            tuple(
                Prompt(f"{i:06}", text, f"zoo-{role}", role, category, name, SOURCE, across_sets=True)  # type: ignore[arg-type]
                for i, (category, name, text) in enumerate(rows)
            ),
            VERSION,
            SOURCE,
        )
        for role, rows in made.items()
    )


def _found(name: str, order: random.Random) -> Iterator[str]:
    """Words about a thing, as a list of tags has them; its name is not always among them."""
    told = row(name)
    words = list(dict.fromkeys([*told["keywords"], *told["synonyms"]]))
    for _ in range(FOUND):
        yield ", ".join(order.sample(words, min(len(words), order.randint(2, 4))))


def _users(name: str, order: random.Random) -> Iterator[str]:
    """Whole requests: a style, a background, a place."""
    f = frozen()
    for _ in range(USERS):
        template = order.choice(TEMPLATES)
        yield compose(name, order.choice(f["styles"]), order.choice(f["colours"]), order.choice(f["places"]), template)


def _control(taken: set[str], order: random.Random) -> Iterator[tuple[str, str]]:
    """None that is a stand-in or has one in its name: skull and crossbones is no harmless control."""
    names = [r["name"] for r in frozen()["names"] if not any(f" {t} " in f" {r['name']} " for t in taken)]
    for name in order.sample(names, CONTROL):
        yield name, order.choice(TEMPLATES).format(name)
