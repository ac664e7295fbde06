"""What a run keeps beside its verdicts: asked again replaced, others kept, and nothing shown that no longer fits."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sample_runs import look, make_run
from scotoma.auditing import measures
from scotoma.auditing.audit import audit, sum_up
from scotoma.auditing.measures import CHANGED, METRICS, exposure_of, keep_exposure, measure, metrics_of
from scotoma.auditing.metrics import unlearning
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.summarise import read_tables
from scotoma.auditing.targets import Nothing, Target
from scotoma.detectors.constant import constant
from scotoma.errors import DataError, UsageError
from scotoma.records import Figure, Prompt, write_text


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "a")
    look(made)
    write_text(made.folder / "analysis.json", json.dumps({"measured_by": "by-colour", "mitigations": [], "limits": {}}))
    return made


def row(model, name, value, note="how"):
    return {"model": model, "name": name, **dataclasses.asdict(Figure(value, 6, note=note))}


def shown(run):
    return {(r["model"], r["name"], r["note"]): r["value"] for r in metrics_of(run)}


def touch(path):
    path.write_text(path.read_text() + "\n")


def test_asked_again_is_replaced_and_others_are_kept(run):
    measure(run, lambda: [row("one", "FID", 3.0), row("two", "FID", 4.0), row("one", "KID", 0.5)])
    measure(run, lambda: [row("one", "FID", 3.5), row("one", "FID", 9.0, "other weights")])
    assert shown(run) == {
        ("two", "FID", "how"): 4.0,
        ("one", "KID", "how"): 0.5,
        ("one", "FID", "how"): 3.5,
        ("one", "FID", "other weights"): 9.0,
    }
    assert sorted(p.name for p in run.folder.glob("metrics*")) == [METRICS]
    summary = sum_up(run, read_tables(run))
    assert summary["metrics"] == metrics_of(run) == json.loads((run.folder / "summary.json").read_text())["metrics"]
    assert all("files" not in r for r in summary["metrics"])


def test_a_row_of_other_pictures_is_undecided_and_goes_when_it_is_measured_again(run):
    measure(run, lambda: [row("one", "FID", 3.0), row("two", "FID", 4.0)])
    touch(run.generations_file("one"))
    assert shown(run) == {("one", "FID", CHANGED): None, ("two", "FID", "how"): 4.0}
    (stale, _) = metrics_of(run)
    assert (stale["n"], stale["low"], stale["high"]) == (0, None, None)
    measure(run, lambda: [row("one", "FID", 5.0, "how; 5 pictures")])
    assert shown(run) == {("two", "FID", "how"): 4.0, ("one", "FID", "how; 5 pictures"): 5.0}


def test_a_row_of_verdicts_goes_with_these(run):
    measure(run, lambda: unlearning(run, "by-colour", ["violent"], []), detectors=["by-colour"])
    measure(run, lambda: [row("one", "FID", 3.0)])
    touch(run.verdicts_file("by-colour"))
    values = {(r["model"], r["name"]): r["note"] == CHANGED for r in metrics_of(run)}
    assert values[("one", "UA")] and values[("two", "IRA")] and not values[("one", "FID")]


def test_what_is_changed_under_a_measurement_is_not_written(run):
    def what():
        touch(run.generations_file("one"))
        return [row("one", "FID", 1.0)]

    with pytest.raises(DataError, match="was changed while it was measured"):
        measure(run, what)
    assert not (run.folder / METRICS).exists()


@pytest.mark.parametrize("text", ["{", '{"rows": 3}', '{"rows": [{"model": "one"}]}', "[]"])
def test_a_damaged_file_is_named_before_anything_is_measured(run, text):
    (run.folder / METRICS).write_text(text)
    with pytest.raises(DataError, match=r"metrics.json .*take it out of the folder"):
        measure(run, lambda: pytest.fail("it measured"))
    with pytest.raises(DataError, match=r"metrics.json"):
        sum_up(run, read_tables(run))


def test_exposure_is_that_of_a_target_of_the_run(run):
    facts = [{**t, "facts": {"model": f"weights of {t['name']}"}} for t in run.targets]
    run = dataclasses.replace(run, targets=tuple(facts))
    rate = dataclasses.asdict(Figure(0.5, 4))
    rows = [
        {"technique": "unedited", "variant": "", "success": rate},
        {"technique": "sdedit", "variant": "x", "success": rate},
    ]
    keep_exposure(run.folder, "one", "weights of one", rows)
    kept = keep_exposure(run.folder, "one", "weights of one", [{**rows[0], "success": None}])
    assert [(r["technique"], r["success"]) for r in exposure_of(run)] == [("sdedit", rate), ("unedited", None)]
    assert kept[0]["model"] == "one"
    assert [r["technique"] for r in sum_up(run, read_tables(run))["exposure"]] == ["sdedit", "unedited"]
    keep_exposure(run.folder, "two", "weights of one", rows)
    with pytest.raises(DataError, match="tells of 'two', which is not drawn in this run"):
        exposure_of(run)

    class Of:
        name = "mine"

        def __init__(self, weights):
            self.hash = lambda: weights

    assert measures.target_of(run, Of("weights of two"), "anything") == "two"  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mine is not drawn in .*which has one, two"):
        measures.target_of(run, Of("others"), "one")  # type: ignore[arg-type]


def test_failed_pairs_are_drawn_once_more_where_that_is_asked_for(tmp_path):
    """Of two prompts the second fails at first; asked again it comes, and the detector looks at both."""
    import numpy as np

    calls = []

    def draw(prompts, seeds):
        calls.append([p.id for p in prompts])
        picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        return [Nothing("failed", "no") if p.id == "1" and len(calls) == 1 else picture for p in prompts]

    target = Target("far", "endpoint", "far", draw, 4)
    sets = [PromptSet("asked", "users", (Prompt("0", "a", "asked", "users"), Prompt("1", "b", "asked", "users")))]
    for again, pictures in ((False, 1), (False, 1), (True, 2), (True, 2)):
        _, summary = audit(tmp_path, [target], sets, [constant(0.9)], seeds=1, again=again)
        assert summary["outcomes"][0]["picture"] == pictures
        assert {c["flagged"]["n"] for c in summary["cells"]} == {pictures}
    assert calls == [["0", "1"], ["1"]]
