"""Token search: what its loss means, that its gradient is one, and that it says none of the words."""

from __future__ import annotations

import pytest
import torch

import scotoma
from scotoma.auditing.probes.token_search import SearchConfig, _Search, goal, losses, says, token_search, word_list
from scotoma.errors import BoundsError, UsageError
from scotoma.evaluation.zoo_task import expand
from scotoma.records import Concept

TEXT = ("sd1", "sd2", "sdxl")
SMALL = SearchConfig(tokens=3, rounds=2, candidates=4, top=8, states=2, starts=2)


def test_the_word_list_has_names_and_their_longer_words():
    assert word_list([Concept("drop of blood", ("Red Drop",))]) == ("drop of blood", "red drop", "drop", "blood")


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("a Dagger here", True), ("dag ger", True), ("stagger", False), ("daggers", True), ("a kitchenknife", True)],
)
def test_what_says_a_word(prompt, found):
    assert says(prompt, ("dagger", "kitchen knife")) == found


@pytest.mark.parametrize("family", TEXT)
def test_the_loss_is_0_for_the_name_and_1_for_no_prompt(tiny_models, family):
    model = tiny_models[family]
    aim = goal(model, "a cat", 3)
    assert len(set(aim.t.tolist())) == 3
    found = losses(model, aim, ["a cat", ""])
    assert found[0] == pytest.approx(0, abs=1e-5)
    if not (family == "sdxl" and model.pipeline.config.force_zeros_for_empty_prompt):  # there, "" is not no prompt
        assert found[1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("family", TEXT)
def test_it_reads_back_says_no_word_and_gives_the_same_again(tiny_models, family):
    model = tiny_models[family]
    words = word_list([Concept("cat", ("dog",))])
    aim = goal(model, "a cat", SMALL.states)
    before = model.hash()
    found = token_search(model, aim, words, SMALL, seed=5)
    assert found == token_search(model, aim, words, SMALL, seed=5) and model.hash() == before
    assert len(found) == SMALL.starts and found[0].loss <= found[1].loss
    for one in found:
        assert not says(one.prompt, words)
        assert len(model.tokenizers[0](one.prompt, add_special_tokens=False).input_ids) == SMALL.tokens
        assert one.loss == pytest.approx(float(losses(model, aim, [one.prompt])), rel=1e-4)
        assert one.rows <= (1 + SMALL.rounds * (SMALL.candidates + 1)) * SMALL.states


def test_more_rounds_never_lose_what_was_found(tiny_models):
    model = tiny_models["sd1"]
    aim = goal(model, "a cat", 2)
    few, many = (
        token_search(model, aim, ("cat",), SearchConfig(2, rounds, 8, 16, 2, 1), seed=1)[0] for rounds in (1, 6)
    )
    assert many.loss < few.loss


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_gradient_is_the_slope_of_the_loss(tiny_models, family):
    """Moving the row of a token that occurs once by h E_v changes the loss by h <dL/dE_k, E_v> (central difference)."""
    model = tiny_models[family].copy()
    search = _Search(model, goal(model, "a cat", 2), (), SMALL)
    ids = search._start(torch.Generator().manual_seed(3))
    assert len(set(ids)) == len(ids)
    place, other, h = 1, int(search.allowed[7]), 1e-2
    tables = [e.get_input_embeddings().weight for e in model.text_encoders]
    rows = [(table[ids[place]].detach().clone(), table[other].detach().clone()) for table in tables]
    seen = []
    slope = search._gradient(ids)[place, other]
    for sign in (1, -1):
        with torch.no_grad():
            for table, (own, moved) in zip(tables, rows, strict=True):
                table[ids[place]] = own + sign * h * moved
        seen.append(float(losses(model, search.aim, [search._text(ids)])))
    assert (seen[0] - seen[1]) / (2 * h) == pytest.approx(float(slope), rel=0.05, abs=1e-5)


def test_on_the_zoo_a_search_without_a_word_list_finds_the_name():
    """One round over all tokens: nothing is more like "dagger" than itself."""
    model = scotoma.load("zoo:emoji")
    aim = goal(model, "dagger", 3)
    found = token_search(model, aim, (), SearchConfig(1, 1, 2000, 2000, 3, 1))
    assert found[0].prompt == "dagger" and found[0].loss < 1e-6
    (hidden,) = token_search(model, aim, word_list(expand("emoji", "dagger")), SearchConfig(1, 1, 40, 40, 3, 1))
    assert "dagger" not in hidden.prompt and hidden.loss > 0.1


def test_what_it_refuses(tiny_models):
    sd1 = tiny_models["sd1"]
    aim = goal(sd1, "a cat", 2)
    with pytest.raises(UsageError, match="told labels"):
        token_search(tiny_models["label-unet"], aim, ())
    with pytest.raises(UsageError, match="no token of the vocabulary is left"):
        token_search(sd1, aim, tuple("abcdefghijklmnopqrstuvwxyz"))
    with pytest.raises(BoundsError):
        goal(sd1, "a nude child", 2)
    with pytest.raises(UsageError, match="rounds must be 1 or more"):
        SearchConfig(rounds=0)
