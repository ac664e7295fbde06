"""One interface over what networks predict: x0 = f(x, t, cond). Losses are written against it, not against a network.

Notation: B batch, C channels, H W height and width of what the network denoises, L tokens, D text width, T times.
A noisy x is  x = a(t) x0 + s(t) e.  Variance preserving (eps, v, x0): a = sqrt(abar), s = sqrt(1 - abar).
Flow: a = 1 - s.  The noise level of time t is sigma(t) = s / a in both.

    prediction         the network's output    x0                    e
    epsilon            e                       (x - s out) / a       out
    v_prediction       a e - s x0              a x - s out           s x + a out
    sample             x0                      out                   (x - a out) / s
    flow_prediction    e - x0                  x - s out             x + a out

v: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, appendix D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from scotoma.errors import ModelError, UsageError

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


@dataclass(frozen=True)
class Cond:
    """What the network is told, one row per picture: `text` (B L D) or `labels` (B,) int64.

    SDXL adds `pooled` (B P) and `time_ids` (B 6): original height and width, crop top and left, target height and width.
    """

    text: Tensor | None = None
    labels: Tensor | None = None
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in self._given().items()}
        if (self.text is None) == (self.labels is None) or len(set(lengths.values())) != 1:
            raise ValueError(f"a Cond holds text or labels, and every tensor has B rows; got {lengths}")

    def _given(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Cond:
        return Cond(**{name: function(value) for name, value in self._given().items()})

    @property
    def device(self) -> torch.device:
        return next(iter(self._given().values())).device

    def __len__(self) -> int:
        return len(next(iter(self._given().values())))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Cond:
        """Rows; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        rows = torch.as_tensor(index) if not isinstance(index, slice) else index
        return self._map(lambda value: value[rows.to(value.device) if isinstance(rows, Tensor) else rows])

    @staticmethod
    def cat(parts: Sequence[Cond]) -> Cond:
        """Rows of all parts in order. Raises ValueError where parts hold different tensors."""
        names = [tuple(part._given()) for part in parts]
        if len(set(names)) != 1:
            raise ValueError(f"only Conds that hold the same tensors can be joined, got {sorted(set(names))}")
        return Cond(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names[0]})

    def expand(self, n: int) -> Cond:
        """One row repeated to B = n. Raises ValueError for more than one row."""
        if len(self) != 1:
            raise ValueError(f"only a Cond of one row expands, this one has {len(self)}")
        return self._map(lambda value: value.expand(n, *value.shape[1:]))

    def where(self, keep: Tensor, other: Cond) -> Cond:
        """Its own row where `keep` (B bool), else that of `other` (B rows)."""
        own, theirs = self._given(), other._given()
        return Cond(
            **{
                name: torch.where(keep.view(-1, *(1,) * (value.ndim - 1)), value, theirs[name])
                for name, value in own.items()
            }
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Cond:
        """Labels keep their integer type."""
        return self._map(lambda v: v.to(device=device, dtype=dtype if v.is_floating_point() else None))


class TimeRange(NamedTuple):
    low: int
    high: int


class Schedule:
    """Signal and noise by time index 0..T-1. `alphas_cumprod` is (T,), falling, in [0, 1].

    For a flow schedule it holds a^2 / (a^2 + s^2), which is what abar is in the variance-preserving convention, so
    that sigma(t) = sqrt(1 - abar) / sqrt(abar) holds for both.
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float], *, flow: bool = False):
        abar = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        if abar.ndim != 1 or not len(abar) or not bool(((abar >= 0) & (abar <= 1)).all()):
            raise ModelError(
                f"a schedule is one row of numbers in [0, 1], got shape {tuple(abar.shape)}; check the betas"
            )
        self.alphas_cumprod = abar
        self.flow = flow
        self.sigmas = ((1 - abar) / abar).sqrt()  # (T,), inf at zero signal

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """The schedule of a diffusers scheduler config, with `trained_betas` and `rescale_betas_zero_snr`.

        Raises ModelError for a beta schedule that diffusers' DDPMScheduler does not know.
        """
        if config.get("prediction_type") == "flow_prediction" or ("shift" in config and "beta_start" not in config):
            if config.get("use_dynamic_shifting"):
                raise ModelError(
                    "a flow schedule with dynamic shifting is not supported yet; set use_dynamic_shifting to false"
                )
            times = int(config.get("num_train_timesteps", 1000))
            shift = float(config.get("shift", config.get("flow_shift", 1.0)))
            s = torch.arange(1, times + 1, dtype=torch.float64) / times
            s = shift * s / (1 + (shift - 1) * s)
            return cls((1 - s) ** 2 / ((1 - s) ** 2 + s**2), flow=True)
        from diffusers import DDPMScheduler

        known = (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
        )
        try:
            scheduler = DDPMScheduler(**{key: config[key] for key in known if config.get(key) is not None})
        except NotImplementedError as e:
            raise ModelError(
                f"beta schedule {config.get('beta_schedule')!r} is not known; give the scheduler config trained_betas"
            ) from e
        return cls(scheduler.alphas_cumprod)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def sigma(self, t: Tensor | int) -> Tensor:
        """s / a at time index t, float64, the shape of t."""
        return self.sigmas[torch.as_tensor(t).cpu()]

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, s) at t (B,), each (B 1 1 1) with the dtype and device of `like`."""
        abar = self.alphas_cumprod[t.cpu()]
        a, s = abar.sqrt(), (1 - abar).sqrt()
        if self.flow:
            a, s = a / (a + s), s / (a + s)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return a.view(shape).to(like), s.view(shape).to(like)

    def noisy(self, x0: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """x = a x0 + s e. x0, e: B C H W; t: (B,)."""
        a, s = self.coefficients(t, x0)
        return a * x0 + s * e

    def network_time(self, t: Tensor) -> Tensor:
        """What the network is told: the index itself, or for flow s T as diffusers' flow schedulers count."""
        if not self.flow:
            return t
        abar = self.alphas_cumprod[t.cpu()]
        return ((1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt()) * len(self)).to(t.device, torch.float32)

    def t_for_sigma(self, sigma: float) -> int:
        """The time index whose sigma is nearest. Raises UsageError unless sigma is a positive number."""
        if not 0 < sigma < float("inf"):
            raise UsageError(f"sigma must be a positive number, got {sigma}; times run from 0.14 to 13 by default")
        return int((self.sigmas - sigma).abs().argmin())

    def time_range(self, low: float = 0.14, high: float = 13.0) -> TimeRange:
        """(t_min, t_max) by sigma, both included. Raises UsageError for an empty range."""
        if low >= high:
            raise UsageError(f"the time range from sigma {low} to {high} is empty; the first must be the smaller")
        return TimeRange(self.t_for_sigma(low), self.t_for_sigma(high))


def guide(null: Tensor, cond: Tensor, w: float | Tensor) -> Tensor:
    """null + w (cond - null): classifier-free guidance. Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022,
    Eq. 6, with w counted so that w = 1 is the conditional prediction."""
    return null + w * (cond - null)


class Denoiser:
    """x0 = f(x, t, cond), whatever the network predicts. Gradients flow through; nothing is clipped.

    `network` is a diffusers UNet2DConditionModel or UNet2DModel, or any callable with its keyword arguments that
    returns a tuple or an object with `.sample`. It runs in its own dtype; results have the dtype of x.
    """

    def __init__(self, network: Callable[..., Any], schedule: Schedule, prediction: str):
        if prediction not in PREDICTIONS:
            raise ModelError(f"prediction type {prediction!r} is not known; known: {', '.join(PREDICTIONS)}")
        if schedule.flow != (prediction == "flow_prediction"):
            raise ModelError(
                f"prediction type {prediction!r} does not fit the scheduler; check prediction_type in its config"
            )
        self.network = network
        self.schedule = schedule
        self.prediction = prediction

    def output(self, x: Tensor, time: Tensor, cond: Cond, null: Cond | None = None, guidance: float = 1.0) -> Tensor:
        """What the network says, with classifier-free guidance out(n) + w (out(c) - out(n)) in one batched call.

        x: B C H W; time: (B,) as the network counts; null: B rows, not needed at w = 1 and the only condition used at
        w = 0. Every conversion of this file is affine in the output, so guiding the output guides eps and x0 alike.
        """
        if guidance == 1.0:
            return self._call(x, time, cond)
        if null is None:
            raise UsageError(f"guidance {guidance} needs the null condition; give null, or guidance 1")
        if guidance == 0.0:
            return self._call(x, time, null)
        out_null, out_cond = self.outputs(x, time, [null, cond])
        return guide(out_null, out_cond, guidance)

    def outputs(self, x: Tensor, time: Tensor, conds: Sequence[Cond]) -> tuple[Tensor, ...]:
        """What the network says of the same x under K conditions of B rows each, in one call of K B rows."""
        k = len(conds)
        together = self._call(x.repeat(k, *(1,) * (x.ndim - 1)), time.repeat(k), Cond.cat(conds))
        return together.chunk(k)

    def _call(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        dtype = getattr(self.network, "dtype", x.dtype)
        cond = cond.to(x.device, dtype)
        if cond.labels is not None:
            result = self.network(x.to(dtype), time, class_labels=cond.labels)
        elif cond.pooled is None:
            result = self.network(x.to(dtype), time, encoder_hidden_states=cond.text)
        else:
            added = {"text_embeds": cond.pooled, "time_ids": cond.time_ids}
            result = self.network(x.to(dtype), time, encoder_hidden_states=cond.text, added_cond_kwargs=added)
        output: Tensor = result[0] if isinstance(result, tuple) else result.sample
        return output.to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x0 (B C H W) from noisy x (B C H W), time indices t (B,) int64."""
        return self.x0_from(self.output(x, self.schedule.network_time(t), cond), x, t)

    def predicts(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """What the network predicts, noise or v or x0 (B C H W), from noisy x, time indices t (B,) int64."""
        return self.output(x, self.schedule.network_time(t), cond)

    def eps(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The noise prediction e (B C H W)."""
        return self.eps_from(self.output(x, self.schedule.network_time(t), cond), x, t)

    def guided(self, x: Tensor, t: Tensor, cond: Cond, null: Cond, w: float) -> Tensor:
        """e(n) + w (e(c) - e(n)), (B C H W), one batched call; w = 1 calls the network on cond alone."""
        return self.eps_from(self.output(x, self.schedule.network_time(t), cond, null, w), x, t)

    def x0_from(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """x0 (B C H W) from the network's output, by the table above.

        Raises ModelError for an eps-predicting network at a time of zero signal, where its output says nothing of x0.
        """
        a, s = self.schedule.coefficients(t, x)
        if self.prediction == "epsilon":
            if bool((a == 0).any()):
                raise ModelError(
                    "at a time of zero signal an eps-predicting network says nothing of x0; take times from time_range()"
                )
            return (x - s * output) / a
        if self.prediction == "v_prediction":
            return a * x - s * output
        if self.prediction == "sample":
            return output
        return x - s * output

    def eps_from(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """e (B C H W) from the network's output, by the table above.

        Raises ModelError for an x0-predicting network at a time of zero noise.
        """
        a, s = self.schedule.coefficients(t, x)
        if self.prediction == "epsilon":
            return output
        if self.prediction == "v_prediction":
            return s * x + a * output
        if self.prediction == "sample":
            if bool((s == 0).any()):
                raise ModelError(
                    "at a time of zero noise an x0-predicting network says nothing of e; take a later time"
                )
            return (x - a * output) / s
        return x + a * output

    def output_for(self, x0: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """What a network that knew x0 and e (B C H W each) would say at t (B,), by the table above."""
        a, s = self.schedule.coefficients(t, x0)
        if self.prediction == "epsilon":
            return e
        if self.prediction == "v_prediction":
            return a * e - s * x0
        if self.prediction == "sample":
            return x0
        return e - x0
