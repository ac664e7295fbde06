"""One-call students: how a network that draws in one call is told from one that needs many, and how it is configured.

A student draws from noise alone, at the one time at which it was trained: x0 = f(s z, t, cond). Stock diffusers does the
same with an Euler scheduler whose betas end at that time and whose one step is a trailing one: it starts from sigma z,
divides by sqrt(sigma^2 + 1), which gives s z, and goes to sigma = 0, which gives x0.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from scotoma.models.model import LabelPipeline, Model

SCHEDULER = "EulerDiscreteScheduler"


def one_step(scheduler: Any) -> bool:
    """Whether this is the scheduler of a one-call student: Euler, trailing, with betas of its own that end at the
    student's noise level. It is used as it is, with one step and no guidance."""
    config = scheduler.config
    return (
        type(scheduler).__name__ == SCHEDULER
        and config.get("timestep_spacing") == "trailing"
        and config.get("trained_betas") is not None
    )


def scheduler_config(scheduler: Any, t: int) -> dict[str, Any]:
    """Configuration of the `SCHEDULER` with which a student of the model with `scheduler` draws at time index t."""
    betas = type(scheduler).from_config(scheduler.config).betas[: t + 1]
    return {
        "num_train_timesteps": t + 1,
        "trained_betas": [float(b) for b in betas.double()],
        "prediction_type": scheduler.config.get("prediction_type", "epsilon"),
        "timestep_spacing": "trailing",
        "steps_offset": 0,
    }


def as_student(model: Model, config: Mapping[str, Any]) -> Model:
    """A copy of `model` that draws in one call, with the scheduler of `scheduler_config`."""
    from diffusers import EulerDiscreteScheduler

    return _with_scheduler(model.copy(), EulerDiscreteScheduler.from_config(dict(config)))


def as_multistep(student: Model, base: Model) -> Model:
    """The student's weights under the scheduler of the model that it was made from: what somebody gets who samples it
    in many steps, which it was not trained for. Shares the weights of `student`."""
    shallow = dataclasses.replace(student, pipeline=copy.copy(student.pipeline))
    return _with_scheduler(shallow, type(base.scheduler).from_config(base.scheduler.config))


def _with_scheduler(model: Model, scheduler: Any) -> Model:
    if isinstance(model.pipeline, LabelPipeline):
        model.pipeline.scheduler = scheduler
    else:
        model.pipeline.register_modules(scheduler=scheduler)
    return model
