from __future__ import annotations

import math

import pytest
import torch

from scotoma.errors import ModelError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
DDPM = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}


class Answers:
    """A network that gives one answer for every picture, or the label itself, and remembers what it was asked."""

    def __init__(self, answer: float | None = None):
        self.answer = answer
        self.calls: list[tuple[torch.Tensor, torch.Tensor, dict]] = []

    def __call__(self, x, t, **cond):
        self.calls.append((x, t, cond))
        value = cond["class_labels"].to(x.dtype).view(-1, 1, 1, 1) if self.answer is None else self.answer
        return (torch.ones_like(x) * value,)


def labels(*values: int) -> Cond:
    return Cond(labels=torch.tensor(values))


@pytest.mark.parametrize(
    "prediction, abar, x, output",
    [
        # abar 0.64: a = 0.8, s = 0.6.  x0 = 1, e = 2: x = 0.8 + 1.2 = 2.  v = a e - s x0 = 1.6 - 0.6 = 1.
        ("epsilon", 0.64, 2.0, 2.0),
        ("v_prediction", 0.64, 2.0, 1.0),
        ("sample", 0.64, 2.0, 1.0),
        # Flow, s = 0.25, a = 0.75: abar = 0.75^2 / (0.75^2 + 0.25^2) = 0.9.  x = 0.75 + 0.5 = 1.25, out = e - x0 = 1.
        ("flow_prediction", 0.9, 1.25, 1.0),
    ],
)
def test_exact_output_gives_x0_and_e_back(prediction, abar, x, output):
    """x0 = 1 and e = 2 were mixed by hand; a network that answers exactly must give both back."""
    schedule = Schedule([abar], flow=prediction == "flow_prediction")
    denoiser = Denoiser(Answers(output), schedule, prediction)
    t = torch.zeros(2, dtype=torch.int64)
    noisy = torch.full((2, 1, 3, 3), x, dtype=torch.float64)
    assert torch.allclose(schedule.noisy(torch.ones_like(noisy), 2 * torch.ones_like(noisy), t), noisy, atol=1e-12)
    assert torch.allclose(denoiser(noisy, t, labels(0, 1)), torch.ones_like(noisy), atol=1e-12)
    assert torch.allclose(denoiser.eps(noisy, t, labels(0, 1)), 2 * torch.ones_like(noisy), atol=1e-12)
    says = denoiser.output_for(torch.ones_like(noisy), 2 * torch.ones_like(noisy), t)
    assert torch.allclose(says, torch.full_like(noisy, output), atol=1e-12)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_random_states_at_every_noise_level(prediction):
    """x0 and e come back from float32 states at times over the whole schedule, each picture at its own time."""
    flow = prediction == "flow_prediction"
    schedule = Schedule.from_config({"prediction_type": "flow_prediction", "flow_shift": 3.0} if flow else SD)
    g = torch.Generator().manual_seed(0)
    x0, e = torch.randn(4, 2, 3, 3, generator=g), torch.randn(4, 2, 3, 3, generator=g)
    t = torch.tensor([20, 300, 625, 980])
    x = schedule.noisy(x0, e, t)
    a, s = schedule.coefficients(t, x0)
    exact = {"epsilon": e, "v_prediction": a * e - s * x0, "sample": x0, "flow_prediction": e - x0}[prediction]
    denoiser = Denoiser(Answers(0.0), schedule, prediction)
    assert torch.allclose(denoiser.x0_from(exact, x, t), x0, atol=2e-5)
    assert torch.allclose(denoiser.eps_from(exact, x, t), e, atol=2e-5)


def test_flow_coefficients_and_times():
    """T = 4, shift 1: s = 1/4, 2/4, 3/4, 1; a = 1 - s; the network is told s T = 1, 2, 3, 4; sigma = s / a."""
    schedule = Schedule.from_config({"prediction_type": "flow_prediction", "num_train_timesteps": 4})
    t = torch.arange(4)
    a, s = schedule.coefficients(t, torch.zeros(4, 1, 1, 1, dtype=torch.float64))
    assert torch.allclose(s.flatten(), torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose((a + s).flatten(), torch.ones(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(schedule.network_time(t), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert schedule.sigma(2).item() == pytest.approx(3.0)
    assert math.isinf(schedule.sigma(3).item())


def test_flow_shift_agrees_with_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule = Schedule.from_config(scheduler.config)
    ours = schedule.network_time(torch.arange(1000))
    assert torch.allclose(ours.flip(0), scheduler.timesteps, atol=1e-3)


def test_times_by_sigma():
    """Nearest times for sigma 0.14, 2.5 and 13.

    Linear DDPM: 39, 440, 711. Scaled-linear SD: 21, 625, 979, from sigma(20) = 0.1380, sigma(21) = 0.1415,
    sigma(979) = 12.966 and sigma(980) = 13.043, computed in float64 from the betas.
    """
    ddpm, sd = Schedule.from_config(DDPM), Schedule.from_config(SD)
    assert [ddpm.t_for_sigma(s) for s in (0.14, 2.5, 13)] == [39, 440, 711]
    assert [sd.t_for_sigma(s) for s in (0.14, 2.5, 13)] == [21, 625, 979]
    assert ddpm.time_range() == (39, 711)
    assert sd.time_range(high=2.5) == (21, 625)


def test_sigma_is_noise_over_signal():
    """abar 0.2: sigma = sqrt(0.8 / 0.2) = 2. Nearest: 1.4 is nearer to 1 (abar 0.5) than to 2, 1.6 is not."""
    schedule = Schedule([0.5, 0.2])
    assert schedule.sigma(1).item() == pytest.approx(2.0)
    assert torch.allclose(schedule.sigma(torch.tensor([1, 0])), torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert (schedule.t_for_sigma(1.4), schedule.t_for_sigma(1.6)) == (0, 1)


@pytest.mark.parametrize("sigma", [0, -1, float("inf"), float("nan")])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(UsageError, match="positive number"):
        Schedule([0.5]).t_for_sigma(sigma)


def test_empty_time_range_is_an_error():
    with pytest.raises(UsageError, match="empty"):
        Schedule([0.5, 0.2]).time_range(2.0, 2.0)


def test_trained_betas():
    """betas 0.5, 0.5: abar = 0.5, 0.25. Other fields of the config are not used then."""
    schedule = Schedule.from_config({"trained_betas": [0.5, 0.5], "beta_schedule": "linear", "num_train_timesteps": 2})
    assert schedule.alphas_cumprod.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"]
)
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedule_agrees_with_the_scheduler(name, betas):
    import diffusers

    if (name, betas) == ("EulerDiscreteScheduler", "squaredcos_cap_v2"):
        betas = "scaled_linear"
    scheduler = getattr(diffusers, name)(**(SD | {"beta_schedule": betas}))
    ours = Schedule.from_config(scheduler.config).alphas_cumprod.float()
    assert torch.allclose(ours, scheduler.alphas_cumprod, atol=1e-7)


def test_zero_terminal_snr():
    """Rescaled betas end at abar = 0: x is all noise, v says -x0, and eps says nothing of x0."""
    schedule = Schedule.from_config(SD | {"rescale_betas_zero_snr": True})
    assert schedule.alphas_cumprod[-1] == 0 and math.isinf(schedule.sigma(999).item())
    assert schedule.time_range().high < 999
    x, t = torch.full((1, 1, 1, 1), 5.0), torch.tensor([999])
    v = Denoiser(Answers(-3.0), schedule, "v_prediction")
    assert v(x, t, labels(0)).item() == pytest.approx(3.0)
    assert v.eps(x, t, labels(0)).item() == pytest.approx(5.0)
    eps = Denoiser(Answers(5.0), schedule, "epsilon")
    assert eps.eps(x, t, labels(0)).item() == 5.0
    with pytest.raises(ModelError, match="zero signal"):
        eps(x, t, labels(0))


def test_zero_noise_says_nothing_of_e_to_an_x0_network():
    denoiser = Denoiser(Answers(1.0), Schedule([1.0]), "sample")
    with pytest.raises(ModelError, match="zero noise"):
        denoiser.eps(torch.ones(1, 1, 1, 1), torch.tensor([0]), labels(0))


def test_guidance_by_hand_in_one_call():
    """The network answers its label: null 1, condition 3. w = 2: 1 + 2 (3 - 1) = 5, from one call of 2B, null first."""
    network = Answers()
    denoiser = Denoiser(network, Schedule([0.64]), "epsilon")
    x, t = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    out = denoiser.guided(x, t, labels(3, 4), labels(1, 1), 2.0)
    assert out[:, 0, 0, 0].tolist() == [5.0, 7.0]
    assert len(network.calls) == 1
    assert network.calls[0][2]["class_labels"].tolist() == [1, 1, 3, 4]


@pytest.mark.parametrize("w, asked", [(1.0, [3]), (0.0, [9])])
def test_guidance_one_and_zero_need_no_second_half(w, asked):
    network = Answers()
    out = Denoiser(network, Schedule([0.64]), "epsilon").guided(
        torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64), labels(3), labels(9), w
    )
    assert network.calls[0][2]["class_labels"].tolist() == asked and out.item() == asked[0]


def test_guiding_v_is_guiding_eps():
    """v network, abar 0.64, x = 2: eps = 0.6 * 2 + 0.8 v. v null 1, v cond 3, w = 2: eps = 2 + 2 (3.6 - 2) = 5.2."""
    denoiser = Denoiser(Answers(), Schedule([0.64]), "v_prediction")
    out = denoiser.guided(torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, dtype=torch.int64), labels(3), labels(1), 2.0)
    assert out.item() == pytest.approx(5.2)


def test_guidance_without_null_is_an_error():
    with pytest.raises(UsageError, match="needs the null condition"):
        Denoiser(Answers(), Schedule([0.5]), "epsilon").output(
            torch.zeros(1, 1, 1, 1), torch.zeros(1), labels(1), None, 3.0
        )


def test_gradients_flow():
    denoiser = Denoiser(Answers(1.0), Schedule([0.64]), "epsilon")
    x = torch.zeros(1, 1, 1, 1, requires_grad=True)
    denoiser(x, torch.tensor([0]), labels(0)).sum().backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(1 / 0.8)


@pytest.mark.parametrize(
    "prediction, flow, match",
    [("velocity", False, "not known"), ("epsilon", True, "does not fit"), ("flow_prediction", False, "does not fit")],
)
def test_prediction_must_fit(prediction, flow, match):
    with pytest.raises(ModelError, match=match):
        Denoiser(Answers(1.0), Schedule([0.5], flow=flow), prediction)


@pytest.mark.parametrize("bad", [[], [[0.5]], [1.5], [-0.1], [float("nan")]])
def test_schedule_must_be_a_row_in_unit_range(bad):
    with pytest.raises(ModelError, match="one row"):
        Schedule(bad)


def test_unknown_beta_schedule():
    with pytest.raises(ModelError, match="'cubic' is not known"):
        Schedule.from_config({"beta_schedule": "cubic"})


def test_dynamic_shifting_is_refused():
    with pytest.raises(ModelError, match="dynamic shifting"):
        Schedule.from_config({"shift": 1.0, "use_dynamic_shifting": True})


def test_cond_rows():
    cond = Cond(text=torch.arange(6.0).view(3, 2, 1), pooled=torch.arange(3.0).view(3, 1))
    assert len(cond) == 3
    assert cond[1].pooled.tolist() == [[1.0]] and cond[-1].text.tolist() == [[[4.0], [5.0]]]
    assert cond[1:].pooled.tolist() == [[1.0], [2.0]]
    assert cond[[2, 0]].pooled.tolist() == [[2.0], [0.0]]
    assert cond[torch.tensor([True, False, True])].pooled.tolist() == [[0.0], [2.0]]
    assert Cond.cat([cond, cond[0]]).pooled.tolist() == [[0.0], [1.0], [2.0], [0.0]]
    assert cond[0].expand(4).text.shape == (4, 2, 1)


def test_cond_to_keeps_labels_whole():
    assert labels(1).to(dtype=torch.float64).labels.dtype == torch.int64
    assert Cond(text=torch.zeros(1, 2, 3)).to(dtype=torch.float64).text.dtype == torch.float64


def test_cond_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="text or labels"):
        Cond()
    with pytest.raises(ValueError, match="B rows"):
        Cond(text=torch.zeros(2, 1, 1), pooled=torch.zeros(3, 1))
    with pytest.raises(ValueError, match="same tensors"):
        Cond.cat([labels(1), Cond(text=torch.zeros(1, 1, 1))])
    with pytest.raises(ValueError, match="one row"):
        labels(1, 2).expand(3)
