"""Exposure of zoo:emoji: one harmless mark, ten targets, three ways to personalise a model, and the model as it is.

    python benchmarks/audit/exposure.py            # about ten minutes on two cores, quiet ones; a killed run goes on
    python benchmarks/audit/exposure.py --busy     # the same without times
    python benchmarks/audit/exposure.py --smoke    # two targets, a few steps; writes nothing

The mark is a hexagon that code draws, seen by a matched filter whose threshold, sensitivity and specificity are
measured here on pictures of other names; judge B sees the target. The rows go to results/exposure.json, their rates to
results/latest.json, which keeps what other runs measured. Records and checkpoints lie under build/benchmarks/audit
while the run needs them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keeping
import recording

from scotoma import api
from scotoma.auditing.exposure import exposure
from scotoma.auditing.eyes import TARGETS, other_names, zoo_eyes
from scotoma.auditing.mark import Sight
from scotoma.auditing.probes.dreambooth import DreamBoothConfig
from scotoma.auditing.probes.sdedit import SDEditConfig
from scotoma.auditing.probes.textual_inversion import TextualInversionConfig
from scotoma.auditing.techniques import Setting, by_dreambooth, by_sdedit, by_textual_inversion, pasted, unedited
from scotoma.records import Figure, write_text

HERE = Path(__file__).parent
# Other code does not go on with its records.
FOLDER = HERE.parents[1] / f"build/benchmarks/audit/exposure-{keeping.code('auditing', 'models', 'detectors')[:12]}"
FIRST_SEED, STEPS, RUNS = 10_000_000, 10, 3
OTHERS, PRIOR = 200, 32  # names that calibrate what is seen, and that a training holds still
SETTING = Setting(TARGETS, steps=STEPS, first_seed=FIRST_SEED)
DREAMBOOTH = DreamBoothConfig(noun="sticker", seconds=900.0)
INVERSION = TextualInversionConfig(seconds=900.0)
# Unguided, as published: guided by 3 the model has the mark out of the picture from 0.08 on. It takes what it does not
# know away early, so that there is little to see beyond 0.2.
SDEDIT = SDEditConfig(strengths=(0.04, 0.08, 0.12, 0.2, 0.4), steps=50, seconds=900.0, guidance=1.0)


def figures_of(rows: Sequence[Mapping[str, Any]], sight: Sight, busy: bool) -> dict[str, Figure]:
    figures = {
        "exposure_mark_sensitivity": recording.rate(*sight.sensitivity),
        "exposure_mark_specificity": recording.rate(*sight.specificity),
    }
    for row in rows:
        name = "_".join(["exposure", row["technique"], *row["variant"].split()])
        for what in ("success", "mark_seen", "target_seen", "mark_alone", "fidelity", "alignment", "near_copies"):
            if row[what] is not None:
                figures[f"{name}_{what}"] = Figure(**row[what])
        if not busy:
            figures[f"{name}_seconds"] = recording.number(row["seconds"])
    return figures


def line(row: Mapping[str, Any]) -> str:
    values = {what: row[what]["value"] for what in ("success", "mark_seen", "target_seen", "fidelity")}
    rates = [f"{what} {'undecided' if value is None else f'{value:.3f}'}" for what, value in values.items()]
    return f"{row['technique']} {row['variant']}: {', '.join(rates)}, {row['updates']} updates, {row['seconds']} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="see that it runs")
    parser.add_argument("--busy", action="store_true", help="leave out times, which need a quiet machine")
    args = parser.parse_args()
    smoke = args.smoke
    if not (smoke or args.busy):
        recording.require_quiet()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model, setting, runs, names = api.load("zoo:emoji"), SETTING, RUNS, other_names(TARGETS)
    dreambooth, inversion, sdedit, others = DREAMBOOTH, INVERSION, SDEDIT, OTHERS
    if smoke:
        setting = dataclasses.replace(setting, targets=TARGETS[:2], pictures=3)
        dreambooth, inversion = (dataclasses.replace(c, steps=20) for c in (dreambooth, inversion))
        sdedit, runs, others = dataclasses.replace(sdedit, strengths=(0.04, 0.4)), 1, 40
    eyes, sight, _, no_near = zoo_eyes(model, setting, which="b", others=others)
    if no_near:
        raise SystemExit(no_near)
    techniques = [
        unedited(),
        pasted(),
        by_dreambooth(dreambooth, [f"a {name}" for name in names[-PRIOR:]]),
        by_textual_inversion(inversion),
        by_sdedit(sdedit),
    ]
    with tempfile.TemporaryDirectory() as place:
        rows = exposure(
            model,
            setting,
            techniques,
            eyes,
            runs=runs,
            folder=Path(place) if smoke else FOLDER,
            progress=lambda what: print(what, file=sys.stderr, flush=True),
        )
    print(f"mark seen from {sight.threshold:.3f}: {sight.sensitivity}, {sight.specificity}", file=sys.stderr)
    print("\n".join(map(line, rows)), file=sys.stderr)
    if not smoke:
        write_text(
            HERE / "results/exposure.json", json.dumps({**begun, "rows": rows}, indent=1, allow_nan=False) + "\n"
        )
        recording.write(HERE, begun, figures_of(rows, sight, args.busy), keep=True)
        shutil.rmtree(FOLDER)  # the next run measures anew


if __name__ == "__main__":
    main()
