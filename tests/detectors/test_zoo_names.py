import json

import pytest
import torch
from safetensors.torch import save_file

from scotoma.detectors.image import zoo_names
from scotoma.errors import DataError, UsageError


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = zoo_names.NameNet(3)
    path = tmp_path / zoo_names.AVAILABLE["emoji"]
    save_file(
        {k: v.half() for k, v in network.state_dict().items()},
        path,
        metadata={"labels": json.dumps(["axe", "hammer", "apple"]), "card": "{}"},
    )
    monkeypatch.setattr(zoo_names, "FOLDER", tmp_path)
    return zoo_names.load("emoji")


def test_logits_follow_the_labels_and_are_differentiable(classifier):
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = classifier.logits(x)
    assert logits.shape == (2, 3)
    logits[0, 1].backward()
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0  # no normalisation ties the pictures of a batch together


def test_heat_map_spans_zero_to_one_per_picture(classifier):
    heat = classifier.heat_map(torch.randn(2, 3, 32, 32), "axe")
    assert heat.shape == (2, 32, 32)
    assert torch.equal(heat.amin((1, 2)), torch.zeros(2))
    torch.testing.assert_close(heat.amax((1, 2)), torch.ones(2))


def test_unknown_names_and_missing_weights_are_named(classifier):
    with pytest.raises(UsageError, match="did you mean 'hammer'"):
        classifier.heat_map(torch.randn(1, 3, 32, 32), "hammr")
    with pytest.raises(UsageError, match="unknown name classifier"):
        zoo_names.load("photos")
    with pytest.raises(DataError, match="is not installed with this package"):
        zoo_names.load("fashion")
