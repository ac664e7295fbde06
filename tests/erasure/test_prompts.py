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


def test_the_mixture(sd1):
    """Half of the sources are the concept, a quarter its alternative, a quarter stays: of those every fifth no prompt."""
    kept = [f"thing {i}" for i in range(8)]
    told = tell(sd1, [Pair("cat", "dog"), Pair("a cat", "a dog")], kept, mixture=True)
    assert len(told.sources) == 40 and told.pair.tolist() == [0] * 4 + [1] * 4 + ([0] * 4 + [1] * 4) * 4
    assert [len(told.concept), len(told.alternative), len(told.null)] == [2, 2, 1]
    for i in range(40):
        source, p = told.sources[i].text, int(told.pair[i])
        if i % 4 == 1:
            assert source.equal(told.alternative[p].text)
        elif i % 4 == 3:
            assert bool(told.kept[i]) != source.equal(told.null.text)
        else:
            assert source.equal(told.concept[p].text)
    assert int(told.kept.sum()) == 8


def test_without_kept_prompts_no_prompt_stays(sd1):
    told = tell(sd1, [Pair("cat", "")], (), mixture=True)
    assert len(told.sources) == 4 and not told.kept.any()
    assert told.alternative.text.equal(told.null.text) and told.sources[3].text.equal(told.null.text)


def test_the_concept_alone(sd1):
    told = tell(sd1, [Pair("cat", "dog"), Pair("a cat", "a dog")], ("tree",), mixture=False)
    assert told.sources.text.equal(told.concept.text) and told.pair.tolist() == [0, 1] and not told.kept.any()
