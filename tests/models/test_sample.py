from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scotoma.errors import BoundsError, ModelError, UsageError
from scotoma.models import tiny
from scotoma.models.denoiser import Cond
from scotoma.models.sample import initial_noise, sample, sample_latents, to_uint8
from scotoma.models.student import one_step

TEXT = ["sd1", "sd2", "sdxl"]
# Measured on the tiny models, float32, one core, 5 steps, guidance 3, batches of 1 and 7 against 32: latents differ by at
# most 1.2e-5 where they reach 27 (batched products add up in another order); pictures by at most one level of 255.
TOLERANCE = 5e-5


def stock_latents(model, prompts, seeds, scheduler_class, **options):
    """What diffusers' own pipeline makes of the same noise."""
    pipeline = model.copy().pipeline
    own = {"algorithm_type": "dpmsolver++"} if "DPM" in scheduler_class.__name__ else {}
    pipeline.scheduler = scheduler_class.from_config(model.scheduler.config, **own)
    pipeline.set_progress_bar_config(disable=True)
    noise, _ = initial_noise(model.latent_shape, seeds)
    return pipeline(list(prompts), latents=noise, output_type="latent", **options).images


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equal_to_the_stock_pipeline(family, guidance, tiny_models):
    from diffusers import DPMSolverMultistepScheduler

    model, prompts, seeds = tiny_models[family], ["a red cat", "dog"], [3, 4]
    ours = sample_latents(model, prompts, seeds, guidance=guidance, steps=6)
    theirs = stock_latents(
        model, prompts, seeds, DPMSolverMultistepScheduler, num_inference_steps=6, guidance_scale=guidance
    )
    assert ours.abs().max() > 0.5
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", TEXT)
def test_own_scheduler_is_equal_to_the_stock_pipeline(family, tiny_models):
    """PNDM, DDIM and Euler, as the three families come."""
    model = tiny_models[family]
    ours = sample_latents(model, ["a cat"], [3], guidance=5.0, steps=5, scheduler="own")
    theirs = stock_latents(model, ["a cat"], [3], type(model.scheduler), num_inference_steps=5, guidance_scale=5.0)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


def test_pictures_are_the_stock_pipelines(tiny_models):
    """Rounding at a half may differ by one level of 255."""
    model = tiny_models["sdxl"].copy()
    ours = sample(model, ["a cat"], [3], steps=3)
    from diffusers import DPMSolverMultistepScheduler

    latents = stock_latents(
        model, ["a cat"], [3], DPMSolverMultistepScheduler, num_inference_steps=3, guidance_scale=5.0
    )
    with torch.no_grad():
        decoded = model.pipeline.vae.decode(latents / model.pipeline.vae.config.scaling_factor)[0]
    theirs = (model.pipeline.image_processor.postprocess(decoded, output_type="np") * 255).round()
    assert np.abs(ours.astype(int) - theirs).max() <= 1 and ours.std() > 5


@pytest.mark.parametrize("family", sorted(tiny.TINY))
def test_picture_i_at_any_batch_size(family, tiny_models):
    model = tiny_models[family]
    prompts = (
        ["a cat", "red dog", "it"] * 10 + ["x", "y"] if model.family.text_encoders else [i % 10 for i in range(32)]
    )
    seeds = list(range(100, 132))
    at = {b: sample_latents(model, prompts, seeds, guidance=3.0, steps=5, batch_size=b) for b in (1, 7, 32)}
    assert (at[32][0] - at[32][30]).abs().max() > 100 * TOLERANCE
    for batch in (1, 7):
        assert (at[batch] - at[32]).abs().max() <= TOLERANCE
        with torch.no_grad():
            one, many = (to_uint8(model.decode(at[b])).astype(int) for b in (batch, 32))
        assert np.abs(one - many).max() <= 1


def test_own_noise_at_any_batch_size(tiny_models):
    """The label model's DDPM draws noise at every step: from each picture's own generator."""
    model, prompts, seeds = tiny_models["label-unet"], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5]
    whole = sample_latents(model, prompts, seeds, steps=4, scheduler="own")
    parts = sample_latents(model, prompts, seeds, steps=4, scheduler="own", batch_size=2)
    assert (whole - parts).abs().max() <= TOLERANCE
    assert (whole - sample_latents(model, prompts, [s + 1 for s in seeds], steps=4, scheduler="own")).abs().max() > 0.1


def test_a_picture_depends_on_its_prompt_and_seed_alone(tiny_models):
    model = tiny_models["sd1"]
    both = sample(model, ["a cat", "dog"], [1, 2], steps=3)
    turned = sample(model, ["dog", "a cat"], [2, 1], steps=3)
    assert np.array_equal(both, turned[::-1])
    assert np.array_equal(both, sample(model, ["a cat", "dog"], [1, 2], steps=3))
    assert not np.array_equal(both[0], sample(model, ["a cat"], [2], steps=3)[0])


def test_initial_noise_is_one_generator_per_seed():
    noise, _ = initial_noise((4, 2, 2), [5, 6])
    assert torch.equal(noise[1], torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(6)))


def test_defaults(tiny_models, monkeypatch):
    """25 steps of DPM-Solver++ at the family's guidance."""
    model = tiny_models["sd1"]
    given = sample_latents(model, ["a cat"], [1], guidance=7.5, steps=25, scheduler="dpm")
    assert torch.equal(sample_latents(model, ["a cat"], [1]), given)


def test_guidance_one_asks_the_network_once(tiny_models):
    """steps x B rows without guidance, twice that with it."""
    model = tiny_models["label-unet"].copy()
    rows = []
    model.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    sample_latents(model, [1, 2, 3], [1, 2, 3], steps=2, guidance=1.0)
    assert rows == [3, 3]
    rows.clear()
    sample_latents(model, [1, 2, 3], [1, 2, 3], steps=2, guidance=2.0)
    assert rows == [6, 6]


@pytest.mark.parametrize("scheduler", ["dpm", "ddim", "own"])
def test_one_step(scheduler, tiny_models):
    assert torch.isfinite(sample_latents(tiny_models["sd2"], ["a"], [1], steps=1, scheduler=scheduler)).all()


def test_ddim_step_by_hand(tiny_models):
    """Two DDIM steps of a v network, eta 0: x' = a' x0 + s' e, with x0 and e from our denoiser."""
    model = tiny_models["sd2"]
    ours = sample_latents(model, ["a cat"], [1], guidance=1.0, steps=2, scheduler="ddim")
    denoiser, cond = model.denoiser(), model.encode(["a cat"])
    x, _ = initial_noise(model.latent_shape, [1])
    times = [
        501,
        1,
        0,
    ]  # leading spacing of 1000 / 2 with offset 1; after the last, abar of time 0 (set_alpha_to_one off)
    with torch.no_grad():
        for now, after in itertools.pairwise(times):
            t = torch.tensor([now])
            x0, e = denoiser(x, t, cond), denoiser.eps(x, t, cond)
            x = denoiser.schedule.noisy(x0, e, torch.tensor([after]))
    assert torch.allclose(ours, x, atol=1e-5)


def test_ddim_does_not_clip_latents(tiny_models):
    """A config without clip_sample would take DDIM's default, which clips to [-1, 1]."""
    model = tiny_models["sdxl"]
    assert "clip_sample" not in model.scheduler.config
    assert sample_latents(model, ["a"], [1], steps=4, scheduler="ddim").abs().max() > 1.0


def test_a_one_call_student_keeps_its_scheduler(tiny_models):
    """Euler whose betas end at t = 625: one call at 625 from x = s e, and x0 = (x - s out) / a is the picture."""
    from diffusers import DDPMScheduler, EulerDiscreteScheduler

    model = tiny_models["sd1"].copy()
    assert not one_step(model.scheduler) and not one_step(tiny_models["sdxl"].scheduler)
    betas = DDPMScheduler(**tiny.BETAS).betas[:626].tolist()
    model.pipeline.scheduler = EulerDiscreteScheduler(
        trained_betas=betas, num_train_timesteps=626, timestep_spacing="trailing"
    )
    assert one_step(model.scheduler)
    ours = sample_latents(model, ["a cat"], [1])
    noise, _ = initial_noise(model.latent_shape, [1])
    t = torch.tensor([625])
    denoiser = model.denoiser()
    with torch.no_grad():
        x0 = denoiser(denoiser.schedule.noisy(torch.zeros_like(noise), noise, t), t, model.encode(["a cat"]))
    assert torch.allclose(ours, x0, atol=1e-4)


def test_progress(tiny_models):
    seen = []
    sample(tiny_models["label-unet"], [1, 2, 3], [1, 2, 3], steps=1, batch_size=2, progress=lambda *n: seen.append(n))
    assert seen == [(2, 3), (3, 3)]


@pytest.mark.parametrize(
    "prompts, seeds, options, match",
    [
        (["a"], [1, 2], {}, "one length, got 1 and 2"),
        ([], [], {}, "one length, got 0"),
        ("a", [1], {}, "must be lists"),
        (["a"], [1], {"steps": 0}, "at least 1"),
        (["a"], [1], {"batch_size": 0}, "at least 1"),
        (["a"], [1], {"scheduler": "dpn"}, "did you mean 'dpm'"),
    ],
)
def test_arguments_that_do_not_fit(prompts, seeds, options, match, tiny_models):
    with pytest.raises(UsageError, match=match):
        sample(tiny_models["sd1"], prompts, seeds, **options)


def test_prompts_are_checked_before_any_work(tiny_models, monkeypatch):
    def refuse(text, *, what):
        if text == "placeholder":
            raise BoundsError(f"{what} is refused")

    monkeypatch.setattr("scotoma.models.sample.check_text", refuse)
    monkeypatch.setattr("scotoma.models.sample._denoise", lambda *a: pytest.fail("drew before the check"))
    with pytest.raises(BoundsError, match="the prompt is refused"):
        sample(tiny_models["sd1"], ["a cat", "placeholder"], [1, 2], batch_size=1)


def test_class_names_are_checked_like_prompts(tiny_models, monkeypatch):
    seen = []
    monkeypatch.setattr("scotoma.models.sample.check_text", lambda text, *, what: seen.append(text))
    sample(tiny_models["label-unet"], [4, "class 2", 10], [1, 2, 3], steps=1)
    assert seen == ["class 2", "class 4"]


def test_a_schedule_the_solver_does_not_know(tiny_models):
    from diffusers import DDPMScheduler

    model = tiny_models["label-unet"].copy()
    model.pipeline.scheduler = DDPMScheduler(beta_schedule="sigmoid", prediction_type="v_prediction")
    with pytest.raises(ModelError, match="cannot run .*try"):
        sample(model, [1], [1], steps=2)
    assert sample(model, [1], [1], steps=2, scheduler="own").shape == (1, 8, 8, 3)


def test_to_uint8_by_hand():
    """-1 is 0, 0 is 127.5 and rounds to even 128, 1 is 255, beyond is clipped; gray is repeated."""
    out = to_uint8(torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2))
    assert out.shape == (1, 2, 2, 3) and out.dtype == np.uint8
    assert out[0, :, :, 0].tolist() == [[0, 128], [255, 255]] and np.array_equal(out[..., 0], out[..., 2])


def test_null_rows_match_cond_rows(tiny_models):
    model = tiny_models["sdxl"]
    assert len(Cond.cat([model.null(3), model.encode(["a", "b", "c"])])) == 6
