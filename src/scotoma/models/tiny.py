"""Tiny random models of every family, built in code and offline: fakes for tests, yours and ours.

Each builder keeps what makes its family what it is (block types, attention heads, projections, encoders, scheduler
config) and shrinks widths and depths, writes a plain diffusers folder, and returns it. The weights are random: the
pictures are noise. The tokenizer's vocabulary is CLIP's byte alphabet with a few merges.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scotoma.errors import unknown_name
from scotoma.models.families import LABELS_FILE
from scotoma.weights.folders import quiet

TOKENS = 16  # L
MERGES = ("a t</w>", "c at</w>", "d o", "do g</w>", "r e", "re d</w>")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def write(family: str, folder: str | Path, *, seed: int = 0) -> Path:
    """Write the tiny model of a family to `folder`. Raises UsageError for a family that is not known."""
    if family not in TINY:
        raise unknown_name("family", family, TINY)
    with quiet():
        return TINY[family](Path(folder), seed=seed)


def tokenizer(*, pad_token: str = "<|endoftext|>") -> Any:
    """A CLIPTokenizer of 520 tokens: 256 bytes, 256 bytes that end a word, merges for "cat", "dog", "red", two marks."""
    from transformers import CLIPTokenizer

    alphabet = _byte_alphabet()
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m.split()) for m in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(m.split()) for m in MERGES]
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad_token, model_max_length=TOKENS)


def _byte_alphabet() -> list[str]:
    """One printable character for each byte, as GPT-2 and CLIP number them: printable bytes first, then the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def _text_encoder(width: int, *, act: str, projection: int | None = None) -> Any:
    """projection: width of a CLIPTextModelWithProjection; None: a plain CLIPTextModel."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocab = len(tokenizer().get_vocab())
    config = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=vocab - 2,
        eos_token_id=vocab - 1,
        pad_token_id=vocab - 1,
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def _vae(**config: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
        **config,
    )


def _unet(**config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 4}
    return UNet2DConditionModel(**(shape | config))


def _save(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder, safe_serialization=True)
    for place in folder.glob("tokenizer*"):  # the two files that published folders hold and transformers 5 leaves out
        vocab = json.dumps(tokenizer().get_vocab(), ensure_ascii=False)
        (place / "vocab.json").write_text(vocab, encoding="utf-8")
        (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return folder


def sd1(folder: Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 1.x: one CLIP encoder (quick_gelu), eight heads everywhere, convolutional projections, eps, PNDM.

    From the configs of stable-diffusion-v1-5.
    """
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    unet = _unet(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=8,
    )
    scheduler = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    return _save(_stable_diffusion(StableDiffusionPipeline, unet, scheduler, "quick_gelu"), folder)


def sd2(folder: Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 2.x: a wider CLIP encoder (gelu), heads per level, linear projections, v-prediction, DDIM.

    From the configs of stable-diffusion-2-1.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    unet = _unet(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
    )
    scheduler = DDIMScheduler(
        **BETAS, prediction_type="v_prediction", steps_offset=1, set_alpha_to_one=False, clip_sample=False
    )
    return _save(_stable_diffusion(StableDiffusionPipeline, unet, scheduler, "gelu"), folder)


def _stable_diffusion(pipeline_class: Any, unet: Any, scheduler: Any, act: str) -> Any:
    return pipeline_class(
        vae=_vae(scaling_factor=0.18215),
        text_encoder=_text_encoder(unet.config.cross_attention_dim, act=act),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(folder: Path, *, seed: int = 0) -> Path:
    """SDXL: two encoders (the second with a projection), pooled text and time ids, depth per level, eps, Euler.

    From the configs of stable-diffusion-xl-base-1.0.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(seed)
    widths, pooled, time_width = (12, 20), 20, 4
    unet = _unet(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=sum(widths),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=6 * time_width + pooled,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=_text_encoder(widths[0], act="quick_gelu"),
        text_encoder_2=_text_encoder(widths[1], act="gelu", projection=pooled),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad_token="!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    return _save(pipeline, folder)


def label_unet(folder: Path, *, seed: int = 0, classes: int = 10) -> Path:
    """Label-conditional pixel diffusion at 8 px gray, unshuffled 2x2: UNet2DModel, one null label, v-prediction, DDPM."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=classes + 1,
    )
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    DDPMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    names = [f"class {i}" for i in range(classes)]
    labels = {"classes": names, "null": classes, "pixel_unshuffle": 2, "size": 8}
    (folder / LABELS_FILE).write_text(json.dumps(labels) + "\n")
    return folder


TINY: dict[str, Callable[..., Path]] = {"label-unet": label_unet, "sd1": sd1, "sd2": sd2, "sdxl": sdxl}


def write_clip(folder: str | Path, *, seed: int = 0) -> Path:
    """A random CLIPModel folder, for `--clip`: 16 px, patches of 8, widths of 16, embeddings of 8, 77 tokens."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    folder, words = Path(folder), tokenizer()
    words.model_max_length = 77  # CLIP's
    vocab = len(words.get_vocab())
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": vocab - 2, "eos_token_id": vocab - 1, "pad_token_id": vocab - 1}
    text = CLIPTextConfig(vocab_size=vocab, max_position_embeddings=77, **shape, **marks)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **shape)
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    with quiet():
        model.save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def write_safety_checker(folder: str | Path, *, seed: int = 0) -> Path:
    """safety_checker/ and feature_extractor/ as in a Stable Diffusion folder: a random one at 32 px, with thresholds of which
    about half of random pictures are above one."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    folder = Path(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    with quiet():
        network = StableDiffusionSafetyChecker(
            CLIPConfig(text_config={**small, "vocab_size": 10}, vision_config=vision, projection_dim=8)
        )
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(torch.full_like(value, 0.45) if name.endswith("weights") else torch.randn_like(value))
        network.save_pretrained(folder / "safety_checker")
        size, crop = {"shortest_edge": 32}, {"height": 32, "width": 32}
        CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder / "feature_extractor")
    return folder


def write_sentence_encoder(folder: str | Path, *, seed: int = 0) -> Path:
    """A random BERT in the layout of a sentence encoder: widths of 16, 12 tokens, a vocabulary of four words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    with quiet():
        BertModel(config).save_pretrained(folder)
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
