"""Guidelines: those that ship, and what a file must hold."""

from __future__ import annotations

import pytest
import yaml

from scotoma.dialogue.guideline import FOLDER, load_guideline, read_guideline, shipped
from scotoma.errors import DataError, UsageError


def test_those_that_ship_can_be_read():
    assert shipped() == ["commitments", "pornographic", "toxic"]
    for name in shipped():
        g = load_guideline(name)
        assert g.name == name and g.labels[0] != g.labels[1] and g.edge_cases
        assert g.identity == f"{name}-{g.version}@{g.sha256[:12]}"
        assert all(len(g.descriptions[label]) >= 4 for label in g.labels)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'toxic'"):
        load_guideline("toxics")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"labels": ["a"]}, "two texts"),
        ({"labels": ["a", "a"]}, "two texts"),
        ({"version": "one"}, "whole number"),
        ({"definition": " "}, "definition"),
        ({"edge_cases": [1]}, "edge_cases"),
        ({"descriptions": {"toxic": ["x"]}}, "both labels"),
        ({"examples": [{"response": "x", "label": "bad"}]}, "not one of"),
        ({"examples": [{"response": "x"}]}, "needs response, label"),
        ({"more": 1}, "exactly the fields"),
    ],
)
def test_what_does_not_fit_is_named(change, said, tmp_path):
    told = yaml.safe_load((FOLDER / "toxic.yaml").read_text()) | change
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(DataError, match=said):
        read_guideline(path)
    with pytest.raises(DataError, match="own.yaml"):
        load_guideline(str(path))
