"""Load a generator from a local diffusers folder, a hub id, or zoo:NAME; use it; save it as a plain folder.

Notation: B batch, C channels, H W of what the network denoises (latents, or unshuffled pixels).
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.errors import MissingExtraError, ModelError, UnsafeFileError, UsageError, unknown_name
from scotoma.models import folders
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.families import LABELS_FILE, Family
from scotoma.models.hashing import hash_names, hash_tensor
from scotoma.records import write_text

log = logging.getLogger(__name__)
LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass
class LabelPipeline:
    """A label-conditional UNet2DModel with its scheduler. Class i is label i; `null` is the label of no class.

    The network sees pixels rearranged by `pixel_unshuffle` (1 for none): H W = size / pixel_unshuffle.
    """

    unet: Any
    scheduler: Any
    classes: list[str]
    null: int
    size: int
    pixel_unshuffle: int = 1

    @classmethod
    def check(cls, unet: Any, scheduler: Any, labels: Mapping[str, Any], where: object) -> LabelPipeline:
        """Raises ModelError where the labels file does not fit the network."""
        try:
            made = cls(
                unet,
                scheduler,
                [str(name) for name in labels["classes"]],
                int(labels["null"]),
                int(labels["size"]),
                int(labels.get("pixel_unshuffle", 1)),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ModelError(f"{where} needs classes, null and size ({type(e).__name__}: {e}); write it again") from e
        embeds = unet.config.num_class_embeds
        if not made.classes or embeds is None or not len(made.classes) <= made.null < embeds:
            raise ModelError(
                f"{where} has {len(made.classes)} classes and null {made.null}, the network embeds {embeds} labels; "
                "null must come after the classes and be below the number of embeddings"
            )
        return made

    def labels_json(self) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "null": self.null,
            "pixel_unshuffle": self.pixel_unshuffle,
            "size": self.size,
        }


@dataclass
class Model:
    """A generator under treatment. `pipeline` is a diffusers pipeline, or a LabelPipeline for label-unet."""

    pipeline: Any
    family: Family
    source: str
    name: str

    # -- parts

    @property
    def unet(self) -> Any:
        return self.pipeline.unet

    @property
    def scheduler(self) -> Any:
        return self.pipeline.scheduler

    @property
    def text_encoders(self) -> list[Any]:
        """In the order of `family.text_encoders`, which are their component names."""
        return [getattr(self.pipeline, name) for name in self.family.text_encoders]

    @property
    def tokenizers(self) -> list[Any]:
        return [getattr(self.pipeline, name) for name in self.family.tokenizers]

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def labels(self) -> list[str]:
        """Class names of a label-conditional model; empty for a text model."""
        return list(self.pipeline.classes) if isinstance(self.pipeline, LabelPipeline) else []

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network denoises."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(self.unet.config.in_channels), int(height), int(width)

    def modules(self) -> dict[str, nn.Module]:
        """Components that hold weights, by name, in order of name."""
        if isinstance(self.pipeline, LabelPipeline):
            return {"unet": self.pipeline.unet}
        return {k: v for k, v in sorted(self.pipeline.components.items()) if isinstance(v, nn.Module)}

    # -- use

    def denoiser(self) -> Denoiser:
        """The network as x0 = f(x, t, cond), with the schedule and prediction type of the scheduler's config."""
        config = self.scheduler.config
        return Denoiser(self.unet, Schedule.from_config(config), config.get("prediction_type", "epsilon"))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str] | Sequence[int]) -> Cond:
        """B texts, or B class numbers or names for a label model, to a Cond of B rows. No gradient.

        Text goes through the pipeline's own encode_prompt: SDXL takes the penultimate hidden states of both encoders,
        joined, and the pooled output of the second. Raises UsageError for the wrong kind of prompt or an unknown class.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise UsageError(f"prompts must be a list of at least one, got {prompts!r}; write [prompt]")
        if isinstance(self.pipeline, LabelPipeline):
            return Cond(labels=torch.tensor([self._label(p) for p in prompts], device=self.device))
        if not all(isinstance(p, str) for p in prompts):
            raise UsageError(f"{self.name} takes texts as prompts, got {list(prompts)[:3]}; give strings")
        encoded = self.pipeline.encode_prompt(
            prompt=list(prompts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if len(self.family.text_encoders) == 1:
            return Cond(text=encoded[0])
        return Cond(text=encoded[0], pooled=encoded[2], time_ids=self._time_ids(len(prompts)))

    def null(self, n: int) -> Cond:
        """What the network is told for no prompt, n rows: the null label, the empty text, or zeros where the pipeline
        says so (SDXL's force_zeros_for_empty_prompt)."""
        if isinstance(self.pipeline, LabelPipeline):
            return Cond(labels=torch.full((n,), self.pipeline.null, device=self.device))
        empty = self.encode([""])
        if empty.pooled is not None and empty.text is not None and self.pipeline.config.force_zeros_for_empty_prompt:
            empty = Cond(torch.zeros_like(empty.text), None, torch.zeros_like(empty.pooled), empty.time_ids)
        return empty.expand(n)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in [-1, 1] from what the network denoises (B C H W).

        Latent models: B 3 H' W' through the VAE. Pixel models: pixels put back in place. Gradients flow where not
        clipped.
        """
        if isinstance(self.pipeline, LabelPipeline):
            return nn.functional.pixel_shuffle(latents, self.pipeline.pixel_unshuffle).clamp(-1, 1)
        vae = self.pipeline.vae
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        latents = latents / vae.config.scaling_factor
        if self.family.name == "sdxl" and mean is not None and std is not None:  # as the SDXL pipeline does
            latents = latents * torch.tensor(std).view(1, -1, 1, 1).to(latents)
            latents = latents + torch.tensor(mean).view(1, -1, 1, 1).to(latents)
        half = vae.dtype
        upcast = half == torch.float16 and bool(vae.config.get("force_upcast"))
        if upcast:  # SDXL's VAE overflows in float16
            vae.to(torch.float32)
        try:
            pictures: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        finally:
            if upcast:
                vae.to(half)
        return pictures.float().clamp(-1, 1)

    def _label(self, prompt: str | int) -> int:
        classes = self.pipeline.classes
        if isinstance(prompt, str):
            if prompt not in classes:
                raise unknown_name("class", prompt, classes)
            return classes.index(prompt)
        if not (0 <= prompt < len(classes) or prompt == self.pipeline.null):
            raise UsageError(f"class {prompt} is not known; classes run from 0 to {len(classes) - 1}")
        return int(prompt)

    def _time_ids(self, n: int) -> Tensor:
        """Original size, crop corner, target size (n 6): the picture's own size, uncropped."""
        _, height, width = self.latent_shape
        scale = self.pipeline.vae_scale_factor
        row = [height * scale, width * scale, 0, 0, height * scale, width * scale]
        return torch.tensor([row] * n, dtype=self.dtype, device=self.device)

    # -- identity and storage

    def hash(self) -> str:
        """sha256 (hex) over every tensor of every component: name, dtype, shape and bytes. Independent of shard layout
        and order of files; a float16 copy has another hash."""
        return hash_names(self.tensor_hashes())

    def tensor_hashes(self) -> dict[str, str]:
        """ "component.tensor" to its sha256."""
        return {
            f"{part}.{name}": hash_tensor(value)
            for part, module in self.modules().items()
            for name, value in module.state_dict().items()
        }

    def copy(self) -> Model:
        """A model with its own weights; tokenizers and other parts without weights are shared."""
        kept = {}
        if not isinstance(self.pipeline, LabelPipeline):
            kept = {
                id(v): v for v in self.pipeline.components.values() if v is not None and not isinstance(v, nn.Module)
            }
        return Model(copy.deepcopy(self.pipeline, kept), self.family, self.source, self.name)

    def save(self, folder: str | Path, *, max_shard_size: str | int | None = None) -> None:
        """Write a plain, complete folder: stock diffusers loads it; shared components are written out in full.

        Raises UsageError where `folder` is a file.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; give a folder to save the model to")
        extra = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        if isinstance(self.pipeline, LabelPipeline):
            import json

            self.unet.save_pretrained(folder / "unet", safe_serialization=True, **extra)
            self.scheduler.save_pretrained(folder / "scheduler")
            write_text(folder / LABELS_FILE, json.dumps(self.pipeline.labels_json(), indent=1) + "\n")
        else:
            self.pipeline.save_pretrained(folder, safe_serialization=True, **extra)


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
        pipeline = _read(contents, dtype, variant)
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        reason = " ".join(str(e).split())
        raise ModelError(
            f"{source} cannot be loaded ({reason}); its folder is damaged or not complete: fetch it again"
        ) from e
    name = str(source) if str(source).startswith(folders.ZOO_PREFIX) else Path(str(source)).name
    model = Model(pipeline, contents.family, str(source), name)
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
    if path.is_dir():
        return path
    if (
        path.exists()
        or isinstance(source, Path)
        or not folders.HUB_ID.fullmatch(text)
        or path.suffix in folders.PICKLES
    ):
        raise folders.not_a_folder(path)
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
    import diffusers

    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    if variant is not None:
        options["variant"] = variant
    if contents.family.pipeline is None:
        where = {name: contents.shared.get(name, contents.folder / name) for name in ("unet", "scheduler")}
        unet = diffusers.UNet2DModel.from_pretrained(where["unet"], torch_dtype=dtype, **options)
        scheduler_class = getattr(diffusers, str(contents.configs["scheduler"].get("_class_name")), None)
        if scheduler_class is None:
            raise ModelError(
                f"{where['scheduler']} names no scheduler of diffusers; set _class_name, e.g. DDPMScheduler"
            )
        scheduler = scheduler_class.from_pretrained(where["scheduler"])
        return LabelPipeline.check(unet, scheduler, contents.configs["labels"], contents.folder / LABELS_FILE)
    shared = {name: _read_shared(contents, name, path, dtype) for name, path in contents.shared.items()}
    pipeline_class = getattr(diffusers, contents.family.pipeline)
    return pipeline_class.from_pretrained(contents.folder, torch_dtype=dtype, **options, **shared)


def _read_shared(contents: folders.Contents, name: str, path: Path, dtype: torch.dtype) -> Any:
    import diffusers
    import transformers

    library, class_name = contents.model_index.get(name, (None, None))
    component_class = getattr(
        {"diffusers": diffusers, "transformers": transformers}.get(library), str(class_name), None
    )
    if component_class is None:
        raise ModelError(
            f"{contents.folder / folders.SHARED_FILE} shares {name!r}, which model_index.json does not name"
        )
    if not issubclass(component_class, nn.Module):
        return component_class.from_pretrained(path, local_files_only=True)
    key = "dtype" if library == "transformers" else "torch_dtype"
    return component_class.from_pretrained(path, use_safetensors=True, local_files_only=True, **{key: dtype})


def _fuse_lora(model: Model, path: Path) -> None:
    """W + scale B A in place of W, for UNet and text encoders, by diffusers and peft."""
    if isinstance(model.pipeline, LabelPipeline):
        raise UsageError(f"{model.name} is a label-conditional model, which takes no LoRA; leave lora out")
    if path.suffix.lower() in folders.PICKLES:
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
        model.pipeline.fuse_lora()
        model.pipeline.unload_lora_weights()
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        reason = " ".join(str(e).split())
        raise ModelError(f"the LoRA {file} does not fit {model.name} ({reason}); use one made for this base") from e
