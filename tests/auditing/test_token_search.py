"""Token search: what its loss means, that its gradient is one, and that it says none of the words."""

from __future__ import annotations

import pytest
import torch

import scotoma
from scotoma.auditing.probes.token_search import SearchConfig, _Search, goal, losses, token_search
from scotoma.auditing.probes.words import says, word_list
from scotoma.errors import BoundsError, UsageError
from scotoma.evaluation.zoo_task import expand
from scotoma.records import Concept

TEXT = ("sd1", "sd2", "sdxl")
SMALL = SearchConfig(tokens=2, beam=2, candidates=6, sweeps=1, found=3)
STATES = 2


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
    aim = goal(model, "a cat", STATES)
    before = model.hash()
    found = token_search(model, aim, words, SMALL, seed=5)
    assert found == token_search(model, aim, words, SMALL, seed=5) and model.hash() == before
    assert len(found) == SMALL.found and [f.loss for f in found] == sorted(f.loss for f in found)
    for one in found:
        assert not says(one.prompt, words)
        assert len(model.tokenizers[0](one.prompt, add_special_tokens=False).input_ids) <= SMALL.tokens
        assert one.loss == pytest.approx(float(losses(model, aim, [one.prompt])), rel=1e-4)


def test_a_longer_search_never_loses_what_was_found(tiny_models):
    model = tiny_models["sd1"]
    aim = goal(model, "a cat", STATES)
    best = [
        token_search(model, aim, ("cat",), SearchConfig(tokens, 2, 40, sweeps, 1))[0].loss
        for tokens, sweeps in ((1, 0), (2, 0), (2, 1))
    ]
    assert best[0] >= best[1] >= best[2] and best[2] < best[0]


def test_the_whole_vocabulary_is_tried_where_it_is_small(tiny_models):
    """One token, all of them allowed: the best of the search is the best of all one-token prompts."""
    model = tiny_models["sd1"]
    aim = goal(model, "a cat", STATES)
    (found,) = token_search(model, aim, ("cat",), SearchConfig(1, 1, 10_000, 0, 1))
    tokens = [t.removesuffix("</w>") for t in model.tokenizers[0].get_vocab() if t.endswith("</w>")]
    words = sorted({t for t in tokens if t.isascii() and t.isalpha() and t.islower()} - {"cat"})
    assert found.loss == pytest.approx(float(losses(model, aim, words).min()), rel=1e-4) and found.prompt in words


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_gradient_is_the_slope_of_the_loss(tiny_models, family):
    """Moving the row of a token that occurs once by h E_v changes the loss by h <dL/dE_k, E_v> (central difference)."""
    model = tiny_models[family].copy()
    search = _Search(model, goal(model, "a cat", STATES), (), SMALL, torch.Generator().manual_seed(3))
    first = search._stand_in(())
    ids = (first, next(t for t in search.allowed.tolist() if t != first and search._may_be((first, t))))
    place, other, h = 1, int(search.allowed[7]), 1e-2
    tables = [e.get_input_embeddings().weight for e in model.text_encoders]
    rows = [(table[ids[place]].detach().clone(), table[other].detach().clone()) for table in tables]
    seen = []
    slope = search.slope(ids)[place, other]
    for sign in (1, -1):
        with torch.no_grad():
            for table, (own, moved) in zip(tables, rows, strict=True):
                table[ids[place]] = own + sign * h * moved
        seen.append(float(losses(model, search.aim, [search.text(ids)])))
    assert (seen[0] - seen[1]) / (2 * h) == pytest.approx(float(slope), rel=0.05, abs=1e-5)


def test_on_the_zoo_a_search_without_a_word_list_finds_the_name():
    """One place, all tokens: nothing is more like "dagger" than itself."""
    model = scotoma.load("zoo:emoji")
    aim = goal(model, "dagger", STATES)
    found = token_search(model, aim, (), SearchConfig(1, 1, 2000, 0, 1))
    assert found[0].prompt == "dagger" and found[0].loss < 1e-6
    (hidden,) = token_search(model, aim, word_list(expand("emoji", "dagger")), SearchConfig(1, 1, 40, 0, 1))
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
    with pytest.raises(UsageError, match="beam must be 1 or more"):
        SearchConfig(beam=0)
