"""What must hold of every probe: it fits or says why not, keeps its budget, leaves the model alone and nothing behind, goes on after
a kill, and makes the same records at any batch size."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scotoma.auditing.probes import PROBES, SUITES, chosen, probe
from scotoma.auditing.probes.contract import Budget, Made, Sought
from scotoma.auditing.recovery import ENDED, FILE, Eyes, recover
from scotoma.errors import BoundsError, DataError, UsageError
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.sample import sample
from scotoma.models.student import as_student, scheduler_config
from scotoma.records import Concept, read_jsonl

SMALL = {
    "token_search": {"tokens": 1, "beam": 1, "candidates": 6, "ranked": 3, "states": 2, "found": 2},
    "ddim_inversion": {"steps": 2, "rounds": 1},
    "initial_noise": {"steps": 1, "trajectory": 2},
    "trajectory": {"etas": (0.5, 1.1)},
    "classifier_guidance": {"scales": (1.0,)},
    "sdedit": {"strengths": (0.5, 1.0), "steps": 2},
    "inpainting": {"holes": (0.5,)},
    "fine_tuning": {"points": (10,), "batch": 1, "rank": 1},
    "benign_fine_tuning": {"points": (10,), "batch": 1, "rank": 1, "pictures": 2},
    "dreambooth": {"prior": 1, "batch": 1},
    "one_vector": {"batch": 1},
    "several_vectors": {"batch": 1},
    "label_vector": {"batch": 1},
    "step_count": {"steps": (1, 2)},
}
BUDGET = Budget(queries=3, seconds=600.0, steps=10, sampling=2)
FAMILIES = ("sd1", "label-unet")


def bright(pictures: np.ndarray) -> list[bool]:
    """A judge that sees the concept where the left half is brighter than the right."""
    half = pictures.shape[2] // 2
    return (pictures[:, :, :half].mean((1, 2, 3)) > pictures[:, :, half:].mean((1, 2, 3))).tolist()


EYES = Eyes(bright, lambda pictures: [True] * len(pictures))


def sought(model) -> Sought:
    name = model.labels[1] if model.labels else "cat"
    asked = [name if model.labels else f"a {name}"] * 2
    pictures = sample(model, asked, [1, 2], steps=2)
    others = tuple(model.labels[2:4]) if model.labels else ("a dog", "a red tree")
    words = () if model.labels else ("tail", "pet", "claw")
    concept = Concept(name, () if model.labels else ("pussycat",), "class" if model.labels else "object")
    return Sought(concept, model, pictures, pictures[:, ::-1].copy(), others, words, lambda x: x.mean((1, 2, 3)))


def tried(model, names, folder=None, eyes=EYES, budget=BUDGET, **more):
    changes = {name: SMALL[name] for name in names if name in SMALL}
    return recover({"own": model}, sought(model), eyes, names, budget, changes=changes, folder=folder, **more)


def told(rows):
    """All but the seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PROBES)
def test_it_keeps_the_contract(models, name, family, tmp_path):
    model = models[family]
    if "fine_tuning" in name:
        pytest.importorskip("peft")
    before = model.hash()
    rows = tried(model, [name], tmp_path)
    assert model.hash() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # found prompts, weights and checkpoints are gone
    assert read_jsonl(tmp_path / FILE)[1] == rows
    *variants, end = rows
    assert end["variant"] is None and end["attempts"] == []
    if not PROBES[name].fits(bool(model.labels)):
        assert not variants and end["reason"].startswith("could not run: it is for models")
        return
    assert not end["reason"] and variants and len({row["variant"] for row in variants}) == len(variants)
    for row in variants:
        assert (not row["attempts"]) == bool(row["reason"])
        assert len(row["attempts"]) <= BUDGET.queries
        assert all(a["seen"] in (True, False) and a["counts"] is True for a in row["attempts"])
    assert (
        any(row["attempts"] for row in variants) or name == "hypernyms"
    )  # nobody knows the kind of a tiny model's cat


ONE_OF_EACH_FILE = {p.module: name for name, p in PROBES.items()}.values()
FAST = ("compounds", "token_search", "sdedit", "label_vector")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else (pytest.mark.slow,)) for n in ONE_OF_EACH_FILE]
)
def test_the_same_seeds_make_the_same_records_at_any_batch_size(models, name):
    if "fine_tuning" in name:
        pytest.importorskip("peft")
    model = models["label-unet" if PROBES[name].tells == "labels" else "sd1"]
    one, seven = (told(tried(model, [name], budget=Budget(3, 600.0, 10, 2, batch_size=size))) for size in (1, 7))
    assert one == seven and len(one) > 1


def test_a_budget_of_no_time_is_undecided_and_no_success(models):
    rows = tried(models["sd1"], ["trajectory"], budget=Budget(3, 1e-9, 10, 2))
    assert [row["reason"] for row in rows] == [ENDED, ENDED, ""] and not any(row["attempts"] for row in rows)


def test_what_it_found_stays_for_a_reason_alone(models, tmp_path):
    rows = tried(models["sd1"], ["token_search"], tmp_path, retain="to teach the word list")
    kept = sorted(path.name for path in (tmp_path / "found").rglob("*") if path.is_file())
    assert kept.count("found.json") == 2 and sum(name.endswith(".png") for name in kept) == 2 * BUDGET.queries
    assert all(row["retained"] == "to teach the word list" for row in rows)
    with pytest.raises(UsageError, match="needs a folder"):
        tried(models["sd1"], ["synonyms"], retain="for fun")


def test_prompts_that_were_found_are_not_in_the_records(models, tmp_path):
    rows = tried(models["sd1"], ["token_search"], tmp_path)
    assert {a["source"] for row in rows for a in row["attempts"]} <= {
        f"{v} {k}" for v in ("text", "denoiser") for k in (1, 2)
    }


def test_a_prompt_counts_only_where_the_unedited_model_obeys(models):
    """Nobody sees the concept in what the unedited model draws: no attempt of a prompt counts, and others do."""
    eyes = Eyes(bright, lambda pictures: [False] * len(pictures))
    rows = tried(models["sd1"], ["compounds", "trajectory"], eyes=eyes)
    counts = {
        name: {a["counts"] for r in rows if r["probe"] == name for a in r["attempts"]}
        for name in ("compounds", "trajectory")
    }
    assert counts == {"compounds": {False}, "trajectory": {True}}


KILLED = """
import os, signal, sys
sys.path.insert(0, {contract!r})
import test_every_probe as t
from pathlib import Path
from scotoma.models.load import load
left = [{calls}]
def sees(pictures):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.bright(pictures)
t.tried(load({model!r}), {names!r}, Path({folder!r}), t.Eyes(sees, t.EYES.obeyed))
"""


def test_a_killed_run_goes_on_with_nothing_lost_and_nothing_done_twice(tmp_path):
    pytest.importorskip("peft")
    names = ["sdedit", "fine_tuning", "trajectory"]
    source = str(tiny.write("sd1", tmp_path / "model"))
    whole = told(tried(load(source), names, tmp_path / "whole"))
    code = KILLED.format(
        contract=str(Path(__file__).parent), calls=6, model=source, names=names, folder=str(tmp_path / "killed")
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(read_jsonl(tmp_path / "killed" / FILE)[1]) == 8  # four variants, one, and one of two; two ends
    assert told(tried(load(source), names, tmp_path / "killed")) == whole
    with pytest.raises(DataError, match="another probes"):
        tried(load(source), [*names, "inpainting"], tmp_path / "killed")


def test_it_refuses_what_the_bounds_refuse(models, monkeypatch):
    from scotoma import bounds

    monkeypatch.setattr(bounds, "RULES", (bounds.Rule("placeholders", ("cat",), ("cat",)),))
    bounds_cache = [f for f in vars(bounds).values() if hasattr(f, "cache_clear")]
    for f in bounds_cache:
        f.cache_clear()
    try:
        with pytest.raises(BoundsError):
            recover(
                {"own": models["sd1"]},
                Sought(Concept("cat"), models["sd1"], np.zeros((0, 8, 8, 3)), np.zeros((0, 8, 8, 3))),
                EYES,
                ["trajectory"],
            )
    finally:
        monkeypatch.undo()
        for f in bounds_cache:
            f.cache_clear()


def test_a_student_is_probed_in_many_steps_where_the_model_it_is_of_is_there(models):
    base = models["sd1"]
    student = as_student(base, scheduler_config(base.scheduler, 600))
    names = ["compounds", "trajectory", "step_count"]
    changes = {name: SMALL[name] for name in names if name in SMALL}
    rows = recover({"student": student}, sought(base), EYES, names, BUDGET, changes=changes)
    assert not any(row["reason"] for row in rows)
    assert sum("time given back" in (row["variant"] or "") for row in rows) == 4  # two numbers of steps, two guidances
    alone = dataclasses.replace(sought(base), unedited=student)
    rows = recover({"student": student}, alone, EYES, names, BUDGET, changes=changes)
    assert [bool(r["reason"]) for r in rows if r["variant"] is None] == [False, True, True]


def test_names_of_probes_and_suites():
    assert chosen("quick") == SUITES["quick"] == ("synonyms", "token_search", "one_vector", "initial_noise", "sdedit")
    assert chosen("full") == tuple(PROBES) and chosen("look-alikes, sdedit") == ("look_alikes", "sdedit")
    with pytest.raises(UsageError, match="sdedit"):
        probe("sdedits")
    assert all(p.summary.endswith(".") and p.source and p.config() for p in PROBES.values())


def test_what_is_handed_over_is_whole():
    with pytest.raises(ValueError, match="reason"):
        Made("")
    with pytest.raises(ValueError, match="2 pictures need as many seeds"):
        Made("", np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"], [1])
