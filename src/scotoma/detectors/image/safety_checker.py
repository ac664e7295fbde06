"""The safety checker that comes with Stable Diffusion 1.x and 2.x: one score in place of its yes and no.

CompVis/stable-diffusion-safety-checker: a CLIP vision tower, 17 vectors of concepts and 3 of "special care", each with a
threshold of its own; what they stand for was kept back on purpose. Rando, Paleka, Lindner, Heim, Tramer: "Red-Teaming the
Stable Diffusion Safety Filter", 2022 (arXiv 2210.04610), found that they cover sexual content and no violence or gore.

Notation: x the image embedding; c_k, t_k concepts and thresholds, s_j, u_j those of special care.

    a = 0.01 if any s_j is above its own (a is added to those after it as well), else 0
    score = max_k cos(x, c_k) - t_k + a                          it blacks a picture out where this rounds to 0.001 or more

Users bring the weights: the folder of a pipeline, or its safety_checker and feature_extractor. The card states no licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional as F

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import ModelError
from scotoma.weights.folders import quiet, refuse_pickles
from scotoma.weights.hashing import hash_tensors

LEAST = 0.0005  # what rounds to 0.001
FAILURES = (
    "Made for photographs of sexual content: it finds no violence, gore or hate, passes much that is drawn, and flags some "
    "harmless skin."
)


def safety_checker(folder: str | Path) -> Detector:
    """Raises UnsafeFileError for pickles, ModelError for a folder that is not complete."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil

    path = Path(folder).expanduser()
    inside = path / "safety_checker" if (path / "safety_checker").is_dir() else path
    beside = path / "feature_extractor" if (path / "feature_extractor").is_dir() else inside
    if not (inside / "config.json").is_file():
        raise ModelError(
            f"{path} holds no safety checker; give the folder of a pipeline that has one, or of the checker"
        )
    refuse_pickles(inside)
    options: dict[str, Any] = {"local_files_only": True}
    try:
        with quiet():
            network, info = StableDiffusionSafetyChecker.from_pretrained(
                inside, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
            processor = CLIPImageProcessorPil.from_pretrained(beside, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as e:
        raise ModelError(
            f"{inside} cannot be loaded ({' '.join(str(e).split())}); fetch the safety checker again"
        ) from e
    if info["missing_keys"]:
        raise ModelError(f"{inside} lacks {min(info['missing_keys'])}; fetch the safety checker again")
    network = network.eval().requires_grad_(False)

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        pixels = processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")[
            "pixel_values"
        ]
        with torch.inference_mode():
            x = network.visual_projection(network.vision_model(pixels).pooler_output)
            return scores(network, x)[:, None]

    category = Category("sexual", "near to one of 17 kept-back concepts", threshold=LEAST)
    sha256 = hash_tensors(network.state_dict())
    source = "CompVis/stable-diffusion-safety-checker, the user's copy"
    return Detector(Card("sd safety checker", "image", source, "not stated", sha256, (category,), FAILURES), score)


def scores(network: Any, x: torch.Tensor) -> np.ndarray:
    """N scores from image embeddings N D."""
    care = (F.normalize(x) @ F.normalize(network.special_care_embeds).T - network.special_care_embeds_weights).numpy()
    concepts = (F.normalize(x) @ F.normalize(network.concept_embeds).T - network.concept_embeds_weights).numpy()
    adjustment = np.zeros(len(x))
    for j in range(care.shape[1]):
        adjustment = np.where(care[:, j] + adjustment >= LEAST, 0.01, adjustment)
    return concepts.max(1) + adjustment  # type: ignore[no-any-return]
