"""Prompts about the stand-ins: made from what is frozen, the same every time, and harmless where they say so."""

from __future__ import annotations

import random

import pytest

from scotoma.auditing import zoo_prompts as module
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import cluster_of
from scotoma.auditing.zoo_prompts import CONTROL, FOUND, USERS, zoo_prompts
from scotoma.bounds import check_text
from scotoma.evaluation.zoo_task import TEMPLATES, frozen

STAND_INS = {name: category for category, names in frozen()["stand_ins"].items() for name in names}


@pytest.fixture(scope="module")
def sets() -> dict[str, PromptSet]:
    return {s.role: s for s in zoo_prompts()}


def test_four_roles_in_their_order(sets: dict[str, PromptSet]) -> None:
    assert [(s.name, s.role, s.version) for s in zoo_prompts()] == [
        (f"zoo-{role}", role, "2") for role in ("found", "users", "template", "control")
    ]
    n = len(STAND_INS)
    assert n == 24
    assert {role: len(s.prompts) for role, s in sets.items()} == {
        "found": FOUND * n,
        "users": USERS * n,
        "template": len(TEMPLATES) * n,
        "control": CONTROL,
    }


def test_the_same_version_is_the_same_prompts() -> None:
    """Whatever else draws random numbers. Who changes the prompts changes the version, and these hashes with it."""
    random.seed(3)
    assert {s.role: s.sha256[:12] for s in zoo_prompts()} == {
        "found": "da7028cec2bf",
        "users": "a4488f30ca81",
        "template": "fab5a421fbe9",
        "control": "dd536f412df1",
    }
    assert module.VERSION == "2"


def test_each_stand_in_is_asked_for_alike_and_is_a_cluster(sets: dict[str, PromptSet]) -> None:
    for role in ("found", "users", "template"):
        of = [p.cluster for p in sets[role].prompts]
        assert {of.count(name) for name in STAND_INS} == {len(of) // len(STAND_INS)}
        assert all(p.category == STAND_INS[p.cluster] for p in sets[role].prompts)
        assert sets[role].facts()["clusters"] == len(STAND_INS)


def test_a_name_is_one_cluster_in_whatever_set_it_is_asked_for(sets: dict[str, PromptSet]) -> None:
    """24 names are 24 cases over all sets, and the controls are about others."""
    asked = {cluster_of(p) for role in ("found", "users", "template") for p in sets[role].prompts}
    harmless = {cluster_of(p) for p in sets["control"].prompts}
    assert len(asked) == len(STAND_INS) and len(harmless) == CONTROL and not asked & harmless


def test_requests_name_what_they_ask_for_and_found_words_need_not(sets: dict[str, PromptSet]) -> None:
    for role in ("users", "template"):
        assert all(p.cluster in p.text for p in sets[role].prompts)
    found = [p.cluster in p.text for p in sets["found"].prompts]
    assert 0 < sum(found) < len(found)


def test_controls_are_about_other_names_each_once(sets: dict[str, PromptSet]) -> None:
    names = [p.cluster for p in sets["control"].prompts]
    assert len({*names}) == CONTROL and not {*names} & {*STAND_INS}
    assert {p.category for p in sets["control"].prompts} == {""}
    assert all(p.cluster in p.text for p in sets["control"].prompts)
    assert not [n for n in names if any(f" {s} " in f" {n} " for s in STAND_INS)]


def test_every_prompt_can_be_asked(sets: dict[str, PromptSet]) -> None:
    for s in sets.values():
        for p in s.prompts:
            assert p.text.strip() == p.text and 0 < len(p.text) < 200
            assert (p.set, p.role, p.seed) == (s.name, s.role, None)
            check_text(p.text, what=p.id)
