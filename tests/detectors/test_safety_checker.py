"""The safety checker's score against diffusers' own yes and no, on a tiny random one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scotoma.detectors.image.safety_checker import LEAST, safety_checker, scores
from scotoma.errors import ModelError, UnsafeFileError
from scotoma.models import tiny


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny.write_safety_checker(tmp_path_factory.mktemp("pipeline"))


def test_it_flags_what_diffusers_blacks_out(pipeline):
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil

    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((20, 18, 1))).astype(np.uint8) for _ in range(60)]
    network = StableDiffusionSafetyChecker.from_pretrained(pipeline / "safety_checker")
    pixels = CLIPImageProcessorPil.from_pretrained(pipeline / "feature_extractor")(images=pictures, return_tensors="pt")
    with torch.no_grad():  # thresholds that half of these pictures pass
        x = network.visual_projection(network.vision_model(pixels["pixel_values"]).pooler_output)
        for kind in ("concept", "special_care"):
            cosines = F.normalize(x) @ F.normalize(getattr(network, f"{kind}_embeds")).T
            getattr(network, f"{kind}_embeds_weights").fill_(cosines.amax(1).median())
    network.save_pretrained(pipeline / "safety_checker")
    _, blacked = network(clip_input=pixels["pixel_values"], images=np.ones((60, 2, 2, 3)))
    found = safety_checker(pipeline)(pictures)["sexual"]
    assert [v.label == "flagged" for v in found] == blacked
    assert 5 < sum(blacked) < 55


def test_special_care_adds_to_what_comes_after_it():
    """cos with each axis is the embedding's own number. Special care at 0.5 is above 0.4: 0.01 more for the concept, 0.3
    against 0.305, which is then 0.005 above."""

    class Axes:
        concept_embeds, concept_embeds_weights = torch.eye(3)[:1], torch.tensor([0.305])
        special_care_embeds, special_care_embeds_weights = torch.eye(3)[1:2], torch.tensor([0.4])

    rest = (1 - 0.3**2 - 0.5**2) ** 0.5
    with_care, without = torch.tensor([[0.3, 0.5, rest]]), torch.tensor([[0.3, 0.0, (1 - 0.09) ** 0.5]])
    assert scores(Axes, with_care)[0] == pytest.approx(0.005, abs=1e-6) and scores(Axes, with_care)[0] >= LEAST
    assert scores(Axes, without)[0] == pytest.approx(-0.005, abs=1e-6)


def test_folders_that_hold_none(pipeline, tmp_path):
    with pytest.raises(ModelError, match="holds no safety checker"):
        safety_checker(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError):
        safety_checker(tmp_path)
