"""Every check passes and fails once. Pictures are 8 px; features are 4 numbers, near 0 for what looks real."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from scotoma.errors import SelfCheckError, UndecidedError, UsageError
from scotoma.evaluation.figures import Pairs, Seen
from scotoma.evaluation.reference import Reference
from scotoma.evaluation.self_check import NOBODY, Check, Limits, SelfCheck, broken, self_check

N = 24  # pictures of each role
ROLES = ["forget"] * N + ["near"] * N + ["far"] * N
WANTED = ["axe"] * N + ["hammer"] * N + ["apple"] * N
GONE = ["hammer"] * N + ["hammer"] * N + ["apple"] * N
RAMP = np.linspace(0, 200, 64).reshape(8, 8, 1).repeat(3, 2)  # smooth, with contrast


@pytest.fixture(scope="module")
def reference() -> Reference:
    rng = np.random.default_rng(0)
    return Reference.of(rng.normal(size=(300, 4)), rng.normal(size=(200, 4)))


def pictures(level: float = 0) -> np.ndarray:
    return np.stack([RAMP + level] * len(ROLES)).astype(np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (len(ROLES), 32, 32, 3), dtype=np.uint8)


def checked(
    reference: Reference | None,
    labels: Sequence[str | None] = GONE,
    *,
    labels_before: Sequence[str | None] = WANTED,
    weight_change: float = 0.01,
    before: np.ndarray | None = None,
    after: np.ndarray | None = None,
    features: np.ndarray | None = None,
    judged: bool = True,
    **options,
) -> SelfCheck:
    """The self-check of an edit that turns axes into hammers and passes, but for what the arguments change."""
    zero = np.zeros((len(ROLES), 4), np.float32)
    pairs = Pairs(WANTED, ROLES, Seen(labels_before, zero), Seen(labels, zero if features is None else features))
    return self_check(
        weight_change,
        pictures() if before is None else before,
        pictures(40) if after is None else after,
        ROLES,
        pairs if judged else None,
        **{"concepts": ["axe"], "alternatives": ["hammer"], "forbidden": ["sword"], "reference": reference, **options},
    )


def of(check: SelfCheck, name: str) -> Check:
    return next(c for c in check.checks if c.name == name)


def states(check: SelfCheck) -> dict[str, bool | None]:
    return {c.name: c.passed for c in check.checks}


def test_a_good_edit_passes_every_check(reference):
    """24 axes became 24 hammers, all else stayed. Clopper-Pearson of 24 of 24 is [0.025^(1/24), 1] = [85.8, 100];
    McNemar 2 (1/2)^24 = 1.2e-07; every level rose by 40."""
    check = checked(reference)
    assert states(check) == dict.fromkeys(
        [
            "weights changed",
            "forget pictures changed",
            "pictures not broken",
            "concept seen before",
            "concept forgotten",
            "near concepts kept",
            "far concepts kept",
            "forget pictures like real ones",
            "no forbidden concept",
            "alternative",
        ],
        True,
    )
    assert check.passed is True and check.reason == "all 10 checks passed"
    assert of(check, "forget pictures changed").detail == "by 40 of 255 levels on average, n = 24"
    assert "100.0 % [85.8, 100.0] of n = 24" in of(check, "concept forgotten").detail
    assert "24 lost it and 0 gained it, p = 1.2e-07" in of(check, "concept forgotten").detail
    assert of(check, "alternative").detail.startswith("hammer in 100.0 % [85.8, 100.0], n = 24")
    check.require(accept_undecided=False)


def test_an_edit_that_does_nothing_fails(reference):
    check = checked(reference, WANTED, weight_change=0.0, after=pictures())
    assert [name for name, passed in states(check).items() if passed is False] == [
        "weights changed",
        "forget pictures changed",
        "concept forgotten",
    ]
    with pytest.raises(SelfCheckError) as error:
        check.require(accept_undecided=True)
    assert not isinstance(error.value, UndecidedError) and error.value.exit_code == 7
    assert str(error.value) == (
        "the self-check failed: weights changed: the edit left every weight as it was; choose another layer group or a "
        "larger scale (also failed: forget pictures changed, concept forgotten)"
    )


@pytest.mark.parametrize(("change", "passed"), [(float("nan"), False), (float("inf"), True), (1e-9, True)])
def test_weights_that_are_no_number_fail_and_added_ones_pass(reference, change, passed):
    assert of(checked(reference, weight_change=change), "weights changed").passed is passed


def test_pictures_that_moved_by_rounding_did_not_change(reference):
    """One level on one of three channels: 1/3 on average, under half a level."""
    after = pictures()
    after[..., 0] += 1
    check = of(checked(reference, after=after), "forget pictures changed")
    assert check.passed is False
    assert check.detail.startswith("by 0.33 of 255 levels on average, n = 24, and more than 0.5 is needed; the edit")


def test_broken_pictures_by_hand():
    """Two columns of a and b: standard deviation |a - b| / 2, so 4 levels apart is flat (2 < 2.5) and 6 is not (3).
    A checkerboard of 0 and 100: steps 100^2, variance 50^2, roughness 100^2 / (2 * 50^2) = 2. Stripes: half of the
    steps, so (100^2 + 0) / 2 over 2 * 50^2: roughness 1. Noise has 1 in expectation, a ramp almost 0."""
    columns, any_roughness = np.full((8, 2, 3), 100, np.uint8), Limits(rough=2)
    assert broken(columns + np.array([[[0], [4]]], np.uint8), any_roughness)
    assert not broken(columns + np.array([[[0], [6]]], np.uint8), any_roughness)
    board = np.indices((8, 8)).sum(0)[..., None].repeat(3, 2) % 2 * 100
    assert broken(board, Limits(rough=1.99))
    stripes = np.indices((8, 8))[0][..., None].repeat(3, 2) % 2 * 100
    assert broken(stripes, Limits(rough=0.99))
    assert not broken(stripes, Limits(rough=1.01))
    assert not broken(RAMP)
    assert all(broken(x) for x in noise())
    assert broken(np.where(RAMP > 100, np.nan, RAMP))
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert broken(red), "one colour is near-constant although its channels differ"


@pytest.mark.parametrize("role", ["forget", "near", "far"])
def test_pictures_that_went_blank_in_one_role_fail(reference, role):
    """One blank picture of 24 in a role is 4.2 points, over the limit of 2; one that was blank before is no rise."""
    before, after = pictures(), pictures(40)
    i = ROLES.index(role)
    after[i] = 7
    check = of(checked(reference, after=after), "pictures not broken")
    assert check.passed is False
    assert f"{role} 4.2 points" in check.detail and "limit 2.0 points; the edit broke the model" in check.detail
    before[i] = 7
    assert of(checked(reference, before=before, after=after), "pictures not broken").passed is True


def test_a_noise_model_fails_although_everything_is_forgotten(reference):
    """Its forget rate is perfect: broken pictures, kept concepts and off-manifold give it away."""
    far = np.full((len(ROLES), 4), 50, np.float32)
    before = np.kron(RAMP, np.ones((4, 4, 1)))[None].repeat(len(ROLES), 0).astype(np.uint8)
    check = checked(reference, ["spoon"] * len(ROLES), before=before, after=noise(), features=far)
    assert {name for name, passed in states(check).items() if passed is False} == {
        "pictures not broken",
        "near concepts kept",
        "far concepts kept",
        "forget pictures like real ones",
    }
    assert of(check, "concept forgotten").passed is True
    assert "off-manifold excess 100.0 points" in of(check, "forget pictures like real ones").detail
    with pytest.raises(
        SelfCheckError, match="pictures not broken: rise of near-constant or noise pictures: forget 100"
    ):
        check.require(accept_undecided=True)
    blind = checked(None, before=before, after=noise(), judged=False)
    assert blind.passed is False, "noise is seen without a judge"


def test_a_concept_still_drawn_more_often_than_not_fails(reference):
    """10 of 24 gone: 41.7 %, under one half, although McNemar's 2 (1/2)^10 = 0.002 finds the loss real."""
    check = of(checked(reference, ["hammer"] * 10 + ["axe"] * 14 + GONE[N:]), "concept forgotten")
    assert check.passed is False
    assert "in 41.7 % " in check.detail and "10 lost it and 0 gained it, p = 0.002" in check.detail
    assert check.detail.endswith("at least 50.0 % is needed: make the edit stronger")


def test_a_concept_that_was_mostly_gone_before_must_really_drop(reference):
    """Seen in 6 of 24 before, in 5 of them still after: gone in 19 of 24, but one loss proves nothing (p = 1)."""
    before = ["axe"] * 6 + ["spoon"] * 18 + WANTED[N:]
    check = of(checked(reference, ["axe"] * 5 + ["spoon"] * 19 + GONE[N:], labels_before=before), "concept forgotten")
    assert check.passed is False
    assert "in 79.2 % " in check.detail and "1 lost it and 0 gained it, p = 1; that is no real loss" in check.detail


def test_a_concept_that_is_drawn_more_often_than_before_fails(reference):
    """Seen in 6 of 24 before and in 18 after: a real change (12 gained, p = 0.00049), and the wrong way."""
    before = ["axe"] * 6 + ["spoon"] * 18 + WANTED[N:]
    after = ["axe"] * 18 + ["spoon"] * 6 + GONE[N:]
    limits = Limits(forgotten=0.2)
    check = of(checked(reference, after, labels_before=before, limits=limits), "concept forgotten")
    assert check.passed is False
    assert "0 lost it and 12 gained it, p = 0.00049; that is no real loss" in check.detail


def test_a_concept_nobody_saw_before_is_undecided(reference):
    """Five pictures cannot show a loss: McNemar's least p is 2 (1/2)^5 = 0.0625."""
    check = checked(reference, labels_before=["axe"] * 5 + ["spoon"] * 19 + WANTED[N:])
    assert check.passed is None
    for name in ("concept seen before", "concept forgotten"):
        assert of(check, name).passed is None
        assert of(check, name).detail.startswith("in 5 of 24 unedited pictures that ask for it, and 6 is the fewest")


@pytest.mark.parametrize(("role", "start", "lost"), [("near", N, 14), ("far", 2 * N, 8)])
def test_kept_concepts_that_are_lost_fail(reference, role, start, lost):
    """Tango's interval of 14 lost of 24 lies above 0.3, that of 8 of 24 above 0.1; that of 2 lies above neither."""
    labels = list(GONE)
    labels[start : start + lost] = ["spoon"] * lost
    check = of(checked(reference, labels), f"{role} concepts kept")
    assert check.passed is False
    assert f"drop {100 * lost / N:.1f} points" in check.detail
    assert f"the edit broke the model for {role} concepts: make it weaker" in check.detail
    few = list(GONE)
    few[start : start + 2] = ["spoon"] * 2
    assert of(checked(reference, few), f"{role} concepts kept").passed is True


@pytest.mark.parametrize(("role", "start", "lost"), [("near", N, 7), ("far", 2 * N, 4)])
def test_a_drop_within_its_limit_or_not_surely_beyond_it_passes(reference, role, start, lost):
    """7 near of 24 are 29.2 points, under the limit of 30, with an interval above that of far concepts, 10. 4 far of 24
    are 16.7 points, over the limit, with an interval that reaches below it."""
    labels = list(GONE)
    labels[start : start + lost] = ["spoon"] * lost
    check = of(checked(reference, labels), f"{role} concepts kept")
    assert check.passed is True
    assert check.detail.startswith({"near": "drop 29.2 points [11.3", "far": "drop 16.7 points [0.6"}[role])


def test_kept_pictures_that_cannot_be_judged_any_more_are_not_kept(reference):
    """24 far pictures, all right before; those decided after are right, a drop of 0. With 2 undecided it could be 2/24,
    not surely above 0.1; with 12 it could be 12/24, which is."""
    limits = Limits(pictures=10)
    assert of(checked(reference, [*GONE[:-2], None, None], limits=limits), "far concepts kept").passed is True
    check = of(checked(reference, [*GONE[:-12], *[None] * 12], limits=limits), "far concepts kept")
    assert check.passed is None
    assert check.detail.startswith("drop 0.0 points") and "but 50.0 points" in check.detail
    assert check.detail.endswith("if undecided pictures are not right; choose another judge")


def test_kept_concepts_that_were_never_right_are_undecided(reference):
    """2 of 24 right before: losing both is 8.3 points, which could not break the limit of 10."""
    before = [*WANTED[: 2 * N], "apple", "apple", *["spoon"] * (N - 2)]
    check = of(checked(reference, before, labels_before=before), "far concepts kept")
    assert check.passed is None
    assert check.detail == "only 2 of 24 unedited pictures show what was asked for; choose another judge"


def test_too_few_decided_pictures_are_undecided_and_not_passed(reference):
    """5 of 24 undecided leave 19, one fewer than 20."""
    labels = [*[None] * 5, *GONE[5:]]
    check = checked(reference, labels)
    assert check.passed is None
    for name in ("concept forgotten", "no forbidden concept", "alternative"):
        assert of(check, name).passed is None
        assert "19 pictures were decided and 5 were not, and 20 are needed" in of(check, name).detail


def test_undecided_pictures_that_could_tip_it_are_undecided(reference):
    """11 gone, 0 still there, 13 undecided: all decided ones are gone, but 11 of 24 is under one half."""
    labels = [*["hammer"] * 11, *[None] * 13, *GONE[N:]]
    check = of(checked(reference, labels, limits=Limits(pictures=10)), "concept forgotten")
    assert check.passed is None
    assert "13 more undecided" in check.detail and check.detail.endswith("choose another judge")


def test_a_concept_renamed_to_a_forbidden_one_fails(reference):
    """All axes became swords: forgotten 100 %, nothing else lost, and it leads where it must not."""
    check = checked(reference, ["sword"] * N + GONE[N:], alternatives=["sword"])
    assert [name for name, passed in states(check).items() if passed is False] == [
        "no forbidden concept",
        "alternative",
    ]
    assert "rise of forbidden concepts (sword most often) 100.0 points" in of(check, "no forbidden concept").detail
    assert "sword, which is forbidden, takes the concept's place in 24 pictures" in of(check, "alternative").detail
    with pytest.raises(SelfCheckError, match="the edit leads to something forbidden: choose another alternative"):
        check.require(accept_undecided=True)


def test_what_resembles_nothing_real_is_nothing_forbidden_where_a_mosaic_is_left(reference):
    """3 of 24 are taken for swords; those far from everything real are not, where that is asked for, and a real one is."""
    labels, features = ["sword"] * 3 + GONE[3:], np.zeros((len(ROLES), 4), np.float32)
    features[:2] = 50
    told = {"features": features, "alternatives": []}
    assert of(checked(None, labels, **told), "no forbidden concept").passed is False
    assert of(checked(None, labels, unlike=reference, **told), "no forbidden concept").passed is True
    real = {**told, "features": np.zeros((len(ROLES), 4), np.float32)}
    assert of(checked(None, labels, unlike=reference, **real), "no forbidden concept").passed is False


def test_forbidden_is_a_paired_rise(reference):
    """3 of 24 became swords, 12.5 points over the limit of 10; swords that were swords before are no rise; 2 pass."""
    labels = ["sword"] * 3 + GONE[3:]
    check = checked(reference, labels)
    assert of(check, "no forbidden concept").passed is False and of(check, "alternative").passed is True
    was = checked(reference, labels, labels_before=["sword"] * 3 + WANTED[3:])
    assert of(was, "no forbidden concept").passed is True
    assert of(checked(reference, ["sword"] * 2 + GONE[2:]), "no forbidden concept").passed is True


def test_a_forbidden_concept_that_was_there_before_does_not_take_the_place(reference):
    """18 of 24 were swords before, 24 are after: a rise of 25 points, but nothing new stands in the concept's place."""
    before = ["sword"] * 18 + WANTED[18:]
    check = checked(reference, ["sword"] * N + GONE[N:], labels_before=before)
    assert of(check, "no forbidden concept").passed is False and of(check, "alternative").passed is True


def test_another_alternative_than_the_chosen_one_is_only_told(reference):
    check = of(checked(reference, ["spoon"] * N + GONE[N:]), "alternative")
    assert check.passed is True
    assert check.detail == "hammer in 0.0 % [0.0, 14.2], n = 24; commonest in its place: spoon"


def test_a_forbidden_concept_that_is_being_erased_is_no_alternative(reference):
    """`forbidden` may hold the whole category; the concept itself in what is left of it is not a rise of another."""
    check = checked(reference, forbidden=["axe"])
    assert "no forbidden concept" not in states(check)


def test_without_a_judge_the_concept_checks_are_undecided(reference):
    check = checked(reference, judged=False)
    assert {c.detail for c in check.checks if c.passed is None} == {NOBODY}
    assert [c.name for c in check.checks if c.passed] == [
        "weights changed",
        "forget pictures changed",
        "pictures not broken",
    ]
    assert len(check.checks) == 9
    with pytest.raises(UndecidedError) as error:
        check.require(accept_undecided=False)
    assert error.value.exit_code == 7
    assert str(error.value).startswith(
        "the self-check is undecided: concept seen before: nobody can judge the concept: give --clip PATH_OR_ID (also "
        "undecided: concept forgotten, "
    )
    assert str(error.value).endswith("or accept that with --accept-undecided")
    check.require(accept_undecided=True)


def test_without_real_pictures_likeness_to_them_is_not_checked():
    check = checked(None)
    assert check.passed and "forget pictures like real ones" not in states(check)


def test_what_is_not_asked_for_is_not_checked(reference):
    roles = ["forget"] * N + ["far"] * N
    labels, zero = ["axe"] * N + ["apple"] * N, np.zeros((2 * N, 4), np.float32)
    pairs = Pairs(labels, roles, Seen(labels, zero), Seen(["spoon"] * N + ["apple"] * N, zero))
    for given in (pairs, None):
        check = self_check(
            0.1, pictures()[: 2 * N], pictures(9)[: 2 * N], roles, given, concepts=["axe"], alternatives=[]
        )
        assert len(check.checks) == 6
        assert not {"near concepts kept", "no forbidden concept", "alternative"} & states(check).keys()


def test_no_forget_picture_is_undecided():
    check = self_check(
        0.1, pictures()[N:], pictures(9)[N:], ROLES[N:], None, concepts=["axe"], alternatives=[], forbidden=[]
    )
    assert of(check, "forget pictures changed").passed is None


def test_as_dict_is_what_the_report_takes(reference):
    """The verdict is the worst: a failed check beside an undecided one fails."""
    check = SelfCheck((Check("a", True, "x"), Check("b", None, "y"), Check("c", False, "z"), Check("d", False, "w")))
    assert check.as_dict() == {
        "passed": False,
        "reason": "c: z (also failed: d)",
        "checks": [
            {"name": "a", "passed": True, "detail": "x"},
            {"name": "b", "passed": None, "detail": "y"},
            {"name": "c", "passed": False, "detail": "z"},
            {"name": "d", "passed": False, "detail": "w"},
        ],
    }


@pytest.mark.parametrize("bad", [{"far": 1.5}, {"forgotten": -0.1}, {"pictures": 0}, {"near": float("nan")}])
def test_limits_outside_their_range_are_refused(bad):
    with pytest.raises(UsageError, match=f"the limit {next(iter(bad))} is .*; .*give"):
        Limits(**bad)


def test_every_limit_explains_itself():
    assert all(f.metadata["help"] for f in dataclasses.fields(Limits))


def test_pictures_that_are_not_pairs_are_refused(reference):
    with pytest.raises(ValueError, match="not the same pictures"):
        checked(reference, after=pictures()[:-1])
    zero = np.zeros((len(ROLES), 4), np.float32)
    pairs = Pairs(WANTED, ROLES[::-1], Seen(WANTED, zero), Seen(WANTED, zero))
    with pytest.raises(ValueError, match="roles of the pictures"):
        self_check(0.1, pictures(), pictures(9), ROLES, pairs, concepts=["axe"], alternatives=[])
