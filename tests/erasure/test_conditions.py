"""What a training draws: every row by itself, evenly, whoever draws it."""

from __future__ import annotations

import pytest
import torch

from scotoma.erasure.conditions import Conditions, draw, label_conditions, mix
from scotoma.erasure.training import Processes
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, TimeRange
from scotoma.models.load import load
from scotoma.records import Concept

KEPT, FORGOTTEN = 6, 3
CONDITIONS = Conditions(
    Cond(labels=torch.tensor([0, 1, 2])),
    Cond(labels=torch.tensor([3, 4])),
    (Cond(labels=torch.tensor([0])), Cond(labels=torch.tensor([0, 1, 2]))),
)


def rows(step=0, processes=None, **options):
    return draw(
        CONDITIONS, KEPT, FORGOTTEN, TimeRange(10, 99), (1, 2, 2), seed=5, step=step, processes=processes, **options
    )


def test_conditions_come_in_turn_and_forgotten_ones_are_told_apart():
    drawn = [rows(step) for step in range(2)]
    assert drawn[0].told.labels.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 3]
    assert drawn[1].told.labels.tolist() == [0, 1, 2, 0, 1, 2, 4, 3, 4]
    for part in drawn:
        kept = ~part.forgotten
        assert part.teacher.labels[kept].equal(part.told.labels[kept])
        assert part.teacher.labels[part.told.labels == 3].eq(0).all()
        assert set(part.teacher.labels[part.told.labels == 4].tolist()) <= {0, 1, 2}


def test_a_mixture_is_even():
    counts = torch.zeros(3)
    for step in range(600):
        part = rows(step)
        for label in part.teacher.labels[part.told.labels == 4]:
            counts[label] += 1
    share = counts / counts.sum()  # n = 900, standard error 0.016
    assert (share - 1 / 3).abs().max() < 0.06


def test_times_are_even_and_spread_over_each_batch():
    times = torch.stack([rows(step).t[:KEPT] for step in range(400)])
    assert times.min() >= 10 and times.max() <= 99
    slots = (times - 10) * KEPT // 90
    assert all(sorted(row.tolist()) == [0, 1, 2, 3, 4, 5] for row in slots)
    assert abs(times[:, 0].double().mean() - 54.5) < 5  # one row alone: 400 draws, standard error 1.3


def test_weights_make_two_means():
    part = rows()
    values = torch.arange(9.0)
    expected = values[:6].mean() + 0.25 * values[6:].mean()
    assert torch.isclose((part.weights(0.25) * values).sum(), expected)


def test_a_row_does_not_depend_on_who_draws_it():
    whole = rows(step=7)
    for rank in (0, 1):
        half = Processes()
        half.rank, half.world = rank, 2
        part = rows(step=7, processes=half)
        for name in ("z", "e", "t", "share", "forgotten"):
            assert getattr(part, name).equal(getattr(whole, name)[rank::2]), name
        assert part.told.labels.equal(whole.told.labels[rank::2])
        assert part.teacher.labels.equal(whole.teacher.labels[rank::2])


def test_another_step_stream_or_seed_is_other_noise():
    assert not rows(step=0).z.equal(rows(step=1).z)
    assert not rows(stream=0).z.equal(rows(stream=1).z)
    assert len({mix(a, b, c) for a in range(-1, 9) for b in range(9) for c in range(9)}) == 810


def test_without_forgetting_everything_is_kept():
    plain = CONDITIONS.distilling()
    part = draw(plain, 5, 3, TimeRange(0, 9), (1, 2, 2), seed=0, step=0)
    assert part.told.labels.tolist() == [0, 1, 2, 3, 4] and not part.forgotten.any()


@pytest.fixture(scope="module")
def model(tiny_folders):
    return load(tiny_folders["label-unet"])


def test_label_conditions(model):
    made = label_conditions(model, [Concept("class 3"), Concept("class 5")], ["class 1", ""])
    assert made.kept.labels.tolist() == [0, 1, 2, 4, 6, 7, 8, 9]
    assert made.forgotten.labels.tolist() == [3, 5]
    assert [c.labels.tolist() for c in made.becomes] == [[1], [0, 1, 2, 4, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("concepts", "instead", "message"),
    [
        ([], [""], "no class is named"),
        (["class 3", "class 4"], ["class 4", "class 1"], "class 3 would become class 4, which is forgotten too"),
        (["class 3"], ["class 1", "class 2"], "one alternative, or one for each of 1"),
        ([f"class {i}" for i in range(10)], [""], "nothing is kept"),
        (["class 33"], [""], "class 33"),
        (["class 3"], ["clas 1"], "class 1"),
    ],
)
def test_what_does_not_fit_is_named(model, concepts, instead, message):
    with pytest.raises(UsageError, match=message):
        label_conditions(model, [Concept(c) for c in concepts], instead)
