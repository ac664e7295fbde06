"""The loop: exact resume after SIGKILL, SIGTERM, foreign and damaged checkpoints, NaN, EMA rates by hand.

Run as a program (`python tests/test_training.py FOLDER`) this file is the training that gets killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from scotoma.erasure.training import EMA, Run, step_generator, train, warm_cosine
from scotoma.errors import CheckpointError, DivergedError

STEPS = 60
Update = Callable[[int, torch.Generator], Mapping[str, float]]


def tiny(folder: Path | None, *, pause: float = 0.0, seed: int = 0, **changes: object) -> tuple[Run, Update]:
    """A run of 60 steps: a small network with batch norm, Adam with a decaying rate, an EMA; saved at every step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: 1 / (1 + 0.1 * i))
    average = EMA(net, 0.99)

    def update(step: int, generator: torch.Generator) -> Mapping[str, float]:
        x = torch.randn(16, 4, generator=generator)  # B=16, 4
        loss = ((net(x).squeeze(1) - x.sum(1)) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update(net)
        time.sleep(pause)
        return {"loss": float(loss.detach())}

    settings: dict = {
        "parts": {"net": net, "optimiser": optimiser, "schedule": schedule, "average": average},
        "steps": STEPS,
        "config": {"lr": 1e-2, "betas": (0.9, 0.999)},
        "folder": folder,
        "seed": seed,
        "save_seconds": 0.0,
        "observe": lambda step: {"weight": float(net[0].weight.detach().sum())},
        "observe_every": 7,
        **changes,
    }
    return Run(**settings), update


def step_saved(folder: Path) -> int:
    """The step of the checkpoint in `folder`, 0 if there is none. One open, as the file is replaced all the time."""
    try:
        with open(folder / "checkpoint.safetensors", "rb") as f:
            head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    except FileNotFoundError:
        return 0
    return int(head["__metadata__"]["step"])


def saved(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Everything in the checkpoint: bytes of each tensor by name, and the metadata."""
    tensors = load_file(folder / "checkpoint.safetensors")
    with safe_open(folder / "checkpoint.safetensors", "pt") as f:
        return {k: v.numpy().tobytes() for k, v in tensors.items()}, f.metadata()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen]]:
    """Starts the program on `tmp_path` and returns it when its checkpoint has reached a step. Ended after the test."""
    started: list[subprocess.Popen] = []

    def started_at(step: int) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        started.append(process)
        until = time.monotonic() + 120
        while step_saved(tmp_path) < step:
            assert process.poll() is None, f"ended early: {process.communicate()[1]}"
            assert time.monotonic() < until, f"step {step} was not reached in two minutes"
            time.sleep(0.002)
        return process

    yield started_at
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, str]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run, update = tiny(folder)
    train(update, run)
    return saved(folder)


def test_killed_twice_ends_in_the_same_bytes(tmp_path: Path, start: Callable, uninterrupted: tuple) -> None:
    """SIGKILL while it saves at every step, twice; the third start finishes. Weights, Adam's state, EMA, curve."""
    for step in (11, 29):
        process = start(step)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert step <= step_saved(tmp_path) < STEPS
    run, update = tiny(tmp_path)
    curve = train(update, run)
    assert saved(tmp_path) == uninterrupted
    assert [row["step"] for row in curve] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert rows == curve


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_leaves_a_checkpoint(
    tmp_path: Path, start: Callable, uninterrupted: tuple, kind: signal.Signals
) -> None:
    """The program ends with KeyboardInterrupt after the step under way, and says that the same command resumes."""
    process = start(5)
    process.send_signal(kind)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    stopped = step_saved(tmp_path)
    assert f"training stopped after step {stopped}; the same command resumes it" in said
    assert 5 <= stopped < STEPS
    run, update = tiny(tmp_path)
    train(update, run)
    assert saved(tmp_path) == uninterrupted


def test_stopped_between_saves_saves_first(tmp_path: Path) -> None:
    """With an hour between saves, the only checkpoint is the one that the request to stop writes."""
    run, update = tiny(tmp_path, save_seconds=3600.0)

    def interrupted(step: int, generator: torch.Generator) -> Mapping[str, float]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(step, generator)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4"):
        train(interrupted, run)
    assert step_saved(tmp_path) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_finished_run_is_not_done_twice(tmp_path: Path) -> None:
    run, update = tiny(tmp_path)
    curve = list(train(update, run))

    def never(step: int, generator: torch.Generator) -> Mapping[str, float]:
        raise AssertionError("a finished run took another step")

    again, _ = tiny(tmp_path)
    assert train(never, again) == curve


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, update = tiny(None)
    assert len(train(update, run)) == 9
    assert list(tmp_path.iterdir()) == []


class TestForeignCheckpoint:
    @pytest.mark.parametrize("changes", [{"config": {"lr": 1e-3}}, {"seed": 1}])
    def test_another_run(self, tmp_path: Path, changes: dict) -> None:
        run, update = tiny(tmp_path, steps=2)
        train(update, run)
        other, update = tiny(tmp_path, **changes)
        with pytest.raises(CheckpointError, match="belongs to another run .* give another folder, or delete that file"):
            train(update, other)

    @pytest.mark.parametrize("text", [b"", b"no checkpoint at all", b"\x80\x04K\x01."])
    def test_not_a_checkpoint(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "checkpoint.safetensors").write_bytes(text)
        run, update = tiny(tmp_path)
        with pytest.raises(CheckpointError, match="checkpoint.safetensors cannot be read .* delete it to start anew"):
            train(update, run)

    def test_cut_off(self, tmp_path: Path) -> None:
        run, update = tiny(tmp_path, steps=2)
        train(update, run)
        path = tmp_path / "checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(CheckpointError, match="cannot be read"):
            train(update, tiny(tmp_path)[0])

    def test_same_config_other_parts(self, tmp_path: Path) -> None:
        """The config is the same, but the code that builds the network has changed since."""
        run, update = tiny(tmp_path, steps=2)
        train(update, run)
        other, update = tiny(tmp_path)
        other.parts = {"net": nn.Linear(5, 5)}
        with pytest.raises(CheckpointError, match="does not fit this run's net .* delete it to start anew"):
            train(update, other)

    def test_average_of_another_network(self, tmp_path: Path) -> None:
        run, update = tiny(tmp_path, steps=2)
        train(update, run)
        other, update = tiny(tmp_path)
        other.parts = {"average": EMA(nn.Linear(5, 5), 0.9)}
        with pytest.raises(CheckpointError, match="does not fit this run's average"):
            train(update, other)


def test_config_that_is_not_json_fails_before_the_first_step() -> None:
    run, _ = tiny(None, config={"dtype": torch.float32})
    with pytest.raises(TypeError, match="not JSON serializable"):
        train(lambda step, generator: pytest.fail("a step was taken"), run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_keeps_the_last_good_checkpoint(tmp_path: Path, value: float) -> None:
    run, update = tiny(tmp_path)

    def diverging(step: int, generator: torch.Generator) -> Mapping[str, float]:
        losses = update(step, generator)
        return {**losses, "extra": value if step == 5 else 0.0}

    with pytest.raises(
        DivergedError, match=rf"training: extra is {value} at step 5; start anew .* lower learning rate"
    ):
        train(diverging, run)
    assert step_saved(tmp_path) == 5


def test_tied_weights_are_saved_and_come_back(tmp_path: Path) -> None:
    """Two names for one tensor: safetensors refuses shared memory, the checkpoint holds both."""
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    train(lambda step, generator: {"loss": 0.0}, Run({"net": net}, 1, {}, folder=tmp_path))
    kept = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.zero_()
    train(lambda step, generator: {"loss": 0.0}, Run({"net": net}, 1, {}, folder=tmp_path))
    assert torch.equal(net[0].weight, kept)
    assert net[1].weight is net[0].weight


class TestStepGenerator:
    def test_each_step_gets_its_own(self) -> None:
        drawn: list[float] = []

        def update(step: int, generator: torch.Generator) -> Mapping[str, float]:
            drawn.append(float(torch.rand((), generator=generator)))
            return {"loss": 0.0}

        train(update, Run({}, 5, {}, seed=3))
        assert drawn == [float(torch.rand((), generator=step_generator(3, i))) for i in range(5)]
        assert len(set(drawn)) == 5

    def test_a_function_of_seed_and_step_alone(self) -> None:
        torch.manual_seed(5)
        first = torch.randn(4, generator=step_generator(3, 17))
        torch.manual_seed(6)
        assert torch.equal(first, torch.randn(4, generator=step_generator(3, 17)))

    def test_neighbours_differ(self) -> None:
        drawn = {float(torch.rand((), generator=step_generator(s, i))) for s in range(10) for i in range(100)}
        assert len(drawn) == 1000


class TestEMA:
    def test_rates_by_hand(self) -> None:
        """Rates 1/10, 2/11, 3/12 for a start at 0 and values 1, 1, 2: 0.9; 0.9*2/11 + 9/11 = 10.8/11; then
        10.8/11 * 1/4 + 2 * 3/4 = 2.7/11 + 1.5."""
        net = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            net.weight.zero_()
        average = EMA(net, 0.999)
        for value, expected in ((1.0, 0.9), (1.0, 10.8 / 11), (2.0, 2.7 / 11 + 1.5)):
            with torch.no_grad():
                net.weight.fill_(value)
            average.update(net)
            assert float(average.average["weight"]) == pytest.approx(expected, rel=1e-6)

    def test_rate_stops_at_decay(self) -> None:
        """With decay 0.5 the rates are 1/10, 2/11, 3/12, 4/13, 5/14, 6/15, 7/16, 8/17, 1/2, 1/2: step 8 is 9/18."""
        net = nn.Linear(1, 1, bias=False)
        average = EMA(net, 0.5)
        for step in range(12):
            with torch.no_grad():
                net.weight.zero_()
            average.average["weight"].fill_(1.0)
            average.update(net)
            assert float(average.average["weight"]) == pytest.approx(min(0.5, (1 + step) / (10 + step)), rel=1e-6)

    def test_copy_to_and_state(self) -> None:
        """Half-precision weights are averaged in fp32; counters of whole numbers keep their type."""
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).half()
        average = EMA(net, 0.9)
        assert average.average["0.weight"].dtype == torch.float32
        state = {k: v.clone() for k, v in average.state_dict().items()}
        average.update(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).half())
        average.load_state_dict(state)
        assert average.updates == 0
        with torch.no_grad():
            net[0].weight.zero_()
        average.copy_to(net)
        assert torch.equal(net[0].weight.float(), state["average.0.weight"])
        assert net[1].num_batches_tracked.dtype == torch.int64

    def test_averages_stay_on_their_device(self) -> None:
        """A checkpoint is read on the CPU; the averages of a network elsewhere must not move there. "meta" stands in."""
        average = EMA(nn.Linear(2, 2, device="meta"), 0.9)
        average.load_state_dict(EMA(nn.Linear(2, 2), 0.9).state_dict())
        assert {v.device.type for v in average.average.values()} == {"meta"}

    @pytest.mark.parametrize("decay", [-0.1, 1.0])
    def test_decay_outside(self, decay: float) -> None:
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
            EMA(nn.Linear(1, 1), decay)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run, update = tiny(Path(sys.argv[1]), pause=0.02)
    train(update, run)


def test_warm_cosine_by_hand():
    """Step 0 of 100, warm-up 4: a quarter of 1. Half way, after the warm-up: floor + (1 - floor)/2. The last: near floor."""
    assert warm_cosine(0, 100, warmup=4, floor=0.1) == pytest.approx(0.25)
    assert warm_cosine(50, 100, warmup=4, floor=0.1) == pytest.approx(0.55)
    assert warm_cosine(100, 100, warmup=4, floor=0.1) == pytest.approx(0.1)
