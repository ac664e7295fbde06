"""What the parts of this benchmark share: items of the demonstration with their labels, and where results go."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.schema import Item
from scotoma.dialogue.views import items as views
from scotoma.records import Figure
from scotoma.statistics.clustered import clustered_rate

HERE = Path(__file__).parent
GUIDELINE = "commitments"


def labelled_items(dialogues: int, seed: int, templates: str) -> list[Item]:
    """Items of generated dialogues whose template gives a label, without exact and near duplicates. "train" or "gold"."""
    made = generate(dialogues, seed, "gold" if templates == "gold" else "train")
    return list(without_duplicates([item for item in views(made) if item.given]).kept)


def share(hits: Sequence[bool], items: Sequence[Item], *, undecided: int = 0, note: str = "") -> Figure:
    """A share of items, with an interval over dialogues."""
    found = clustered_rate(list(hits), [item.dialogue for item in items])
    return Figure(found.value, len(hits), found.low, found.high, undecided, interval="clustered 95%", note=note)


def results_of(smoke: bool) -> Path:
    """The folder whose results/ is written: this one, or with `smoke` a temporary one."""
    return Path(tempfile.mkdtemp(prefix="moderation-")) if smoke else HERE


def parser(text: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--smoke", action="store_true", help="little of everything, results into a temporary folder")
    return made
