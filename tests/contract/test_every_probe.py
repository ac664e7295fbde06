"""What must hold of every probe: it fits or says why not, keeps its budget, leaves the model alone and nothing behind, goes on after
a kill, and makes the same records at any batch size."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scotoma.auditing.probes import PROBES, SUITES, chosen, probe, token_search, trajectory
from scotoma.auditing.probes.contract import ENDED, Budget, Made, Sought
from scotoma.auditing.recovery import FILE, Eyes, recover
from scotoma.errors import BoundsError, DataError, UsageError
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.sample import sample
from scotoma.models.student import as_student, one_step, scheduler_config
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
    concept = Concept(name, () if model.labels else ("kitty",), "class" if model.labels else "object")
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


@pytest.mark.parametrize("name", PROBES)
def test_the_variant_that_is_its_figure_is_one_that_it_makes(models, name):
    """With its own settings, but few steps on the way; a training that is looked at along the way says where."""
    own = PROBES[name]
    if hasattr(own.config(), "points"):
        assert own.variant in {f"{n} updates" for n in own.config().points}
        return
    model = models["label-unet" if own.tells == "labels" else "sd1"]
    few = {"ddim_inversion": {"steps": 2}, "initial_noise": {"steps": 1}, "dreambooth": {"prior": 1}}
    small = few.get(name, SMALL[name] if name == "token_search" else {})
    rows = recover({"own": model}, sought(model), EYES, [name], Budget(1, 600.0, 1, 2), changes={name: small})
    assert own.variant in {row["variant"] for row in rows}


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
    assert kept.count("found.json") == 1 and sum(name.endswith(".png") for name in kept) == BUDGET.queries
    assert all(row["retained"] == "to teach the word list" for row in rows)
    with pytest.raises(UsageError, match="needs a folder"):
        tried(models["sd1"], ["synonyms"], retain="for fun")


def test_prompts_that_were_found_are_not_in_the_records(models, tmp_path):
    rows = tried(models["sd1"], ["token_search"], tmp_path)
    assert {a["source"] for row in rows for a in row["attempts"]} <= {"prompt 1", "prompt 2", "prompt 3"}


def edited(model):
    """A copy with one layer changed."""
    other = model.copy()
    with torch.no_grad():
        other.unet.conv_in.weight.mul_(1.5)
    return other


def test_the_search_is_done_once_and_a_model_that_is_the_unedited_one_is_not_asked_twice(models, monkeypatch):
    """The unedited model has the prompts of its text encoder alone. An edited one has the same, and those that its own network
    takes for the name; a prompt that both choose has one number."""
    base, searched = models["sd1"], []
    search = token_search.token_search
    monkeypatch.setattr(token_search, "token_search", lambda *a, **k: searched.append(1) or search(*a, **k))
    named = {"own": base, "edited": edited(base)}
    rows = recover(named, sought(base), EYES, ["token_search"], BUDGET, changes={"token_search": SMALL["token_search"]})
    assert searched == [1]
    made = {(r["model"], r["variant"]): [a["source"] for a in r["attempts"]] for r in rows if r["variant"] is not None}
    assert list(made) == [("own", "text"), ("edited", "text"), ("edited", "denoiser")]
    assert made["own", "text"] == made["edited", "text"]
    assert {s for sources in made.values() for s in sources} <= {f"prompt {k}" for k in (1, 2, 3)}


CUT = ("one_vector", "several_vectors", "dreambooth", "label_vector")


@pytest.mark.parametrize("name", CUT)
def test_a_training_that_the_clock_ended_is_undecided(models, name):
    """It is looked at every 10 updates: 10 of 20 are made, and nothing is drawn."""
    model = models["label-unet" if PROBES[name].tells == "labels" else "sd1"]
    changes = {name: {**SMALL[name], "seconds": 1e-9}}
    rows = recover({"own": model}, sought(model), EYES, [name], Budget(3, 600.0, 20, 2), changes=changes)
    assert [row["reason"] for row in rows] == ["the budget of seconds ended after 10 of 20 updates", ""]
    assert not any(row["attempts"] for row in rows)


def test_probes_share_a_budget_of_seconds(models):
    """The judge takes its time with the first variant: nothing is left for the others, or for the next probe."""

    def slow(pictures):
        time.sleep(0.6)
        return bright(pictures)

    budget = Budget(1, 600.0, 10, 1, together=0.5)
    rows = tried(models["sd1"], ["sdedit", "trajectory"], eyes=Eyes(slow, EYES.obeyed), budget=budget)
    assert [r["reason"] for r in rows if r["variant"] is not None] == ["", *[ENDED] * 5]
    assert [Budget(seconds=10.0, together=15.0).left(spent).seconds for spent in (0.0, 8.0, 20.0)] == [10.0, 7.0, 1e-9]
    assert Budget(seconds=10.0).left(20.0).seconds == 10.0


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


def student_of(base, guidance=1.0):
    student = as_student(base, scheduler_config(base.scheduler, 600))
    return dataclasses.replace(student, defaults={**student.defaults, "guidance": guidance})


def test_a_student_is_guided_as_the_unedited_model_is(models, monkeypatch):
    """It is served without guidance, 1, and the model that it is of with 3."""
    base = dataclasses.replace(models["sd1"], defaults={"guidance": 3.0})
    guided = []
    noisier = trajectory.noisier
    monkeypatch.setattr(
        trajectory, "noisier", lambda *a: guided.append((one_step(a[0].scheduler), a[-1])) or noisier(*a)
    )
    named = {"own": base, "student": student_of(base)}
    recover(named, sought(base), EYES, ["trajectory"], BUDGET, changes={"trajectory": {"etas": (1.0,)}})
    assert guided == [(False, 3.0), (False, 3.0)]


def test_prompts_of_a_student_are_compared_in_many_steps_and_drawn_in_one(models, monkeypatch):
    base = models["sd1"]
    compared, drawn = [], []
    losses, draw = token_search.losses, token_search.drawn
    monkeypatch.setattr(token_search, "losses", lambda m, *a: compared.append(one_step(m.scheduler)) or losses(m, *a))
    monkeypatch.setattr(token_search, "drawn", lambda m, *a: drawn.append(one_step(m.scheduler)) or draw(m, *a))
    changes = {"token_search": SMALL["token_search"]}
    recover({"student": student_of(base)}, sought(base), EYES, ["token_search"], BUDGET, changes=changes)
    assert not any(compared) and drawn[-1] is True


def test_names_of_probes_and_suites():
    quick = ("synonyms", "token_search", "one_vector", "ddim_inversion", "initial_noise", "sdedit")
    assert chosen("quick") == SUITES["quick"] == quick and any(PROBES[n].kind == "text-free" for n in quick)
    assert chosen("full") == tuple(PROBES) and chosen("look-alikes, sdedit") == ("look_alikes", "sdedit")
    with pytest.raises(UsageError, match="sdedit"):
        probe("sdedits")
    assert all(p.summary.endswith(".") and p.source and p.config() for p in PROBES.values())


def test_what_is_handed_over_is_whole():
    with pytest.raises(ValueError, match="reason"):
        Made("")
    with pytest.raises(ValueError, match="2 pictures need as many seeds"):
        Made("", np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"], [1])
