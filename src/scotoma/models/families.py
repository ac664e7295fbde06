"""The families of generators we know, in one literal table, and how a folder is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scotoma.errors import ModelError


@dataclass(frozen=True)
class Family:
    """What differs between families. Component names are those of the diffusers folder."""

    name: str
    pipeline: str | None  # diffusers class; None: no pipeline class, only unet/ and scheduler/
    network: str  # diffusers class of unet/
    networks: tuple[str, ...]  # components that hold weights, in the order they run
    tokenizers: tuple[str, ...]
    text_encoders: tuple[str, ...]
    cross_attention: str | None  # module name under which text enters
    self_attention: str  # module name of attention within the picture
    guidance: float  # default classifier-free guidance
    predictions: tuple[str, ...]  # prediction types accepted
    latent: bool  # True: a VAE decodes; False: pixels

    @property
    def conditioning(self) -> str:
        return "text" if self.text_encoders else "labels"


VP = ("epsilon", "v_prediction", "sample")

FAMILIES: dict[str, Family] = {
    "label-unet": Family(
        name="label-unet",
        pipeline=None,
        network="UNet2DModel",
        networks=("unet",),
        tokenizers=(),
        text_encoders=(),
        cross_attention=None,
        self_attention="attentions",
        guidance=1.0,
        predictions=VP,
        latent=False,
    ),
    "sd1": Family(
        name="sd1",
        pipeline="StableDiffusionPipeline",
        network="UNet2DConditionModel",
        networks=("text_encoder", "unet", "vae"),
        tokenizers=("tokenizer",),
        text_encoders=("text_encoder",),
        cross_attention="attn2",
        self_attention="attn1",
        guidance=7.5,
        predictions=VP,
        latent=True,
    ),
    "sd2": Family(
        name="sd2",
        pipeline="StableDiffusionPipeline",
        network="UNet2DConditionModel",
        networks=("text_encoder", "unet", "vae"),
        tokenizers=("tokenizer",),
        text_encoders=("text_encoder",),
        cross_attention="attn2",
        self_attention="attn1",
        guidance=7.5,
        predictions=VP,
        latent=True,
    ),
    "sdxl": Family(
        name="sdxl",
        pipeline="StableDiffusionXLPipeline",
        network="UNet2DConditionModel",
        networks=("text_encoder", "text_encoder_2", "unet", "vae"),
        tokenizers=("tokenizer", "tokenizer_2"),
        text_encoders=("text_encoder", "text_encoder_2"),
        cross_attention="attn2",
        self_attention="attn1",
        guidance=5.0,
        predictions=VP,
        latent=True,
    ),
}
NOT_YET = ("DiT", "SD3", "FLUX")
LABELS_FILE = "scotoma-labels.json"
DEFAULTS_FILE = "scotoma-defaults.json"


def draws_in_one_call(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether this class and configuration of a scheduler are those of a one-call student: Euler, trailing, with betas of
    its own that end at the student's noise level."""
    return (
        scheduler == "EulerDiscreteScheduler"
        and config.get("timestep_spacing") == "trailing"
        and config.get("trained_betas") is not None
    )


def _refuse(found: str) -> ModelError:
    return ModelError(
        f"{found} is not supported; known families: {', '.join(FAMILIES)}; not yet: {', '.join(NOT_YET)}; "
        "give a model of a known family"
    )


def detect(model_index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> Family:
    """The family of a folder.

    Args:
        model_index: content of model_index.json; empty for a label-conditional folder, which has none.
        configs: component name to its config.json; "unet" is always needed, "labels" is the content of
            scotoma-labels.json, "scheduler" is used for the prediction type where given.

    Raises ModelError naming what is known and what is not yet.
    """
    unet = configs.get("unet", {})
    if not model_index and "labels" in configs:
        family = FAMILIES["label-unet"]
    else:
        pipeline = model_index.get("_class_name")
        if isinstance(pipeline, list):
            pipeline = pipeline[-1]
        if pipeline == FAMILIES["sdxl"].pipeline:
            family = FAMILIES["sdxl"]
        elif pipeline == FAMILIES["sd1"].pipeline:
            # SD 2.x is SD 1.x with linear projections around its attention and another text encoder.
            family = FAMILIES["sd2" if unet.get("use_linear_projection") else "sd1"]
        else:
            raise _refuse(f"a pipeline of class {pipeline}" if pipeline else "a folder without a pipeline class")
    if unet.get("_class_name") != family.network:
        raise _refuse(f"a {family.name} folder whose unet is a {unet.get('_class_name')}, not a {family.network},")
    scheduler = configs.get("scheduler", {})
    if family.latent:
        _check_text_unet(unet, draws_in_one_call(str(scheduler.get("_class_name")), scheduler))
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in family.predictions:
        raise _refuse(f"prediction type {prediction!r} of a {family.name} model")
    return family


def _check_text_unet(unet: Mapping[str, Any], one_call: bool) -> None:
    """Text UNets that need inputs we do not give: guidance embedding (LCM), inpainting channels, class labels. A one-call
    student has a guidance embedding that does nothing, which `load` checks."""
    if unet.get("time_cond_proj_dim") is not None and not one_call:
        raise _refuse("a UNet with a guidance embedding (time_cond_proj_dim, as in LCM)")
    if unet.get("in_channels", 4) != unet.get("out_channels", 4):
        raise _refuse(
            f"a UNet with {unet['in_channels']} input and {unet['out_channels']} output channels (inpainting)"
        )
    if unet.get("num_class_embeds") is not None or unet.get("class_embed_type") is not None:
        raise _refuse("a text UNet that also takes class labels (an upscaler)")
