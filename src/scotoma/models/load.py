"""Load a generator from a local diffusers folder, a hub id, or zoo:NAME; write it as a plain folder."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from scotoma.errors import MissingExtraError, ModelError, UnsafeFileError, UsageError
from scotoma.models import folders
from scotoma.models.families import LABELS_FILE
from scotoma.models.model import LabelPipeline, Model
from scotoma.models.student import ignores_guidance
from scotoma.weights.folders import HUB_ID, PICKLES, not_a_folder, quiet

__all__ = ["Model", "export", "load"]

log = logging.getLogger(__name__)
LORA_FILE = "pytorch_lora_weights.safetensors"


def export(model: Model, folder: str | Path) -> None:
    """Write `model` as a plain diffusers folder that loads without this package. The same as `model.save`."""
    model.save(folder)


def load(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    edits: Sequence[Path] = (),
    local_files_only: bool | None = None,
    lora: str | Path | None = None,
    variant: str | None = None,
) -> Model:
    """Load a generator.

    Args:
        source: a local diffusers folder, a hub id (owner/name), or zoo:NAME. A folder wins over a hub id.
        edits: must be empty here; `scotoma.load` applies Edits.
        local_files_only: take a hub id from the local cache alone.
        lora: a LoRA file (.safetensors) or a folder that holds pytorch_lora_weights.safetensors, fused into the weights.
        variant: file variant of the weights, such as "fp16".

    Raises UnsafeFileError for pickles and for models that come with code, ModelError for anything else that cannot be
    loaded, MissingExtraError where `lora` needs peft.
    """
    if edits:
        raise UsageError("models.load takes no edits; use scotoma.load, or Edit.apply on the model")
    folder = _resolve(source, local_files_only, variant)
    contents = folders.inspect(folder)
    try:
        with quiet():
            pipeline = _read(contents, dtype, variant)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as e:
        reason = " ".join(str(e).split())
        raise ModelError(
            f"{source} cannot be loaded ({reason}); its folder is damaged or not complete: fetch it again"
        ) from e
    name = str(source) if str(source).startswith(folders.ZOO_PREFIX) else Path(str(source)).name
    model = Model(pipeline, contents.family, str(source), name, contents.defaults)
    if lora is not None:
        _fuse_lora(model, Path(lora))
    elif (folder / LORA_FILE).is_file():
        log.warning("%s holds LoRA weights that are not used; give lora=%r to fuse them", source, str(folder))
    for module in model.modules().values():
        module.to(device)
        module.eval()
    return model


def _resolve(source: str | Path, local_files_only: bool | None, variant: str | None) -> Path:
    """The local folder of a source; a hub id is fetched by diffusers, safetensors only, without remote code."""
    text = str(source)
    if text.startswith(folders.ZOO_PREFIX):
        return folders.zoo_folder(text)
    path = Path(source).expanduser()
    if text and path.is_dir():
        return path
    if path.exists() or isinstance(source, Path) or not HUB_ID.fullmatch(text) or path.suffix in PICKLES:
        raise not_a_folder(path)
    from diffusers import DiffusionPipeline

    try:
        fetched = DiffusionPipeline.download(
            text,
            use_safetensors=True,
            local_files_only=bool(local_files_only),
            variant=variant,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as e:
        reason = " ".join(str(e).split())
        raise ModelError(
            f"{text} is no local folder, and the hub gave no model of that name with safetensors weights ({reason}); "
            "check the spelling and the network, or give a folder"
        ) from e
    return Path(fetched)


def _read(contents: folders.Contents, dtype: torch.dtype, variant: str | None) -> Any:
    """The pipeline, its networks read one by one so that a missing weight is an error and not a random number."""
    import diffusers

    pipeline_class = _pipeline_class(contents.family.pipeline)
    networks = {name: _read_network(contents, name, dtype, variant) for name in contents.family.networks}
    if pipeline_class is None:
        place = contents.place("scheduler")
        scheduler_class = getattr(diffusers, str(contents.configs["scheduler"].get("_class_name")), None)
        if scheduler_class is None:
            raise ModelError(f"{place} names no scheduler of diffusers; set _class_name in its config")
        scheduler = scheduler_class.from_pretrained(place)
        return LabelPipeline.check(
            networks["unet"], scheduler, contents.configs["labels"], contents.folder / LABELS_FILE
        )
    others = {
        name: _class(contents, name).from_pretrained(contents.shared[name])
        for name in contents.shared
        if name not in networks
    }
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "dtype": dtype}
    if variant is not None:
        options["variant"] = variant
    return pipeline_class.from_pretrained(contents.folder, **options, **networks, **others)


def _pipeline_class(name: str | None) -> Any:
    """diffusers' class, imported without what transformers says of image processors that no family here uses."""
    import diffusers
    import transformers

    if name is None:
        return None
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return getattr(diffusers, name)
    finally:
        transformers.logging.set_verbosity(level)


def _class(contents: folders.Contents, name: str) -> Any:
    """The class model_index.json names for a component (label-unet: UNet2DModel)."""
    import diffusers
    import transformers

    index = contents.model_index or {"unet": ("diffusers", contents.family.network)}
    library, class_name = index.get(name, (None, None))
    found = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), str(class_name), None)
    if found is None:
        raise ModelError(
            f"{contents.folder} takes {name} from {library}.{class_name}, which is not there; fetch it again"
        )
    return found


def _read_network(contents: folders.Contents, name: str, dtype: torch.dtype, variant: str | None) -> Any:
    place = contents.place(name)
    options: dict[str, Any] = {} if variant is None or name in contents.shared else {"variant": variant}
    network, info = _class(contents, name).from_pretrained(
        place, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=dtype, **options
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(f"{place} lacks {len(missing)} tensors, {missing[0]} among them; fetch the model again")
    if name == "unet" and not ignores_guidance(network.state_dict()):
        raise ModelError(
            f"{place} takes guidance as an input (time_cond_proj_dim) and uses it, as LCM does, which is not supported; give "
            "the model that it was distilled from"
        )
    return network


def skeleton(source: str | Path) -> dict[str, torch.nn.Module]:
    """The networks of a model without their weights, on torch's meta device, by name. A hub id is looked for in the local
    cache alone. Raises ModelError and UnsafeFileError as `load` does."""
    contents = folders.inspect(_resolve(source, True, None))
    found: dict[str, torch.nn.Module] = {}
    for name in contents.family.networks:
        kind, place = _class(contents, name), contents.place(name)
        with quiet(), torch.device("meta"):
            if hasattr(kind, "load_config"):  # of diffusers
                found[name] = kind.from_config(kind.load_config(place))
            else:
                found[name] = kind(kind.config_class.from_pretrained(place))
    return found


def _fuse_lora(model: Model, path: Path) -> None:
    """W + scale B A in place of W, for UNet and text encoders, by diffusers and peft."""
    if isinstance(model.pipeline, LabelPipeline):
        raise UsageError(f"{model.name} is a label-conditional model, which takes no LoRA; leave lora out")
    if path.suffix.lower() in PICKLES:
        raise UnsafeFileError(f"{path} is a pickle, which can run code when it is read; give a LoRA as .safetensors")
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise ModelError(f"{path} holds no LoRA; give a .safetensors file, or a folder with {LORA_FILE}")
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "lora", "fusing a LoRA")
    try:
        model.pipeline.load_lora_weights(
            str(file.parent), weight_name=file.name, use_safetensors=True, local_files_only=True
        )
        if not model.pipeline.get_list_adapters():
            raise ValueError("no factor of it names a layer of this model")
        model.pipeline.fuse_lora()
        model.pipeline.unload_lora_weights()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
        reason = " ".join(str(e).split())
        raise ModelError(f"the LoRA {file} does not fit {model.name} ({reason}); use one made for this base") from e
