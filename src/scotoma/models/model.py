"""A generator in memory: its parts, how it is told what to draw, its pictures, its hash, its folder.

Notation: B batch, C channels, H W of what the network denoises (latents, or unshuffled pixels), H' W' of a picture.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.errors import ModelError, UsageError, unknown_name
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.families import DEFAULTS_FILE, LABELS_FILE, Family
from scotoma.models.sld import SLD
from scotoma.records import write_text
from scotoma.weights.folders import quiet, read_json
from scotoma.weights.hashing import hash_names, hash_tensor


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
    """A generator under treatment. `pipeline` is a diffusers pipeline, or a LabelPipeline for label-unet.

    `defaults` is what the folder's scotoma-defaults.json says, if it has one: "guidance" in place of the family's, and
    "data", the zoo's data set that the model was trained on. An edited folder keeps it.
    """

    pipeline: Any
    family: Family
    source: str
    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    sld: SLD | None = None  # what its sampling is steered away from; no part of its weights, its hash or its folder

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
    def guidance(self) -> float:
        """w of classifier-free guidance where nobody says otherwise."""
        return float(self.defaults.get("guidance", self.family.guidance))

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

    def encode(self, prompts: Sequence[str] | Sequence[int], *, gradient: bool = False) -> Cond:
        """B texts, or B class numbers or names for a label model, to a Cond of B rows, without gradient unless told.

        Text goes through the pipeline's own encode_prompt: SDXL takes the penultimate hidden states of both encoders,
        joined, and the pooled output of the second. Raises UsageError for the wrong kind of prompt or an unknown class.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise UsageError(f"prompts must be a list of at least one, got {prompts!r}; write [prompt]")
        if isinstance(self.pipeline, LabelPipeline):
            return Cond(labels=torch.tensor([self._label(p) for p in prompts], device=self.device))
        if not all(isinstance(p, str) for p in prompts):
            raise UsageError(f"{self.name} takes texts as prompts, got {list(prompts)[:3]}; give strings")
        with torch.set_grad_enabled(gradient):
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
        latents = latents / vae.config.scaling_factor
        if (shift := self._latent_shift(latents)) is not None:
            latents = latents * shift[1] + shift[0]
        with self._wide_vae():
            pictures: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        return pictures.float().clamp(-1, 1)

    @torch.no_grad()
    def to_latents(self, pictures: Tensor) -> Tensor:
        """What the network denoises (B C H W) from pictures (B 3 H' W' in [-1, 1]): the inverse of `decode`, for latent
        models the mode of the VAE's posterior. A model of gray pictures takes the mean of the three channels."""
        if isinstance(self.pipeline, LabelPipeline):
            channels = self.latent_shape[0] // self.pipeline.pixel_unshuffle**2
            pictures = pictures if channels == 3 else pictures.mean(1, keepdim=True)
            return nn.functional.pixel_unshuffle(pictures, self.pipeline.pixel_unshuffle)
        vae = self.pipeline.vae
        with self._wide_vae():
            latents: Tensor = vae.encode(pictures.to(vae.dtype)).latent_dist.mode().float()
        if (shift := self._latent_shift(latents)) is not None:
            latents = (latents - shift[0]) / shift[1]
        return latents * float(vae.config.scaling_factor)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) of a picture."""
        _, height, width = self.latent_shape
        pixels = isinstance(self.pipeline, LabelPipeline)
        scale = self.pipeline.pixel_unshuffle if pixels else self.pipeline.vae_scale_factor
        return width * scale, height * scale

    def _latent_shift(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation by which the SDXL pipeline shifts latents, where its VAE has them."""
        mean, std = (self.pipeline.vae.config.get(f"latents_{name}") for name in ("mean", "std"))
        if self.family.name != "sdxl" or mean is None or std is None:
            return None
        return torch.tensor(mean).view(1, -1, 1, 1).to(like), torch.tensor(std).view(1, -1, 1, 1).to(like)

    @contextmanager
    def _wide_vae(self) -> Iterator[None]:
        """The VAE in float32 for a while, where in float16 it would overflow (SDXL's)."""
        vae = self.pipeline.vae
        half = vae.dtype
        upcast = half == torch.float16 and bool(vae.config.get("force_upcast"))
        if upcast:
            vae.to(torch.float32)
        try:
            yield
        finally:
            if upcast:
                vae.to(half)

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
        return dataclasses.replace(self, pipeline=copy.deepcopy(self.pipeline, kept))

    def steered(self, sld: SLD | None) -> Model:
        """The same weights, sampled with Safe Latent Diffusion. Raises UsageError for a model that is told labels."""
        if sld is not None and self.labels:
            raise UsageError(f"{self.name} is told labels, and sld steers away from texts; give a text-to-image model")
        return dataclasses.replace(self, sld=sld)

    def save(self, folder: str | Path, *, max_shard_size: str | int | None = None) -> None:
        """Write a plain, complete folder: stock diffusers loads it; shared components are written out in full.

        Raises UsageError where `folder` is a file.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; give a folder to save the model to")
        extra = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        with quiet():
            if isinstance(self.pipeline, LabelPipeline):
                self.unet.save_pretrained(folder / "unet", safe_serialization=True, **extra)
                self.scheduler.save_pretrained(folder / "scheduler")
                write_text(folder / LABELS_FILE, json.dumps(self.pipeline.labels_json(), indent=1) + "\n")
            else:
                self.pipeline.save_pretrained(folder, safe_serialization=True, **extra)
        if self.defaults:
            write_text(folder / DEFAULTS_FILE, json.dumps(dict(self.defaults), indent=1) + "\n")
        for config in (folder / "model_index.json", *(folder / name / "config.json" for name in self.modules())):
            if config.is_file():
                write_text(config, json.dumps(_portable(read_json(config)), indent=2, sort_keys=True) + "\n")


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """A saved config without the place it was loaded from, and with class names that other releases know:
    transformers 5 without torchvision writes CLIPImageProcessorPil, and every release reads CLIPImageProcessor."""
    config = {key: value for key, value in config.items() if key != "_name_or_path"}
    for key, value in config.items():
        if isinstance(value, list) and len(value) == 2 and str(value[1]).endswith("ImageProcessorPil"):
            config[key] = [value[0], value[1].removesuffix("Pil")]
    return config
