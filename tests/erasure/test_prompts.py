"""Pairs of prompts, and the sources of frozen trajectories."""

from __future__ import annotations

import pytest

from scotoma.erasure.prompts import Pair, check_templates, pairs, tell
from scotoma.errors import BoundsError, UsageError
from scotoma.models.load import load
from scotoma.records import Concept

CAT = (Concept("cat"),)


def test_a_pair_shares_its_template(sd1):
    assert pairs(sd1, CAT, ["dog"], ("a {}", "{}"), ()) == [Pair("a cat", "a dog"), Pair("cat", "dog")]


def test_nothing_in_particular_is_no_prompt(sd1):
    assert pairs(sd1, CAT, [""], ("a {}",), ()) == [Pair("a cat", "")]


def test_several_concepts(sd1):
    two = (*CAT, Concept("bird"))
    assert pairs(sd1, two, ["dog"], ("{}",), ()) == [Pair("cat", "dog"), Pair("bird", "dog")]
    assert pairs(sd1, two, ["dog", ""], ("{}",), ()) == [Pair("cat", "dog"), Pair("bird", "")]
    with pytest.raises(UsageError, match="one for each of 2"):
        pairs(sd1, two, ["a", "b", "c"], ("{}",), ())


def test_a_style_is_of_kept_prompts_and_leaves_them_where_it_goes(sd1):
    style = (Concept("cubism", kind="style"),)
    assert pairs(sd1, style, ["pop art"], (), ("tree", "sea")) == [
        Pair("tree, cubism style", "tree, pop art style"),
        Pair("sea, cubism style", "sea, pop art style"),
    ]
    assert pairs(sd1, style, [""], (), ("tree",)) == [Pair("tree, cubism style", "tree")]
    assert pairs(sd1, style, [""], (), ()) == [Pair("a picture, cubism style", "a picture")]


def test_labels_have_no_templates(tiny_folders):
    model = load(tiny_folders["label-unet"])
    assert pairs(model, [Concept("class 1")], ["class 2"], ("a {}",), ()) == [Pair("class 1", "class 2")]


@pytest.mark.parametrize("concepts", [(), (Concept(" "),)])
def test_no_concept(sd1, concepts):
    with pytest.raises(UsageError, match="at least one concept"):
        pairs(sd1, concepts, [""], (), ())


def test_every_prompt_is_checked(sd1):
    with pytest.raises(BoundsError):
        pairs(sd1, [Concept("child")], ["cat"], ("a nude {}",), ())


@pytest.mark.parametrize("template", ["cat", "{} {}", "{kept} {kept} {}", "{kept}"])
def test_templates_that_do_not_fit(template):
    with pytest.raises(UsageError, match="template"):
        check_templates((template,), "esd")


PAIRS = [Pair("cat", "dog"), Pair("a cat", "a dog"), Pair("bird", "cow")]


def told(sd1, n, kept=(), pairs=PAIRS, **how):
    return tell(sd1, pairs, kept, n, **{"mixture": True, "holds": True, "seed": 0} | how)


def test_the_mixture(sd1):
    """Concept, alternative, next concept, a prompt that stays: of these every fifth is no prompt."""
    kept = [f"thing {i}" for i in range(8)]
    seen = told(sd1, 40, kept)
    assert len(seen.sources) == 40 and seen.pair[:8].tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert [len(seen.concept), len(seen.alternative), len(seen.null)] == [3, 3, 1]
    for i in range(40):
        source, p = seen.sources[i].text, int(seen.pair[i])
        if i % 4 == 1:
            assert source.equal(seen.alternative[p].text)
        elif i % 4 == 3:
            assert bool(seen.kept[i]) != source.equal(seen.null.text)
        else:
            assert source.equal(seen.concept[p].text)
    assert int(seen.kept.sum()) == 8 and set(seen.held) == set(kept)


def test_prompts_that_stay_are_drawn_from_all_over_the_list_and_those_that_are_reached_are_named(sd1):
    kept = [f"thing {i}" for i in range(60)]
    seen = told(sd1, 40, kept)
    assert len(seen.held) == 8 == int(seen.kept.sum())
    assert max(int(name.split()[1]) for name in seen.held) >= 30
    assert told(sd1, 40, kept, seed=1).held != seen.held


def test_every_concept_is_met_whatever_the_number_of_templates(sd1):
    """Ten concepts with four templates each, in the first twenty trajectories."""
    concepts = [Concept(f"thing {i}") for i in range(10)]
    made = pairs(sd1, concepts, [""], (), ())
    assert [p.concept for p in made[:10]] == [c.name for c in concepts] and len(made) == 40
    seen = told(sd1, 20, pairs=made)
    assert {int(p) % 10 for p in seen.pair} == set(range(10))


def test_without_kept_prompts_no_prompt_stays(sd1):
    seen = told(sd1, 4, pairs=[Pair("cat", "")])
    assert len(seen.sources) == 4 and not seen.kept.any() and seen.held == ()
    assert seen.alternative.text.equal(seen.null.text) and seen.sources[3].text.equal(seen.null.text)


def test_the_concept_alone_and_with_prompts_that_are_held_beside_it(sd1):
    seen = told(sd1, 6, ("tree",), mixture=False, holds=False)
    assert seen.pair.tolist() == [0, 2, 1, 0, 2, 1] and not seen.kept.any()
    held = told(sd1, 8, ("tree",), mixture=False)
    assert held.kept.tolist() == [False] * 3 + [True] + [False] * 3 + [True] and held.held == ("tree",)
    for i in range(8):
        if not held.kept[i]:
            assert held.sources[i].text.equal(held.concept[int(held.pair[i])].text)
