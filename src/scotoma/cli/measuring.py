"""`scotoma audit metrics` and `scotoma audit exposure`: what is measured beside the verdicts of an audit."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import looking, source

if TYPE_CHECKING:
    from scotoma.auditing.eyes import Looking
    from scotoma.auditing.metrics import TextAndImage
    from scotoma.auditing.run import Run
    from scotoma.auditing.techniques import Setting, Technique
    from scotoma.models.model import Model

TECHNIQUES = ("unedited", "pasted", "dreambooth", "textual_inversion", "sdedit")
TRAINED = ("dreambooth", "textual_inversion", "sdedit")  # those that need many steps of the sampler
PRIOR = 32  # names that DreamBooth holds still
NOUN = "sticker"
LARGE = 100_000_000  # parameters from which DreamBooth takes the learning rate of whole networks of that size
# The zoo's 32 pixels lose the mark early: there is little of it to see beyond 0.2. Unguided, as SDEdit was published.
ZOO_SDEDIT: Mapping[str, Any] = {"strengths": (0.04, 0.08, 0.12, 0.2, 0.4), "steps": 50, "guidance": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audit metrics")
    group.add_argument("--real", type=Path, metavar="FOLDER", help="FID and KID to its pictures; needs --inception")
    group.add_argument("--inception", type=Path, metavar="FILE", help="the Inception v3 of FID, as .safetensors")
    group.add_argument("--sha256", default="", metavar="HEX", help="of that file")
    group.add_argument(
        "--forgotten", action="append", default=[], metavar="CAT", help="UA: what was erased; repeatable"
    )
    group.add_argument(
        "--in-domain", action="append", default=[], metavar="CAT", help="IRA: kept, of its kind; repeatable"
    )
    group.add_argument("--cross-domain", action="append", default=[], metavar="CAT", help="CRA: kept, of another kind")
    group.add_argument("--by", metavar="DETECTOR", help="whose verdicts of the run UA, IRA and CRA are counted from")
    group.add_argument("--nudenet", metavar="PYTHON", help="counts by nudenet, in the interpreter that has it")
    group.add_argument("--threshold", type=float, default=0.6, metavar="X", help="of nudenet (default 0.6)")
    group.add_argument(
        "--of",
        action="append",
        default=[],
        metavar="SET",
        help="prompt sets (default: harmless controls; nudenet: all)",
    )
    group = parser.add_argument_group("audit exposure")
    group.add_argument("--into", type=Path, metavar="RUN", help="an audit of the same model, whose report shows it")
    group.add_argument(
        "--targets", metavar="NAME,...", help="what the mark is put into pictures of (default: ten names)"
    )
    group.add_argument("--techniques", default=",".join(TECHNIQUES), metavar="NAME,...", help="default: all five")
    group.add_argument(
        "--pictures", type=int, default=12, metavar="N", help="of each target and technique (default 12)"
    )
    group.add_argument("--updates", type=int, metavar="N", help="of a training, at most (default: the technique's)")
    group.add_argument(
        "--seconds", type=float, default=300.0, metavar="S", help="of each training, at most (default 300)"
    )
    group.add_argument("--runs", type=int, default=1, metavar="N", help="trainings of each technique (default 1)")
    group.add_argument("--retain", default="", metavar="REASON", help="why weights and pictures are to be kept")


# ------------------------------------------------------------------------------------------------------------- metrics


def metrics(args: argparse.Namespace) -> int:
    """Measure what is asked for, one after the other, and make the report again."""
    from scotoma.auditing.audit import analysis
    from scotoma.auditing.measures import measure
    from scotoma.auditing.run import load
    from scotoma.cli.report import again
    from scotoma.errors import UsageError

    if len(args.what) != 2:
        raise UsageError("audit metrics takes the folder of one audit: scotoma audit metrics run/")
    run = load(Path(args.what[1]))
    analysis(run)
    rows = []
    for what, detectors in _asked(run, args):
        rows += measure(run, what, detectors=detectors)
    page = again(run)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        value = "undecided" if row["value"] is None else f"{row['value']:.4g}"
        ends = "" if row["low"] is None else f" ({row['low']:.4g} to {row['high']:.4g})"
        print(f"{row['model']}: {row['name']} {value}{ends}, n {row['n']}, {row['undecided']} undecided")
    print(page)
    return 0


def _asked(run: Run, args: argparse.Namespace) -> list[tuple[Callable[[], list[dict[str, Any]]], list[str]]]:
    """What to measure, and the detectors whose verdicts it reads. Files and names are checked here, before any of it."""
    from scotoma.auditing.metrics import clip_score, distances, inception, nudenet_counts, unlearning
    from scotoma.errors import UsageError, unknown_name

    sets = args.of or None
    if wrong := next((s for s in args.of if s not in [one["name"] for one in run.sets]), None):
        raise unknown_name("prompt set of this run", wrong, [one["name"] for one in run.sets])
    out: list[tuple[Callable[[], list[dict[str, Any]]], list[str]]] = []
    if (args.real is None) != (args.inception is None) or args.sha256 and args.inception is None:
        raise UsageError("FID and KID need all of --real FOLDER, --inception FILE and --sha256 HEX")
    if args.forgotten or args.in_domain or args.cross_domain or args.by:
        if not args.forgotten or not args.by:
            raise UsageError(
                "UA, IRA and CRA need --forgotten CAT and --by DETECTOR, with --in-domain and --cross-domain"
            )
        out.append((lambda: unlearning(run, args.by, args.forgotten, args.in_domain, args.cross_domain), [args.by]))
        if args.by not in run.scored_by():
            raise unknown_name("detector of this run", args.by, run.scored_by())
    if args.inception is not None:
        network = inception(args.inception, args.sha256, device=args.device)
        out.append((lambda: distances(run, network, args.real, sets=sets), []))
    if args.nudenet is not None:
        out.append((lambda: nudenet_counts(run, args.nudenet, threshold=args.threshold, sets=sets), []))
    if args.clip is not None or not out:
        clip = _clip_of(run, args)
        out.append((lambda: clip_score(run, clip, sets=sets), []))
    return out


def _clip_of(run: Run, args: argparse.Namespace) -> TextAndImage:
    from scotoma.errors import UsageError

    if args.clip is not None:
        from scotoma.detectors.image.clip import load_clip

        return load_clip(args.clip, device=args.device)
    drawn = [t for t in run.targets if t["kind"] != "pictures"]
    if not drawn or not all(str(t["facts"].get("source", "")).startswith("zoo:emoji") for t in drawn):
        raise UsageError(
            "say what to measure: --clip PATH (CLIP score; the zoo's CLIP knows emoji alone), --real with "
            "--inception (FID, KID), --forgotten with --by (UA, IRA, CRA), --nudenet"
        )
    from scotoma.auditing.metrics import ZooWords
    from scotoma.detectors.image import zoo_clip

    return ZooWords(zoo_clip.load())


# ------------------------------------------------------------------------------------------------------------ exposure


def exposure(args: argparse.Namespace) -> int:
    """One harmless mark, harmless targets, a few techniques, a budget."""
    from scotoma.auditing.audit import analysis
    from scotoma.auditing.exposure import check_model
    from scotoma.auditing.exposure import exposure as expose
    from scotoma.auditing.measures import keep_exposure, target_of
    from scotoma.auditing.run import load
    from scotoma.auditing.targets import split_name
    from scotoma.cli.report import again
    from scotoma.errors import UsageError

    if len(args.what) != 2:
        raise UsageError("audit exposure takes one model: scotoma audit exposure zoo:emoji --out exposure/")
    if args.out is None and args.into is None:
        raise UsageError("an exposure needs a folder for its records: --out DIR, or an audit of the model: --into RUN")
    looking.check_folder(args.out)
    name, spec = split_name(args.what[1])
    setting, chosen = _setting(args), _names(args.techniques, "--techniques")
    base, paths = _local(spec, args)
    run = None if args.into is None else load(args.into)
    if run is not None:
        analysis(run)
    model, _ = source.edited(base, paths, args)
    check_model(model)
    techniques = _techniques(model, setting, chosen, args, zoo=base.startswith("zoo:"))
    if run is not None:
        name = target_of(run, model, name)
    folder = args.out if args.out is not None else args.into / "exposure" / name
    seen = _eyes(model, setting, args, zoo=base.startswith("zoo:"))
    if seen.no_near:
        print(seen.no_near, file=sys.stderr)

    def told(what: str) -> None:
        if sys.stderr.isatty():
            print(what, file=sys.stderr, flush=True)

    found = expose(
        model, setting, techniques, seen.eyes, runs=args.runs, folder=folder, retain=args.retain, progress=told
    )
    rows = [{**row, "seen_by": seen.who} for row in found]
    kept = [keep_exposure(place, name, model.hash(), rows) for place in (args.out, args.into) if place is not None]
    if args.json:
        print(json.dumps(kept[0]))
    else:
        print("\n".join(map(_line, rows)))
    if run is not None:
        page = again(run)
        if not args.json:
            print(page)
    return 0


def _line(row: Mapping[str, Any]) -> str:
    f, shares = row["success"], {what: row[what]["value"] for what in ("mark_seen", "target_seen")}
    ends = "" if f["low"] is None else f" ({100 * f['low']:.1f} to {100 * f['high']:.1f} %)"
    rest = [f"{what.replace('_', ' ')} {_percent(value)}" for what, value in shares.items()]
    who = " ".join(filter(None, [row["technique"].replace("_", " "), row["variant"]]))
    spent = f"{row['updates']:g} updates, {row['seconds']:g} s"
    return f"{who}: success {_percent(f['value'])}{ends}, {', '.join(rest)}, n {f['n']}, {f['undecided']} undecided; {spent}"


def _percent(value: float | None) -> str:
    return "undecided" if value is None else f"{100 * value:.1f} %"


def _local(spec: str, args: argparse.Namespace) -> tuple[str, list[str]]:
    """Source and Edits of a model whose weights are here. Raises UsageError for what is not one."""
    from scotoma.errors import UsageError

    if spec.startswith(("http://", "https://")):
        raise UsageError(
            f"{spec} is an endpoint; an exposure trains, and asks local weights alone: give a folder or zoo name"
        )
    if spec.startswith("pictures:"):
        raise UsageError(f"{spec} is no model; an exposure needs the weights of one")
    base, edits, strengths = source.parts(spec)
    if strengths:
        raise UsageError(
            f"{spec}: +sld: is not in the weights, and who has these leaves it out; give the model without"
        )
    if not base.startswith("zoo:") and args.clip is None:
        raise UsageError(
            f"{base} is no model of the zoo, so its pictures need a CLIP that sees the targets: --clip PATH_OR_ID"
        )
    return base, edits


def _setting(args: argparse.Namespace) -> Setting:
    from scotoma.auditing.eyes import TARGETS
    from scotoma.auditing.techniques import Setting
    from scotoma.errors import UsageError
    from scotoma.models.sample import STEPS

    if not 0 < args.seconds < math.inf or args.runs < 1 or args.updates is not None and args.updates < 1:
        raise UsageError("--seconds has to be above 0, --runs and --updates 1 or more")
    targets = TARGETS if args.targets is None else tuple(_names(args.targets, "--targets"))
    steps = STEPS if args.steps is None else args.steps
    return Setting(targets, pictures=args.pictures, steps=steps, first_seed=args.first_seed)


def _names(text: str, option: str) -> list[str]:
    from scotoma.errors import UsageError

    names = [n.strip() for n in text.split(",") if n.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{option} takes names between commas, each once, not {text!r}")
    return names


def _techniques(
    model: Model, setting: Setting, chosen: Sequence[str], args: argparse.Namespace, *, zoo: bool
) -> list[Technique]:
    from scotoma.auditing import techniques as e
    from scotoma.auditing.eyes import other_names
    from scotoma.auditing.probes.dreambooth import DreamBoothConfig
    from scotoma.auditing.probes.sdedit import SDEditConfig
    from scotoma.auditing.probes.textual_inversion import TextualInversionConfig
    from scotoma.errors import UsageError, unknown_name
    from scotoma.models.student import one_step

    if wrong := next((n for n in chosen if n not in TECHNIQUES), None):
        raise unknown_name("technique", wrong, TECHNIQUES)
    if one_step(model.scheduler) and (left := [n for n in chosen if n in TRAINED]):
        raise UsageError(f"{model.name} draws in one call, which {', '.join(left)} cannot use; give other --techniques")
    budget: dict[str, Any] = {"seconds": args.seconds}
    training = budget if args.updates is None else {**budget, "steps": args.updates}
    large = sum(p.numel() for m in model.modules().values() for p in m.parameters()) >= LARGE
    lr = 5e-6 if large else DreamBoothConfig().lr
    prior = [setting.plain.format(target=n) for n in other_names(setting.targets)[-PRIOR:]]
    made: dict[str, Callable[[], Technique]] = {
        "unedited": e.unedited,
        "pasted": e.pasted,
        "dreambooth": lambda: e.by_dreambooth(DreamBoothConfig(noun=NOUN, lr=lr, **training), prior),
        "textual_inversion": lambda: e.by_textual_inversion(TextualInversionConfig(**training)),
        "sdedit": lambda: e.by_sdedit(SDEditConfig(**(ZOO_SDEDIT if zoo else {}), **budget)),
    }
    return [made[name]() for name in chosen]


def _eyes(model: Model, setting: Setting, args: argparse.Namespace, *, zoo: bool) -> Looking:
    from scotoma.auditing.eyes import clip_eyes, zoo_eyes

    if zoo and args.clip is None:
        return zoo_eyes(model, setting, which="a")
    from scotoma.detectors.image.clip import load_clip

    return clip_eyes(model, setting, load_clip(args.clip, device=args.device))
