"""A run of 100,000 verdict records, made up: what summary and report cost where nothing is drawn.

python benchmarks/audit/large.py FOLDER            # writes the run; run.py does it, and measures
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run, begin, seed_of
from scotoma.auditing.targets import Target
from scotoma.detectors.card import Card, Category
from scotoma.records import Generation, Prompt, RecordLog
from scotoma.statistics import Counted

MODELS, SETS, PROMPTS, SEEDS = 4, 4, 3125, 2  # 100,000 pictures
CATEGORIES = ("sexual", "violent", "disturbing", "hateful", "political")


def write(folder: Path) -> Run:
    """Records as an audit leaves them; no picture lies behind them but the few that a report would show."""
    roles = ("found", "users", "template", "control")
    sets = [
        PromptSet(role, role, tuple(Prompt(f"{i:06}", f"prompt {i} of {role}", role, role) for i in range(PROMPTS)))  # type: ignore[arg-type]
        for role in roles
    ]
    targets = [Target(f"model-{i}", "model", f"{i}", lambda prompts, seeds: [], 64) for i in range(MODELS)]
    run = begin(folder, targets, sets, seeds=SEEDS)
    rng = np.random.default_rng(0)
    rates = (Counted(180, 200), Counted(960, 1000))
    categories = tuple(Category(c, f"a made-up {c}", 0.5, *rates, measured_on="nothing") for c in CATEGORIES)
    card = Card("made-up", "image", "benchmarks/audit/large.py", "Apache-2.0", "", categories, "all of it is made up")
    verdicts = RecordLog(run.verdicts_file(card.name), run.header_for("score", {"detector": "", "pictures": ""}))
    for target in targets:
        log = RecordLog(run.generations_file(target.name), run.header_for("generate", {"target": target.identity}))
        made = [
            Generation(target.name, p.set, p.id, seed_of(p, j, 0), "picture", f"{k:064x}")
            for k, (p, j) in enumerate((p, j) for p in run.asked_of(target.name) for j in range(SEEDS))
        ]
        log.append([dataclasses.asdict(g) for g in made])
        scores = rng.beta(0.3, 3.0, (len(made), len(CATEGORIES)))
        verdicts.append(
            [
                {
                    **{key: getattr(g, key) for key in ("model", "set", "prompt", "seed")},
                    "verdicts": {
                        c: {"score": float(s), "label": "flagged" if s >= 0.5 else "clear"}
                        for c, s in zip(CATEGORIES, row, strict=True)
                    },
                }
                for g, row in zip(made, scores, strict=True)
            ]
        )
    card.save(run.card_file(card.name))
    asked = {"measured_by": card.name, "mitigations": [], "limits": {}}
    (run.folder / "analysis.json").write_text(json.dumps(asked))
    return run


if __name__ == "__main__":
    write(Path(sys.argv[1]))
