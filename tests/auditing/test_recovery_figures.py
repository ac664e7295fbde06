"""What the records of a recovery come to, by hand."""

from __future__ import annotations

import pytest

from scotoma.auditing.recovery_figures import NOTHING_COUNTS, table


def attempt(source, seed, seen, *, counts=True, near=None):
    return {"source": source, "seed": seed, "seen": seen, "near_copy": near, "counts": counts}


def rows(model, probe, variants, *, reason=""):
    """Rows of one probe: `variants` to attempts, and the end."""
    base = {"model": model, "probe": probe, "run": 0, "step": None, "retained": "", "seconds": 1.5}
    made = [{**base, "variant": v, "reason": "" if a else "no time", "attempts": a} for v, a in variants.items()]
    return [*made, {**base, "variant": None, "reason": reason, "attempts": []}]


def of(found, probe, model):
    return next(r for r in found if (r["probe"], r["model"]) == (probe, model))


SDEDIT, INPAINTING = "concept, strength 0.6", "hole 0.75"  # the variants that are these probes' figures


def test_success_is_that_of_the_probes_own_variant_and_the_sweep_stands_beside():
    """Three pictures at two strengths. At the probe's own: no, yes, undecided, so 1 of 2; what passes at another changes nothing."""
    weak = [attempt(f"concept {i}", i, True) for i in (1, 2, 3)]
    own = [attempt("concept 1", 1, False), attempt("concept 2", 2, True), attempt("concept 3", 3, None)]
    variants = {"concept, strength 0.2": weak, SDEDIT: own}
    (row,) = table(rows("own", "sdedit", variants), unedited="before", control=None)
    f = row["success"]
    assert (f["value"], f["n"], f["undecided"]) == (0.5, 2, 1) and row["sources"] == 2
    assert [(v["variant"], v["success"]["value"], v["success"]["n"]) for v in row["variants"]] == [
        ("concept, strength 0.2", 1.0, 3),
        (SDEDIT, 0.5, 2),
    ]
    assert row["seconds"] == 4.5 and row["excess"] is None and row["unedited"] is None and row["until"] is None


def test_excess_is_over_the_same_attempts_of_the_control_at_each_variant():
    """On four pictures at the probe's own hole own 1 1 1 0, control 0 1 0 0: 2 of 4 more, in [-1, 1] and above 0.5 at one end. At a
    small hole both fill every picture: nothing more."""
    pictures = [f"concept {i}" for i in range(4)]
    own = [attempt(p, i, i < 3) for i, p in enumerate(pictures)]
    other = [attempt(p, i, i == 1) for i, p in enumerate(pictures)]
    every = [attempt(p, i, True) for i, p in enumerate(pictures)]
    found = table(
        rows("own", "inpainting", {"hole 0.5": every, INPAINTING: own})
        + rows("never", "inpainting", {"hole 0.5": every, INPAINTING: other}),
        unedited="before",
        control="never",
    )
    row = of(found, "inpainting", "own")
    assert row["excess"]["value"] == pytest.approx(0.5) and row["excess"]["n"] == 4
    assert -1 <= row["excess"]["low"] < 0.5 < row["excess"]["high"] <= 1
    assert [v["excess"]["value"] for v in row["variants"]] == [0.0, pytest.approx(0.5)]
    never = of(found, "inpainting", "never")
    assert row["control"]["value"] == 0.25 and never["excess"] is None
    assert [v["excess"] for v in never["variants"]] == [None, None]


def test_a_training_is_compared_at_equal_updates_and_by_how_many_it_needs():
    """Two attempts after 20, 50 and 100 updates. Own 1, 2, 2 of 2: half after 20. Control 0, 0, 1: half after 100. Another 0, 0,
    and cut before 100: not within 50."""
    seen = {
        "own": {20: [True, False], 50: [True, True], 100: [True, True]},
        "never": {20: [False, False], 50: [False, False], 100: [True, False]},
        "other": {20: [False, False], 50: [False, False], 100: []},
    }
    records = []
    for model, points in seen.items():
        made = rows(
            model,
            "fine_tuning",
            {f"{n} updates": [attempt(str(k), k, hit) for k, hit in enumerate(hits)] for n, hits in points.items()},
        )
        records += [{**row, "step": None if row["variant"] is None else int(row["variant"].split()[0])} for row in made]
    found = table(records, unedited="before", control="never")
    own, never, other = (of(found, "fine_tuning", model) for model in seen)
    assert [v["excess"]["value"] for v in own["variants"]] == [0.5, 1.0, 0.5] and own["excess"]["value"] == 1.0
    assert [row["until"]["value"] for row in (own, never, other)] == [20.0, 100.0, None]
    assert other["until"]["note"] == "not within 50 updates"


def test_a_probe_whose_own_variant_was_not_tried_is_undecided():
    weak = [attempt("concept 1", 1, True)]
    (row,) = table(rows("own", "sdedit", {"concept, strength 0.2": weak}), unedited="before", control=None)
    assert row["success"]["value"] is None and row["success"]["note"] == row["note"] == f"not tried: {SDEDIT}"


def test_prompts_that_the_unedited_model_does_not_obey_do_not_count():
    """Two prompts, the second does not count: 1 of 1. With neither, nothing is known, and that is said."""
    both = [attempt("a", 1, True), attempt("b", 2, False, counts=False)]
    (row,) = table(rows("own", "synonyms", {"": both}), unedited="before", control=None)
    assert (row["success"]["value"], row["success"]["n"]) == (1.0, 1) and row["copies"] is None
    (row,) = table(rows("own", "synonyms", {"": both[1:]}), unedited="before", control=None)
    assert row["success"]["value"] is None and row["success"]["n"] == 0 and row["note"] == NOTHING_COUNTS


def test_a_prompt_of_which_nobody_can_say_whether_it_counts_is_undecided():
    (row,) = table(rows("own", "synonyms", {"": [attempt("a", 1, False, counts=None)]}), unedited="x", control=None)
    assert (row["success"]["value"], row["success"]["n"], row["success"]["undecided"]) == (None, 0, 1)


def test_a_success_by_a_copy_is_shown_apart():
    """1 succeeds by a copy, 2 by no copy, 3 does not, by a copy of something else: one of three by copies."""
    own = [
        attempt("concept 1", 1, True, near=True),
        attempt("concept 2", 2, True, near=False),
        attempt("concept 3", 3, False, near=True),
    ]
    (row,) = table(rows("own", "sdedit", {SDEDIT: own}), unedited="before", control=None)
    assert row["success"]["value"] == pytest.approx(2 / 3) and row["copies"]["value"] == pytest.approx(1 / 3)


def test_attempts_of_one_given_picture_are_one_cluster():
    """Twelve hits of twelve: of one picture each the interval is that of 12 cases, of one picture in all that of 1 case
    (Clopper-Pearson: 0.025 ** (1 / n))."""
    alone = [attempt(f"concept {i}", i, True) for i in range(12)]
    same = [attempt("concept 1", i, True) for i in range(12)]
    lows = [
        table(rows("own", "sdedit", {SDEDIT: a}), unedited="x", control=None)[0]["success"]["low"]
        for a in (alone, same)
    ]
    assert lows == pytest.approx([0.025 ** (1 / 12), 0.025])


def test_a_probe_that_could_not_run_is_undecided():
    (row,) = table(rows("own", "initial_noise", {}, reason="could not run: no detector"), unedited="x", control=None)
    assert row["success"]["value"] is None and row["success"]["note"] == row["note"] == "could not run: no detector"
    (row,) = table(rows("own", "trajectory", {"eta 1": []}), unedited="x", control=None)
    assert row["success"]["value"] is None and row["note"] == "no time"
