"""Fashion training: its weights by hand, the share of null labels, exact resume, and a folder that loads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/zoo"))  # the scripts import one another by bare name

import train_fashion
from fashion_batches import CLASSES, FashionBatch

from scotoma.errors import DataError
from scotoma.models.denoiser import Schedule
from scotoma.models.load import load
from scotoma.models.sample import sample

TINY = train_fashion.UNET | {"block_out_channels": [8, 16], "attention_head_dim": 8}


class Fake:
    """Random pictures; interrupts once at a given draw."""

    def __init__(self, stop_at: int = -1):
        self.draws, self.stop_at = 0, stop_at

    def draw(self, n: int, rng: np.random.Generator) -> FashionBatch:
        self.draws += 1
        if self.draws == self.stop_at:
            raise KeyboardInterrupt
        pictures = torch.from_numpy(rng.uniform(-1, 1, (n, 3, 28, 28)).astype(np.float32))
        return FashionBatch(pictures, torch.from_numpy(rng.integers(0, 10, n)))


def run(out: Path, data: Fake, **changes: object) -> list[dict]:
    settings: dict = {"steps": 6, "batch": 2, "lr": 1e-3, "seed": 0, "unet_config": TINY, "save_seconds": 0.0}
    return train_fashion.fit(data, out, **settings | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("fashion")
    run(out, Fake(), measure=lambda folder: {"right": 0.5}, observe_every=6)
    yield out


def test_weight_of_v_by_hand() -> None:
    """abar = 1/2: SNR 1, weight 1 / 2. abar = 0.9: SNR 9, clipped to 5, weight 5 / 10. abar = 0.1: SNR 1/9, weight
    (1/9) / (10/9) = 0.1. abar = 5/6: SNR 5, where both branches meet, 5 / 6."""
    abar = torch.tensor([0.5, 0.9, 0.1, 5 / 6], dtype=torch.float64)
    expected = torch.tensor([0.5, 0.5, 0.1, 5 / 6], dtype=torch.float64)
    torch.testing.assert_close(train_fashion.min_snr(abar), expected)


def test_share_of_null_labels() -> None:
    """10,000 labels at 12 %: five standard deviations are 0.016."""
    labels = torch.arange(10_000) % 10
    dropped = train_fashion.drop_labels(labels, 0.12, torch.Generator().manual_seed(0))
    null = dropped == train_fashion.NULL
    assert abs(null.float().mean() - 0.12) < 0.016
    assert torch.equal(dropped[~null], labels[~null])


def test_schedule_reaches_beyond_the_times_that_distillation_uses_and_keeps_some_signal() -> None:
    schedule = Schedule.from_config(train_fashion.SCHEDULE)
    times = [schedule.t_for_sigma(s) for s in (0.14, 2.5, 13.0)]
    assert times == sorted(set(times))
    assert 13 < schedule.sigmas[-1] < float("inf")
    for sigma, t in zip((0.14, 2.5, 13.0), times, strict=True):
        assert abs(schedule.sigmas[t] / sigma - 1) < 0.05


def test_network_fits_the_budget_and_the_picture() -> None:
    unet = UNet2DModel(**train_fashion.UNET)
    assert sum(p.numel() for p in unet.parameters()) <= 2_000_000
    out = unet(torch.zeros(1, 4, 14, 14), torch.tensor([3]), class_labels=torch.tensor([10])).sample
    assert out.shape == (1, 4, 14, 14)  # 7 px up to 14 again


def test_the_exported_folder_loads_and_draws_28_px(finished: Path) -> None:
    model = load(finished / "pipeline")
    assert (model.labels, model.family.name, model.guidance) == (CLASSES, "label-unet", 1.0)
    assert model.denoiser().prediction == "v_prediction"
    assert model.null(2).labels.tolist() == [10, 10]
    pictures = sample(model, ["bag", 9], [0, 1], steps=2)
    assert pictures.shape == (2, 28, 28, 3)
    stored = load_file(finished / "pipeline/unet/diffusion_pytorch_model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}


def test_the_exported_weights_are_the_moving_average(finished: Path) -> None:
    average = load_file(finished / "run/checkpoint.safetensors")
    stored = load_file(finished / "pipeline/unet/diffusion_pytorch_model.safetensors")
    key = "conv_in.weight"
    [kept] = [v for k, v in average.items() if k.startswith("ema/") and k.rstrip("\x1f").endswith(f"average.{key}")]
    assert torch.equal(stored[key], kept.half())


def test_an_interrupted_run_ends_in_the_same_weights(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Fake(stop_at=4), measure=lambda folder: {"right": 0.5}, observe_every=6)
    again = Fake()
    run(tmp_path, again, measure=lambda folder: {"right": 0.5}, observe_every=6)
    assert again.draws == 3  # of six
    name = "pipeline/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_shipping_writes_a_card_and_replaces_the_old_folder(finished: Path, tmp_path: Path) -> None:
    package = tmp_path / "zoo/fashion-mnist"
    package.mkdir(parents=True)
    (package / "left over").write_text("")
    train_fashion.ship(finished, package)
    assert [p.name for p in package.parent.iterdir()] == ["fashion-mnist"]
    assert not (package / "left over").exists()
    assert load(package).hash() == load(finished / "pipeline").hash()
    card = json.loads((package / "card.json").read_text())
    assert card["figures"] == {"step": 6, "right": 0.5}
    assert "MIT" in card["licences"] and card["minutes"] >= 0


def test_nothing_ships_before_a_training_has_ended_and_was_measured(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished training; run this script without --ship first"):
        train_fashion.ship(tmp_path, tmp_path / "package")
    run(tmp_path, Fake(), steps=1)
    with pytest.raises(DataError, match="was never measured"):
        train_fashion.ship(tmp_path, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_without_judge_a_the_script_stops_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> None:
        raise DataError("judge fashion_a is not installed; build it")

    monkeypatch.setattr(train_fashion, "load_judge", missing)
    monkeypatch.setattr(sys, "argv", ["train_fashion.py", "--source", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="judge fashion_a is not installed"):
        train_fashion.main()
    assert not (tmp_path / "out").exists()
