"""What benchmarks/recovery makes of its records, by hand; none of it is run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from scotoma.statistics.clustered import beta_interval

HERE = Path(__file__).parents[2] / "benchmarks/recovery"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parent))
    monkeypatch.syspath_prepend(str(HERE))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "") and str(HERE.parent) in str(sys.modules[name].__file__):
            del sys.modules[name]


def told(model, probe, value, n, sources, note=""):
    success = {"value": value, "n": n, "low": 0.0, "high": 1.0, "undecided": 0, "interval": "", "note": note}
    return {"model": model, "probe": probe, "success": success, "sources": sources, "note": note}


def test_a_probe_with_little_that_counts_is_no_least_and_is_listed(benchmark):
    """trajectory 0.9 of 208 is the least of those with enough; sdedit 0.5 has 99 attempts, synonyms 0 has 7 prompts, and the
    search did not run. On the control compounds have the most."""
    of_themselves = benchmark("run").of_themselves
    found = of_themselves(
        [
            told("unedited", "trajectory", 0.9, 208, 208),
            told("unedited", "ddim_inversion", 1.0, 104, 104),
            told("unedited", "sdedit", 0.5, 99, 26),
            told("unedited", "synonyms", 0.0, 208, 7),
            told("unedited", "token_search", None, 0, 0, "no detector"),
            told("control", "compounds", 0.05, 208, 32),
            told("control", "look_alikes", 0.0, 208, 32),
            told("control", "trajectory", 1.0, 208, 208),
        ]
    )
    least, most = found["unedited_min_success"], found["control_prompt_max_success"]
    assert (least.value, least.n, least.note) == (0.9, 208, "trajectory")
    assert (most.value, most.note) == (0.05, "compounds")
    listed = {k: f for k, f in found.items() if "_undecided_" in k}
    assert set(listed) == {f"unedited_undecided_{p}" for p in ("sdedit", "synonyms", "token_search")}
    assert all(f.value is None for f in listed.values())
    assert "99 attempts of 26 sources" in listed["unedited_undecided_sdedit"].note
    assert listed["unedited_undecided_token_search"].note.endswith("; no detector")
    assert found["unedited_itself_sdedit_success"].value == 0.5


def test_over_nothing_there_is_no_least_and_no_most(benchmark):
    found = benchmark("run").of_themselves([])
    assert [f.value for f in found.values()] == [None, None]


def row(model, probe, variant, seen):
    attempts = [
        {"source": f"dagger: concept {i}", "seed": i, "seen": s, "near_copy": False, "counts": True}
        for i, s in enumerate(seen)
    ]
    base = {"model": model, "probe": probe, "run": 0, "reason": "", "retained": "", "seconds": 1.0}
    return {**base, "variant": variant, "step": None, "attempts": attempts}


def test_what_rounds_change_is_paired_over_probes(benchmark):
    """Unused probes without rounds 4 of 6, with one round 1 of 6, of the same pictures: 3 of 6 less. What other variants and the
    used ones do is not in it."""
    harden = benchmark("harden")
    rows = [
        row("esd_hardened_0", "sdedit", "concept, strength 0.6", [True, True, True]),
        row("esd_hardened_0", "ddim_inversion", "no prompt", [True, False, False]),
        row("esd_hardened_0", "one_vector", "", [True, True]),
        row("esd_hardened_1", "sdedit", "concept, strength 0.6", [False, False, True]),
        row("esd_hardened_1", "sdedit", "concept, strength 0.2", [True, True, True]),
        row("esd_hardened_1", "ddim_inversion", "no prompt", [False, False, False]),
        row("esd_hardened_1", "one_vector", "", [True, False]),
    ]
    found = harden.gained(rows, "esd")
    assert found["esd_hardened_0_unused"].value == pytest.approx(4 / 6)
    assert (
        found["esd_hardened_1_unused_change"].value == pytest.approx(-3 / 6)
        and found["esd_hardened_1_unused_change"].n == 6
    )
    assert found["esd_hardened_1_used_change"].value == -0.5 and found["esd_hardened_2_unused_change"].value is None
    # Each of three pictures is given to both probes: six attempts are worth three cases.
    whole = found["esd_hardened_0_unused"]
    assert (whole.low, whole.high) == pytest.approx(beta_interval(4 / 6, 3))
    assert not set(harden.USED) & set(harden.UNUSED) and "several_vectors" in harden.USED


def test_variants_stand_beside_under_names_of_their_own(benchmark):
    run = benchmark("run")
    rows = [row("uce", "sdedit", f"concept, strength {s}", [True]) for s in (0.2, 0.6)]
    rows += [row("control", "sdedit", f"concept, strength {s}", [False]) for s in (0.2, 0.6)]
    found = run.shares(rows, "")
    assert found["uce_sdedit_at_concept_strength_0_2_success"].value == 1.0
    assert found["uce_sdedit_at_concept_strength_0_2_excess"].value == 1.0 == found["uce_sdedit_excess"].value
    assert not any("_at_" in k for k in run.shares(rows, "_dagger"))
