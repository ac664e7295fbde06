"""What a source names and what lies in its folder, checked before any weight is read.

Pickles are refused by name, code is never run, and only classes of diffusers and transformers are built. A folder may
hold `shared.json`, which maps a component to a sibling folder that stores it, so that weights are stored once:
{"vae": "autoencoder"} takes vae/ from ../autoencoder/vae/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scotoma.errors import ModelError, UnsafeFileError
from scotoma.models.families import DEFAULTS_FILE, LABELS_FILE, Family, detect
from scotoma.weights.folders import read_json, refuse_pickles

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # the last: where SD 1.x keeps its safety checker
ZOO_PREFIX = "zoo:"
ZOO = Path(__file__).parent / "zoo"
SHARED_FILE = "shared.json"


@dataclass(frozen=True)
class Contents:
    """A checked folder: its family, the configs, and where each component lies."""

    folder: Path
    family: Family
    model_index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Path] = field(default_factory=dict)  # component: folder that is not under `folder`
    defaults: Mapping[str, Any] = field(default_factory=dict)  # scotoma-defaults.json, where there is one

    def place(self, component: str) -> Path:
        return self.shared.get(component, self.folder / component)


def zoo_names() -> list[str]:
    """Names that ship, without the prefix."""
    if not ZOO.is_dir():
        return []
    named = (f for f in ZOO.iterdir() if not f.name.startswith("."))  # a dot: one that is being written
    whole = (f for f in named if (f / "model_index.json").is_file() or (f / LABELS_FILE).is_file())
    return sorted(f.name for f in whole)


def zoo_folder(source: str) -> Path:
    """The folder of "zoo:NAME". Raises ModelError listing the names that ship."""
    names = zoo_names()
    if source.removeprefix(ZOO_PREFIX) not in names:
        ship = ", ".join(ZOO_PREFIX + name for name in names) or "none"
        raise ModelError(f"{source} is not in the zoo; names that ship: {ship}")
    return ZOO / source.removeprefix(ZOO_PREFIX)


def _shared(folder: Path) -> dict[str, Path]:
    if not (folder / SHARED_FILE).is_file():
        return {}
    found = {}
    for component, sibling in read_json(folder / SHARED_FILE).items():
        if not isinstance(sibling, str) or Path(sibling).name != sibling or Path(component).name != component:
            raise ModelError(
                f"{folder / SHARED_FILE} must map a component to the name of a sibling folder, got {sibling!r}"
            )
        path = folder.parent / sibling / component
        if not path.is_dir():
            raise ModelError(
                f"{folder / SHARED_FILE} takes {component} from {path}, which is not there; restore that folder"
            )
        found[component] = path
    return found


def _components(folder: Path, model_index: Mapping[str, Any]) -> list[str]:
    """Components named in model_index.json. Raises UnsafeFileError for a class from outside the known libraries."""
    names = []
    for name, entry in model_index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if len(entry) != 2 or Path(name).name != name:
            raise ModelError(f"{folder / 'model_index.json'} has an odd entry {name!r}; fetch the model again")
        if entry[0] is None:
            continue
        if entry[0] not in LIBRARIES:
            raise UnsafeFileError(
                f"{folder / 'model_index.json'} takes {name} from {entry[0]!r}, which would run code that came with the "
                "model; only classes of diffusers and transformers are loaded"
            )
        names.append(name)
    return names


def inspect(folder: Path) -> Contents:
    """Check a local folder by its names and small JSON files; no weight is opened.

    Raises UnsafeFileError for pickles and foreign code, ModelError for a folder that is not complete or of a family we
    do not know.
    """
    refuse_pickles(folder)
    shared = _shared(folder)
    if (folder / LABELS_FILE).is_file():
        model_index: dict[str, Any] = {}
        components = ["unet", "scheduler"]
    else:
        model_index = read_json(folder / "model_index.json")
        if isinstance(model_index.get("_class_name"), list):
            raise UnsafeFileError(
                f"{folder / 'model_index.json'} names a pipeline class of its own, which would run code that came with "
                "the model; only diffusers' own pipelines are loaded"
            )
        components = _components(folder, model_index)
    configs: dict[str, Mapping[str, Any]] = {}
    if not model_index:
        configs["labels"] = read_json(folder / LABELS_FILE)
    for name in components:
        path = shared.get(name, folder / name)
        if path.is_dir():
            refuse_pickles(path)
        config = path / ("scheduler_config.json" if name == "scheduler" else "config.json")
        if config.is_file() or name in ("unet", "scheduler"):
            configs[name] = read_json(config)
    return Contents(folder, detect(model_index, configs), model_index, configs, shared, _defaults(folder))


def _defaults(folder: Path) -> dict[str, Any]:
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found.get("guidance", 1.0), int | float) or not isinstance(found.get("data", ""), str):
        raise ModelError(f"{path} must hold guidance as a number and data as a text; write it again")
    return found
