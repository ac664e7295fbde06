"""The frozen file holds what every later figure leans on; these are the promises made of it."""

import json
from pathlib import Path

import pytest

FROZEN = Path(__file__).parents[2] / "src/scotoma/models/zoo/frozen.json"


@pytest.fixture(scope="module")
def frozen() -> dict:
    return json.loads(FROZEN.read_text())


def concepts(frozen: dict, split: str) -> set[str]:
    """Every name that an erasure of the split forgets, members of its categories included."""
    out: set[str] = set()
    for pair in frozen[split]:
        named = [pair["concept"]] if isinstance(pair["concept"], str) else pair["concept"]
        for concept in named:
            out |= set(frozen["stand_ins"].get(concept, [concept]))
    return out


def test_names_are_unique_and_at_least_300(frozen: dict) -> None:
    names = [r["name"] for r in frozen["names"]]
    assert len(names) == len(set(names)) >= 300


def test_every_stand_in_ships(frozen: dict) -> None:
    names = {r["name"] for r in frozen["names"]}
    for category, stand_ins in frozen["stand_ins"].items():
        assert set(stand_ins) <= names, category


def test_tuning_and_reporting_concepts_are_disjoint(frozen: dict) -> None:
    assert not concepts(frozen, "tuning") & concepts(frozen, "reporting")
    tuned = {pair["concept"] for pair in frozen["fashion"]["tuning"]}
    assert not tuned & {pair["concept"] for pair in frozen["fashion"]["reporting"]}


def test_control_stand_ins_are_reported_and_never_tuned_on(frozen: dict) -> None:
    assert len(frozen["control"]) == 4
    assert set(frozen["control"]) <= concepts(frozen, "reporting")
    assert not set(frozen["control"]) & concepts(frozen, "tuning")


def test_two_control_stand_ins_keep_a_neighbour_of_their_category(frozen: dict) -> None:
    by_name = {n: group for group in frozen["stand_ins"].values() for n in group}
    kept = [n for n in frozen["control"] if any(m not in frozen["control"] for m in by_name[n])]
    assert len(kept) >= 2


def test_held_out_share_is_five_percent_and_even(frozen: dict) -> None:
    """300 names x 6 colours x 5 places = 9,000 combinations; 5 % of them are 450, one or two per name."""
    total = len(frozen["names"]) * len(frozen["colours"]) * len(frozen["places"])
    assert len(frozen["held_out"]) == round(0.05 * total)
    per_name = [sum(h[0] == r["name"] for h in frozen["held_out"]) for r in frozen["names"]]
    assert set(per_name) == {1, 2}
    assert len({tuple(h) for h in frozen["held_out"]}) == len(frozen["held_out"])


def test_unseen_style_is_no_training_style(frozen: dict) -> None:
    assert frozen["unseen_style"] not in frozen["styles"]
