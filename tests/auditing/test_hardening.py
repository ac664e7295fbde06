"""What hardening is trained against: the probe that the model fails most, as conditions that the network can be told."""

from __future__ import annotations

import numpy as np
import pytest

from scotoma.auditing.hardening import find
from scotoma.auditing.probes.contract import Budget, Sought
from scotoma.auditing.recovery import Eyes
from scotoma.errors import UsageError
from scotoma.models.sample import sample
from scotoma.records import Concept

BUDGET = Budget(queries=2, steps=2, sampling=1)


def test_the_worst_of_the_three_is_taken_and_the_model_stays(tiny_models):
    """A judge that sees nothing in the first pictures it is shown (found prompts) and all in the second (the learnt word of one
    vector)."""
    model = tiny_models["sd1"]
    pictures = sample(model, ["a cat"] * 2, [1, 2], steps=1)
    sought = Sought(Concept("cat"), model, pictures, pictures[:0])
    before, shown = model.hash(), []

    def sees(looked_at: np.ndarray) -> list[bool]:
        shown.append(looked_at)
        return [len(shown) == 2] * len(looked_at)

    found = find(model, sought, Eyes(sees, sees), BUDGET)
    assert found.shares == {"token_search": 0.0, "one_vector": 1.0, "several_vectors": 0.0}
    assert found.probe == "one_vector" and not found.nothing
    assert len(found.told) == 5 and model.hash() == before and len(shown) == 3
    assert find(model, sought, Eyes(lambda p: [False] * len(p), sees), BUDGET).nothing
    with pytest.raises(UsageError, match="nobody can tell"):
        find(model, sought, Eyes(lambda p: [None] * len(p), sees), BUDGET)
