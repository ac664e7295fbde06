"""Audits: what a quick one takes and finds, five models in one matrix, a large one, and what kills, faults and hostile files do.

    python benchmarks/audit/run.py                 # everything; needs a quiet machine, for the times
    python benchmarks/audit/run.py --busy          # the same without times
    python benchmarks/audit/run.py --only matrix   # one part or several; the others' figures stay, with their commits
    python benchmarks/audit/run.py --smoke         # a few prompts; writes nothing

Parts: quick (zoo:emoji before and after two Edits), matrix (five models of the zoo, mitigations), large (100,000 verdict records),
killed (SIGKILL at ten random places), served (a service that errs), hostile (prompt sets that are none). Everything runs offline.
exposure.py has figures of its own. The Edits are made once and kept under build/benchmarks/audit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import faults
import hostile
import keeping
import large
import recording

from scotoma import api
from scotoma.auditing.summarise import ALL, ANY
from scotoma.erasure.edit import Edit
from scotoma.evaluation.look import Look
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.folders import zoo_names
from scotoma.records import Figure

HERE = Path(__file__).parent
CACHE = Path(os.path.relpath(HERE.parents[1] / "build/benchmarks/audit"))  # reports tell it: no path of this machine
MATRIX = (
    CACHE / f"matrix-{keeping.code('auditing', 'models', 'detectors')[:12]}"
)  # other code does not go on with its records
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
# Two reporting tasks of frozen.json, by two methods: name of the target, concept, alternative, method.
EDITS = (("dagger-gone", "dagger", "pencil", "all_but_one"), ("bomb-gone", "bomb", "red apple", "uce"))
EDITED = "dagger-gone"  # of the matrix
LOOK = Look(size=Size(8, 8, 8), steps=10)  # of the self-check: what an audit finds is the question
SMOKE = ("--seeds", "1", "--steps", "2")
FIRST_SEED = 20_000  # no audit of the documentation or of a test draws these


def edit_of(concept: str, instead: str, method: str) -> Path:
    """The file of an Edit of zoo:emoji, made with the defaults of its method, or made before."""

    def make(folder: Path) -> Edit:
        return api.carry_out(api.load("zoo:emoji"), concept, instead, method=method, folder=folder, look=LOOK).edit

    kept = keeping.kept(make, [concept, instead, method], CACHE / "edits")
    path = CACHE / "edits" / f"{method}-{concept}.safetensors"
    kept.edit.save(path)
    return path


def targets(names: Sequence[str]) -> list[str]:
    """Targets of the command line: zoo:emoji, then Edits on it."""
    return ["zoo:emoji", *(f"{name}=zoo:emoji+{edit_of(*rest)}" for name, *rest in EDITS if name in names)]


def run_audit(arguments: Sequence[str], out: Path) -> float:
    """Seconds of `scotoma audit`, from its start to its report."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "scotoma", "audit", *arguments, "--first-seed", str(FIRST_SEED), "--out", str(out)]
    subprocess.run(command, check=True, env=os.environ | OFFLINE, stdout=sys.stderr)
    return time.perf_counter() - start


def found(out: Path, prefix: str, categories: Sequence[str] | None = None) -> dict[str, Figure]:
    """Rates of every model and detector over all prompts but controls, of controls, and paired changes; in any category, or in
    these."""
    summary = json.loads((out / "summary.json").read_text())
    chosen, figures = categories or (ANY,), {}
    controls = {s["name"] for s in summary["sets"] if s["role"] == "control"}
    for c in summary["cells"]:
        if c["category"] in chosen and c["set"] == ALL or c["category"] == ANY and c["set"] in controls:
            what = c["category"] if c["set"] == ALL else "control"
            figures[f"{prefix}_{c['model']}_{what}_{c['detector']}"] = Figure(**c["flagged"])
    for p in summary["paired"]:
        if p["set"] == ALL and p["category"] == ANY:
            figures[f"{prefix}_{p['after']}_drop_{p['detector']}"] = Figure(**p["drop"])
    for a in summary["agreement"]:
        if a["category"] == ANY:
            figures[f"{prefix}_kappa_{'_'.join(a['detectors'])}"] = Figure(**a["kappa"])
    for m in summary.get("mitigations", ()):
        for what in ("unsafe_left", "over_blocking"):
            figures[f"{prefix}_{m['name']}_{what}"] = Figure(**m[what])
    return figures


def quick(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    """The quick preset on zoo:emoji and two Edits of it."""
    asked = [*targets([name for name, *_ in EDITS]), "--config", "audit/quick"]
    seconds = run_audit([*asked, *(SMOKE if smoke else ())], place / "quick")
    told = json.loads((place / "quick/timings.json").read_text())["generate"].values()
    figures = found(place / "quick", "quick")
    if not busy:
        figures["audit_minutes"] = recording.number(seconds / 60)
        figures["sampler_busy"] = recording.number(sum(t["drawing"] for t in told) / sum(t["seconds"] for t in told))
    return figures


def matrix(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    """Five models of the zoo, each category, and mitigations; the run stays under build/benchmarks/audit/matrix-CODE."""
    stand_ins = frozen()["stand_ins"]
    words = place / "words.json"
    words.write_text(json.dumps(stand_ins))
    models = [*targets([EDITED]), "early=zoo:emoji-early", "control=zoo:emoji-control", "steered=zoo:emoji+sld:max"]
    if "emoji-1step" in zoo_names():
        models.append("one-step=zoo:emoji-1step")
    else:
        print("zoo:emoji-1step does not ship yet; the matrix is without it", file=sys.stderr)
    concept = next(c for name, c, *_ in EDITS if name == EDITED)
    compared = {
        "curated-data": f"model:control@{','.join(frozen()['control'])}",
        "edit": f"model:{EDITED}@{concept}",
        "sld": "model:steered",
        "prompt-rule": "prompts:word-list",
        "output-filter": "pictures:zoo-members",
    }
    arguments = [*models, "--config", "audit/quick", *(SMOKE if smoke else ())]
    for name in stand_ins["violent"]:  # of one category: a text encoder reads so much
        arguments += ["--sld-concept", name]
    for detector in ("zoo-standins", "zoo-members", f"word-list,words={words}"):
        arguments += ["--detector", detector]
    for name, how in compared.items():
        arguments += ["--mitigation", f"{name}={how}"]
    out = place / "matrix" if smoke else MATRIX
    run_audit(arguments, out)
    return found(out, "matrix", (ANY, *stand_ins))


def report_large(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    """Summary and report of 100,000 verdict records, in a process of its own."""
    if smoke:
        large.PROMPTS = 20
    run = large.write(place / "large")
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "scotoma", "report", str(run.folder)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"scotoma report failed with {os.waitstatus_to_exitcode(status)}")
    figures = {
        "report_100k_gb": recording.number(used.ru_maxrss * 1024 / 1e9),
        "report_100k_cpu_seconds": recording.number(used.ru_utime + used.ru_stime),
    }
    return figures if busy else {**figures, "report_100k_seconds": recording.number(seconds)}


def stopped(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    return faults.killed(place, *((6, 2) if smoke else ()))


def served(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    return faults.served(place, *((20,) if smoke else ()))


def refused(place: Path, smoke: bool, busy: bool) -> dict[str, Figure]:
    return hostile.hostile(place)


PARTS: Mapping[str, Callable[[Path, bool, bool], dict[str, Figure]]] = {
    "quick": quick,
    "large": report_large,
    "matrix": matrix,
    "killed": stopped,
    "served": served,
    "hostile": refused,
}
TIMED = ("quick", "large")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--busy", action="store_true", help="leave out times, which need a quiet machine")
    parser.add_argument("--smoke", action="store_true", help="see that it runs")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    edits = [edit_of(*rest) for _, *rest in EDITS] if {"quick", "matrix"} & {*args.only} else []
    for name in (n for n in PARTS if n in args.only):
        if name in TIMED and not (args.busy or args.smoke):
            settle(bool(edits))
        with tempfile.TemporaryDirectory() as place:
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures = PARTS[name](Path(place), args.smoke, args.busy)
        if args.smoke:
            print("\n".join(f"{name}: {f.value} (n {f.n}, {f.undecided} undecided)" for name, f in figures.items()))
        else:
            recording.write(HERE, begun, figures, keep=True)  # a part that fails takes none with it


def settle(worked: bool) -> None:
    """Wait until what this process did itself has left the load average, or stop where something else runs."""
    for _ in range(40 if worked else 1):
        if os.getloadavg()[0] < recording.QUIET:
            return
        time.sleep(5)
    recording.require_quiet()


if __name__ == "__main__":
    main()
