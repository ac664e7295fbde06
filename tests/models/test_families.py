from __future__ import annotations

import pytest

from scotoma.errors import ModelError
from scotoma.models.families import FAMILIES, detect

UNET = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4}
SD = {"_class_name": "StableDiffusionPipeline"}
SDXL = {"_class_name": "StableDiffusionXLPipeline"}
ONE_CALL = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "trained_betas": [0.1]}


@pytest.mark.parametrize(
    "index, configs, name",
    [
        (SD, {"unet": UNET}, "sd1"),
        (SD, {"unet": UNET | {"use_linear_projection": True}}, "sd2"),
        (SDXL, {"unet": UNET | {"use_linear_projection": True}}, "sdxl"),
        ({}, {"unet": {"_class_name": "UNet2DModel"}, "labels": {}}, "label-unet"),
        (SD, {"unet": UNET, "scheduler": {"prediction_type": "v_prediction"}}, "sd1"),
        (SD, {"unet": UNET | {"time_cond_proj_dim": 4}, "scheduler": ONE_CALL}, "sd1"),
    ],
)
def test_detect(index, configs, name):
    assert detect(index, configs) is FAMILIES[name]


@pytest.mark.parametrize(
    "index, configs, found",
    [
        ({"_class_name": "FluxPipeline"}, {}, "FluxPipeline"),
        ({"_class_name": "StableDiffusion3Pipeline"}, {}, "StableDiffusion3Pipeline"),
        ({}, {}, "without a pipeline class"),
        (SD, {"unet": {"_class_name": "UNet2DModel"}}, "UNet2DModel"),
        (SD, {"unet": UNET | {"time_cond_proj_dim": 256}}, "LCM"),
        (SD, {"unet": UNET | {"in_channels": 9}}, "9 input and 4 output"),
        (SD, {"unet": UNET | {"num_class_embeds": 1000}}, "upscaler"),
        (SD, {"unet": UNET, "scheduler": {"prediction_type": "flow_prediction"}}, "flow_prediction"),
    ],
)
def test_what_is_not_known_is_named_with_what_is(index, configs, found):
    with pytest.raises(ModelError, match=found) as caught:
        detect(index, configs)
    for word in (*FAMILIES, "DiT", "SD3", "FLUX"):
        assert word in str(caught.value)


def test_rows_are_complete():
    for name, family in FAMILIES.items():
        assert family.name == name and "unet" in family.networks
        assert set(family.text_encoders) <= set(family.networks)
        assert len(family.text_encoders) == len(family.tokenizers)
        assert family.conditioning == ("labels" if name == "label-unet" else "text")
