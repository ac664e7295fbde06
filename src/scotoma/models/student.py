"""One-call students: how a network that draws in one call is told from one that needs many, and how it is configured.

A student draws from noise alone, at the one time at which it was trained: x0 = f(s z, t, cond). Stock diffusers does the
same with an Euler scheduler whose betas end at that time and whose one step is a trailing one: it starts from sigma z,
divides by sqrt(sigma^2 + 1), which gives s z, and goes to sigma = 0, which gives x0.

A StableDiffusionPipeline would guide it, by 7.5 unless told otherwise, with a condition of no prompt that was never
trained. A UNet that takes the guidance as an input of its own is not guided by the pipeline, so the student of a
text-to-image model has such an input, with weights of 0: whatever `guidance_scale` is, it draws the same.

Somebody may still swap the scheduler for one of many steps, and call the network at times that it was not trained at,
where it says what it was made from. `hold_time` takes the time from it: it hears its own, whatever it is told.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scotoma.models.families import draws_in_one_call
from scotoma.models.model import LabelPipeline, Model

SCHEDULER = "EulerDiscreteScheduler"
GUIDANCE_WEIGHT = "time_embedding.cond_proj.weight"
# Fewest numbers in which the pipeline tells a guidance without dividing by zero: it takes half of them, less one.
GUIDANCE_WIDTH = 4


def one_step(scheduler: Any) -> bool:
    """Whether this is the scheduler of a one-call student: Euler, trailing, with betas of its own that end at the
    student's noise level. It is used as it is, with one step and no guidance."""
    return draws_in_one_call(type(scheduler).__name__, scheduler.config)


def scheduler_config(scheduler: Any, t: int) -> dict[str, Any]:
    """Configuration of the `SCHEDULER` with which a student of the model with `scheduler` draws at time index t."""
    betas = type(scheduler).from_config(scheduler.config).betas[: t + 1]
    return {
        "num_train_timesteps": t + 1,
        "trained_betas": [float(b) for b in betas.double()],
        "prediction_type": scheduler.config.get("prediction_type", "epsilon"),
        "timestep_spacing": "trailing",
        "steps_offset": scheduler.config.get("steps_offset", 0),  # trailing steps have none, but pipelines of SD want 1
    }


def as_student(model: Model, config: Mapping[str, Any]) -> Model:
    """`model` with a copy of its network that draws in one call, with the scheduler of `scheduler_config`; one that is told
    text also with an input for the guidance. The other components are shared."""
    from diffusers import EulerDiscreteScheduler

    student = dataclasses.replace(model, pipeline=copy.copy(model.pipeline))
    network = copy.deepcopy(model.unet)
    if not isinstance(model.pipeline, LabelPipeline):
        ignore_guidance(network)
    return _with(student, unet=network, scheduler=EulerDiscreteScheduler.from_config(dict(config)))


def ignore_guidance(unet: Any) -> None:
    """Give a UNet2DConditionModel, in place, an input for the guidance with weights of 0 that do not learn."""
    if unet.config.time_cond_proj_dim is not None:
        return
    first = unet.time_embedding.linear_1
    zero = torch.zeros(first.in_features, GUIDANCE_WIDTH, dtype=first.weight.dtype, device=first.weight.device)
    added = nn.Linear(GUIDANCE_WIDTH, first.in_features, bias=False, device="meta")
    added.weight = nn.Parameter(zero, requires_grad=False)
    unet.time_embedding.cond_proj = added
    unet.register_to_config(time_cond_proj_dim=GUIDANCE_WIDTH)


def ignores_guidance(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a UNet give the guidance nothing to do."""
    return GUIDANCE_WEIGHT not in state or not bool(state[GUIDANCE_WEIGHT].any())


@torch.no_grad()
def hold_time(unet: Any, t: int) -> None:
    """Make a network, in place, hear time index t whatever it is told: the first layer of its time embedding loses its
    weights, and its bias says what it says of t. Where it is told t nothing changes but rounding."""
    first = unet.time_embedding.linear_1
    seen = unet.time_proj(torch.tensor([float(t)], device=first.weight.device)).double()
    first.bias.copy_((first.weight.double() @ seen[0] + first.bias.double()).to(first.bias.dtype))
    first.weight.zero_()


def as_multistep(student: Model, base: Model, *, give_time_back: bool = False) -> Model:
    """The student under the scheduler of the model that it was made from: what somebody gets who samples it in many steps,
    which it was not trained for. With `give_time_back` also that model's reading of the time (`hold_time`), which whoever
    has the model can put back; else the weights of `student` are shared."""
    shallow = dataclasses.replace(student, pipeline=copy.copy(student.pipeline))
    components: dict[str, Any] = {"scheduler": type(base.scheduler).from_config(base.scheduler.config)}
    if give_time_back:
        components["unet"] = copy.deepcopy(student.unet)
        read = base.unet.time_embedding.linear_1.state_dict()
        components["unet"].time_embedding.linear_1.load_state_dict(read)
    return _with(shallow, **components)


def _with(model: Model, **components: Any) -> Model:
    if isinstance(model.pipeline, LabelPipeline):
        for name, component in components.items():
            setattr(model.pipeline, name, component)
    else:
        model.pipeline.register_modules(**components)
    return model
