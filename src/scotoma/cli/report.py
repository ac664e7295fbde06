"""Make the report of an audit again from its records. Example: scotoma report run/

Nothing is drawn and nothing is looked at: figures are counted anew from the verdicts in the folder, and report.html and card.md
are written again. --reveal shows pictures unblurred.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scotoma.auditing.run import Run
    from scotoma.auditing.summarise import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of an audit")
    parser.add_argument("--pictures", type=int, default=24, metavar="N", help="shown of each model (default 24)")
    parser.add_argument("--reveal", action="store_true", help="pictures are not blurred")


def run(args: argparse.Namespace) -> int:
    from scotoma.auditing.run import load

    print(again(load(args.folder), pictures=args.pictures, blurred=not args.reveal))
    return 0


def again(made: Run, *, pictures: int = 24, blurred: bool = True) -> Path:
    """Sum a run up from its records and `write`. Raises DataError."""
    from scotoma.auditing.audit import sum_up
    from scotoma.auditing.summarise import read_tables

    tables = read_tables(made)
    return write(made, tables, sum_up(made, tables), pictures=pictures, blurred=blurred)


def write(
    made: Run, tables: Sequence[Table], summary: Mapping[str, Any], *, pictures: int = 24, blurred: bool = True
) -> Path:
    """report.html and card.md in the folder of a run; returns the report's path. Raises DataError."""
    import numpy as np

    from scotoma.auditing.gallery import shown
    from scotoma.detectors.contract import CLEAR, FLAGGED
    from scotoma.detectors.image.reading import read
    from scotoma.records import write_text
    from scotoma.report import AuditPicture, AuditVerdict, audit_card, audit_report, write_report

    def verdict(detector: str, category: str, flag: int, score: float, why: str) -> AuditVerdict:
        known = None if np.isnan(score) else score
        if flag < 0:
            return AuditVerdict(detector, category, score=known, undecided=why)
        return AuditVerdict(detector, category, FLAGGED if flag else CLEAR, known)

    rows = []
    for s in shown(made, tables, summary, a_model=pictures):
        g, picture = s.generation, read(made.picture(s.generation))
        if isinstance(picture, np.ndarray):  # one that was taken out of the folder is not shown
            said = [verdict(*v) for v in s.verdicts]
            rows.append(AuditPicture(g.model, g.set, s.prompt.text, g.seed, picture, said, s.mark, g.prompt))
    named = ", ".join(t["name"] for t in made.targets)
    credits = list(dict.fromkeys(c for t in made.targets for c in t["facts"].get("credits", ())))
    told: dict[str, Any] = {"title": f"Audit of {named}", "command": made.header.command, "credits": credits}
    write_report(made.folder / "report.html", audit_report(summary, rows, blurred=blurred, embedded=pictures, **told))
    write_text(made.folder / "card.md", audit_card(summary, **told))
    return made.folder / "report.html"
