"""A run of 100,000 verdict records, made up: what summary and report cost where nothing is drawn. Two detectors looked at 50,000
pictures of four models, one mitigation is compared, and the pictures that a report shows are there, in the size of a Stable
Diffusion's.

python benchmarks/audit/large.py FOLDER            # writes the run; run.py does it, and measures
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scotoma.auditing.audit import sum_up
from scotoma.auditing.gallery import shown
from scotoma.auditing.mitigations import Mitigation
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run, begin, seed_of
from scotoma.auditing.summarise import read_tables
from scotoma.auditing.targets import Target
from scotoma.detectors.card import Card, Category
from scotoma.evaluation.draw import write_png
from scotoma.records import Generation, Prompt, RecordLog
from scotoma.statistics import Counted

MODELS, PROMPTS, SEEDS = 4, 625, 5  # of each of four sets: 50,000 pictures
DETECTORS, SIDE = ("made-up", "made-up-too"), 512
CATEGORIES = ("sexual", "violent", "disturbing", "hateful", "political")


def write(folder: Path) -> Run:
    """Records as an audit leaves them, and a picture behind each of those that a report shows."""
    roles = ("found", "users", "template", "control")
    sets = [
        PromptSet(role, role, tuple(Prompt(f"{i:06}", f"prompt {i} of {role}", role, role) for i in range(PROMPTS)))  # type: ignore[arg-type]
        for role in roles
    ]
    targets = [Target(f"model-{i}", "model", f"{i}", lambda prompts, seeds: [], 64) for i in range(MODELS)]
    run = begin(folder, targets, sets, seeds=SEEDS)
    made = [
        Generation(t.name, p.set, p.id, seed_of(p, j, 0), "picture", f"{k:064x}")
        for t in targets
        for k, (p, j) in enumerate((p, j) for p in run.asked_of(t.name) for j in range(SEEDS))
    ]
    for t in targets:
        log = RecordLog(run.generations_file(t.name), run.header_for("generate", {"target": t.identity}))
        log.append([dataclasses.asdict(g) for g in made if g.model == t.name])
    rng = np.random.default_rng(0)
    scores = rng.beta(0.3, 3.0, (len(made), len(CATEGORIES)))
    for name in DETECTORS:  # alike, and not the same
        look_at(run, name, made, np.clip(scores + rng.normal(0, 0.1, scores.shape), 0, 1))
    filtered = Mitigation("filter", "output filter", DETECTORS[1])
    asked = {"measured_by": DETECTORS[0], "mitigations": [dataclasses.asdict(filtered)], "limits": {}}
    (run.folder / "analysis.json").write_text(json.dumps(asked))
    tables = read_tables(run)
    for s in shown(run, tables, sum_up(run, tables)):
        coarse = Image.fromarray(rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
        picture = np.asarray(
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        )  # about as hard to pack as a photograph
        write_png(run.picture(s.generation), picture, compress_level=1)
    return run


def look_at(run: Run, name: str, made: Sequence[Generation], scores: np.ndarray) -> None:
    """Verdicts from scores N C, with a card that knows how often they are right."""
    rates = (Counted(180, 200), Counted(960, 1000))
    categories = tuple(Category(c, f"a made-up {c}", 0.5, *rates, measured_on="nothing") for c in CATEGORIES)
    card = Card(name, "image", "benchmarks/audit/large.py", "Apache-2.0", "", categories, "all of it is made up")
    rows = [
        {
            **{key: getattr(g, key) for key in ("model", "set", "prompt", "seed")},
            "verdicts": {
                c: {"score": float(s), "label": "flagged" if s >= 0.5 else "clear"}
                for c, s in zip(CATEGORIES, row, strict=True)
            },
        }
        for g, row in zip(made, scores, strict=True)
    ]
    RecordLog(run.verdicts_file(name), run.header_for("score", {"detector": "", "pictures": ""})).append(rows)
    card.save(run.card_file(name))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
