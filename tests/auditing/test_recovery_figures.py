"""What the records of a recovery come to, by hand."""

from __future__ import annotations

import pytest

from scotoma.auditing.recovery_figures import NOTHING_COUNTS, any_of, table


def attempt(source, seed, seen, *, counts=True, near=None):
    return {"source": source, "seed": seed, "seen": seen, "near_copy": near, "counts": counts}


def rows(model, probe, variants, *, reason=""):
    """Rows of one probe: `variants` to attempts, and the end."""
    base = {"model": model, "probe": probe, "run": 0, "step": None, "retained": "", "seconds": 1.5}
    made = [{**base, "variant": v, "reason": "" if a else "no time", "attempts": a} for v, a in variants.items()]
    return [*made, {**base, "variant": None, "reason": reason, "attempts": []}]


def of(found, probe, model):
    return next(r for r in found if (r["probe"], r["model"]) == (probe, model))


def test_an_attempt_succeeds_where_a_variant_does():
    """Three pictures at two strengths. 1: no, yes; 2: no, no; 3: no, undecided. So 1 of the 2 that are decided, one undecided."""
    weak = [attempt("concept 1", 1, False), attempt("concept 2", 2, False), attempt("concept 3", 3, False)]
    strong = [attempt("concept 1", 1, True), attempt("concept 2", 2, False), attempt("concept 3", 3, None)]
    (row,) = table(rows("own", "sdedit", {"weak": weak, "strong": strong}), unedited="before", control=None)
    f = row["success"]
    assert (f["value"], f["n"], f["undecided"]) == (0.5, 2, 1)
    assert [(v["variant"], v["success"]["value"], v["success"]["n"]) for v in row["variants"]] == [
        ("weak", 0.0, 3),
        ("strong", 0.5, 2),
    ]
    assert row["seconds"] == 4.5 and row["excess"] is None and row["unedited"] is None


def test_excess_is_over_the_same_attempts_of_the_control():
    """Own 1 1 1 0, control 0 1 0 0 on four pictures: 2 of 4 more, in [-1, 1] and above 0.5 at one end."""
    pictures = [f"concept {i}" for i in range(4)]
    own = [attempt(p, i, i < 3) for i, p in enumerate(pictures)]
    other = [attempt(p, i, i == 1) for i, p in enumerate(pictures)]
    found = table(
        rows("own", "inpainting", {"": own}) + rows("never", "inpainting", {"": other}),
        unedited="before",
        control="never",
    )
    row = of(found, "inpainting", "own")
    assert row["excess"]["value"] == pytest.approx(0.5) and row["excess"]["n"] == 4
    assert -1 <= row["excess"]["low"] < 0.5 < row["excess"]["high"] <= 1
    assert row["control"]["value"] == 0.25 and of(found, "inpainting", "never")["excess"] is None


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


def test_a_success_by_copies_alone_is_shown_apart():
    """1 succeeds by a copy at one strength and by none at the other, 2 by a copy alone, 3 not at all: one of three by copies."""
    weak = [
        attempt("concept 1", 1, True, near=True),
        attempt("concept 2", 2, True, near=True),
        attempt("concept 3", 3, False, near=True),
    ]
    strong = [
        attempt("concept 1", 1, True, near=False),
        attempt("concept 2", 2, False, near=False),
        attempt("concept 3", 3, False, near=False),
    ]
    (row,) = table(rows("own", "sdedit", {"weak": weak, "strong": strong}), unedited="before", control=None)
    assert row["success"]["value"] == pytest.approx(2 / 3) and row["copies"]["value"] == pytest.approx(1 / 3)


def test_attempts_of_one_given_picture_are_one_cluster():
    """Twelve hits of twelve: of one picture each the interval is that of 12 cases, of one picture in all that of 1 case
    (Clopper-Pearson: 0.025 ** (1 / n))."""
    alone = [attempt(f"concept {i}", i, True) for i in range(12)]
    same = [attempt("concept 1", i, True) for i in range(12)]
    lows = [
        table(rows("own", "sdedit", {"": a}), unedited="x", control=None)[0]["success"]["low"] for a in (alone, same)
    ]
    assert lows == pytest.approx([0.025 ** (1 / 12), 0.025])


def test_a_probe_that_could_not_run_is_undecided():
    (row,) = table(rows("own", "initial_noise", {}, reason="could not run: no detector"), unedited="x", control=None)
    assert row["success"]["value"] is None and row["success"]["note"] == row["note"] == "could not run: no detector"
    (row,) = table(rows("own", "trajectory", {"eta 1": []}), unedited="x", control=None)
    assert row["success"]["value"] is None and row["note"] == "no time"


def test_any_of():
    assert [any_of(s) for s in ([False, True, None], [False, None], [False], [])] == [True, None, False, False]
