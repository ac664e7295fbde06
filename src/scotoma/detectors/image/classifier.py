"""Any image classifier in a transformers folder: each of its classes becomes a category.

For the networks that published tables count with: a ResNet-34 tuned on CIFAR-10, from whose classes UA is counted (Fan et
al., "SalUn", ICLR 2024, and Chen et al., "Score Forgetting Distillation", ICLR 2025), a classifier of one's own, one of unsafe
pictures.

Notation: N pictures, C classes; p_c the softmax over classes, or for a network of several labels at once (problem_type
multi_label_classification) the sigmoid of each.

    score = p_c                                   decides at 0.5
    score = p_c / (p_c + max_{c' != c} p_c')      with `strongest`: at 0.5 or above where no other class is likelier (argmax)

Users bring the folder: config.json, model.safetensors, preprocessor_config.json. Remote code is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import ModelError, UsageError
from scotoma.weights.folders import quiet, refuse_pickles
from scotoma.weights.hashing import hash_tensors

FAILURES = (
    "It knows its own classes alone and calls everything one of them, pictures unlike any that it was trained on as well; its "
    "scores are not calibrated."
)


def classifier(folder: str | Path, *, strongest: bool = False, licence: str = "the user's") -> Detector:
    """Raises UnsafeFileError for pickles, ModelError for a folder that is not complete, UsageError for `strongest` with a
    network of several labels at once, whose labels do not compete."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no image classifier; give a folder with config.json and model.safetensors")
    refuse_pickles(path)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            network, info = AutoModelForImageClassification.from_pretrained(
                path, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
            processor = AutoImageProcessor.from_pretrained(path, backend="pil", **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError, SafetensorError) as e:
        raise ModelError(f"{path} cannot be loaded ({' '.join(str(e).split())}); fetch the classifier again") from e
    if lacking := [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]:
        raise ModelError(f"{path} lacks {min(lacking)}, which would be random; fetch the classifier again")
    several = network.config.problem_type == "multi_label_classification"
    if strongest and several:
        raise UsageError(
            f"{path} gives several labels at once, so that none has to be the strongest; leave strongest out"
        )
    network = network.eval().requires_grad_(False)
    names = [str(network.config.id2label[i]) for i in range(network.config.num_labels)]
    if strongest and len(names) < 2:
        raise UsageError(f"{path} knows one class alone, which has no rival; leave strongest out")

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        # One at a time: pictures of a batch may differ in size, and a processor may not make one of several.
        pixels = [processor(images=p, return_tensors="pt", input_data_format="channels_last") for p in pictures]
        with torch.inference_mode():
            logits = network(torch.cat([p["pixel_values"] for p in pixels])).logits.double()
        shares = logits.sigmoid() if several else logits.softmax(1)
        return (_against_the_strongest(shares) if strongest else shares).numpy()  # type: ignore[no-any-return]

    what = "likelier than any other class" if strongest else "the class of that name"
    card = Card(
        f"classifier {path.name}",
        "image",
        f"{network.config.model_type}, the user's folder",
        licence,
        hash_tensors(network.state_dict()),
        tuple(Category(name, what, threshold=0.5) for name in names),
        FAILURES,
    )
    return Detector(card, score)


def _against_the_strongest(shares: torch.Tensor) -> torch.Tensor:
    """N C from shares N C: p_c / (p_c + its strongest rival's)."""
    top = shares.topk(2, 1)
    is_top = torch.arange(shares.shape[1]) == top.indices[:, :1]
    return shares / (shares + torch.where(is_top, top.values[:, 1:], top.values[:, :1]))
