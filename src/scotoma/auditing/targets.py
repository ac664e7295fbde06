"""What an audit is pointed at: anything that makes pictures of prompts, behind one contract.

    zoo:emoji                          a zoo name, a diffusers folder, or a hub id
    zoo:emoji+dagger.safetensors       the same with Edits applied, in order
    pictures:FOLDER                    pictures that are there already, with what came with them as their prompts
    https://host/v1#MODEL              an endpoint that speaks the OpenAI images API (auditing/endpoint.py)

NAME= before any of them names it in records and report.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scotoma.auditing.prompt_sets import PromptSet, check_name, name_from
from scotoma.bounds import check_text
from scotoma.detectors.contract import Unreadable
from scotoma.detectors.image.reading import read as read_picture
from scotoma.errors import DataError, UsageError
from scotoma.evaluation.draw import identify
from scotoma.models.model import Model
from scotoma.models.sample import STEPS, at_once, sample
from scotoma.models.student import one_step
from scotoma.records import Prompt

LISTED = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Nothing:
    """In the place of a picture: a filter of the generator withheld it, or nothing usable came."""

    outcome: Literal["filtered", "failed"]
    reason: str


@dataclass(frozen=True)
class Noted:
    """A picture with something that its record has to say of how it was drawn."""

    picture: np.ndarray
    note: str


Drawn = np.ndarray | Noted | Nothing  # uint8 H W 3
Draw = Callable[[Sequence[Prompt], Sequence[int]], Sequence[Drawn]]


@dataclass(frozen=True)
class Target:
    """`draw(prompts, seeds)` gives a picture, plain or Noted, or Nothing for each pair, in order. `batch` pairs are
    drawn at once, always in the same company. `identity` is a hash of all that the pictures are a function of beside
    prompt and seed; `facts` is what a report says of it. `own` are prompts that belong to this target alone (pictures
    that are there already). `labels` are all that it can be told, where it is not told texts."""

    name: str
    kind: Literal["model", "pictures", "endpoint"]
    identity: str
    draw: Draw
    batch: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    own: PromptSet | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("target", self.name)


def split_name(text: str) -> tuple[str, str]:
    """NAME=SPEC, or a name made from SPEC."""
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._+-]*)=(.+)", text)
    if found:
        return found[1], found[2]
    parts = text.split("+") if not re.match(r"https?://", text) else [text]
    stems = [re.sub(r"^(zoo|pictures):|^https?://", "", p).rstrip("/") for p in parts]
    named = "-".join(re.sub(r"\.safetensors$", "", s).rsplit("#", 1)[-1].rsplit("/", 1)[-1] for s in stems)
    return name_from(named, "target"), text


def of_model(
    name: str,
    model: Model,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Target:
    """A loaded generator; a one-call student is drawn as it is made to, whatever `guidance` and `steps` say.

    What is measured is the raw generator: a safety checker in its folder is not asked.
    """
    student = one_step(model.scheduler)
    w = 1.0 if student else model.guidance if guidance is None else guidance
    n = 1 if student else STEPS if steps is None else steps
    batch = at_once(model) if batch_size is None else batch_size
    if batch < 1:
        raise UsageError(f"the batch size is {batch}; give 1 or more")

    def draw(prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Drawn]:
        return list(sample(model, [p.text for p in prompts], seeds, guidance=w, steps=n, batch_size=batch))

    made_from = f"{identify(model)} {w} {n} {batch}"
    told = {"model": model.hash(), "source": model.source, "guidance": w, "steps": n, **(facts or {})}
    identity = hashlib.sha256(made_from.encode()).hexdigest()
    return Target(name, "model", identity, draw, batch, told, labels=tuple(model.labels))


def of_pictures(name: str, folder: Path) -> Target:
    """Pictures of a folder, in the order of their names. The prompt of each is that of metadata.csv (file_name,
    prompt), or of a text file of its name beside it, or "".

    Raises DataError for a folder without pictures, BoundsError for a caption that bounds.py refuses: such a folder is
    not audited, since an audit copies pictures.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in LISTED and p.is_file())
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(LISTED)}); check the path")
    told = _captions(folder)
    hashes = hashlib.sha256()
    prompts, place = [], {}
    for i, path in enumerate(files):
        beside, own = path.with_suffix(".txt"), path.relative_to(folder).as_posix()
        text = told.get(own, "")
        try:
            hashes.update(hashlib.sha256(path.read_bytes()).digest())
            if not text and beside.is_file():
                text = beside.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"{path} or its caption cannot be read ({e}); take it out of the folder") from e
        check_text(text, what=f"the caption of {path}")
        prompts.append(Prompt(f"{i:06}", text, name, "pictures", source=own))
        place[prompts[-1].id] = path
    own_set = PromptSet(name, "pictures", tuple(prompts), source=folder.name)

    def draw(prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Drawn]:
        seen = [read_picture(place[p.id]) for p in prompts]
        return [Nothing("failed", s.reason) if isinstance(s, Unreadable) else s for s in seen]

    facts = {"source": folder.name, "pictures": len(files)}
    return Target(name, "pictures", hashes.hexdigest(), draw, 64, facts, own_set)


def _captions(folder: Path) -> dict[str, str]:
    table = folder / "metadata.csv"
    if not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return {row["file_name"]: (row.get("prompt") or row.get("text") or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as e:
        raise DataError(f"{table} cannot be read ({e}); it needs the columns file_name and prompt") from e
