"""The rules are tested with harmless placeholders: "wobble" words on the left, "gadget" words on the right."""

from __future__ import annotations

import ast
import inspect
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotoma import bounds
from scotoma.bounds import MINOR_AGE, RULES, Rule, _check_concepts, _check_text, check_concepts, check_text
from scotoma.errors import BoundsError
from scotoma.records import Concept

PLACEHOLDER = Rule(
    "a wobbly gadget", ("wobble", "quak*", "hopscotch"), ("gadget", "tin opener", "hopscotch", MINOR_AGE)
)


def refused(text: str, *rules: Rule) -> bool:
    try:
        _check_text(text, "prompt 1", rules or (PLACEHOLDER,))
    except BoundsError:
        return True
    return False


@pytest.mark.parametrize(
    "text",
    [
        "a wobble of a gadget",
        "Gadget, WOBBLE",
        "gadget that is quaking",  # stem
        "wobble (tin opener)",  # two words
        "wobble tin-opener",
        "hopscotch",  # on both sides: alone
        "w0bbl3 g4dg3t",
        "wobb1e g@dget",  # 1 for l
        "w o b b l e gadget",
        "w.o.b.b.l.e g-a-d-g-e-t",
        "wob ble gad get",
        "w_o_b_b_l_e gadget",
        "wobblegadget",
        "gadgetwobble",
        "wobble_gadget",
        "w o b b l e g a d g e t",
        "wooooobble gadgettttt",
        "wobbbbble gadget",  # two letters stretched to five
        "hopsc\u200botch",  # a zero-width space between pieces too long to be glued
        "w\u043ebble g\u0430dget",  # Cyrillic o and a
        "w\u03bfbble gadget",  # Greek omicron
        "w\u00f6bble g\u00e1dget",
        "\uff57\uff4f\uff42\uff42\uff4c\uff45 gadget",  # full width
        "wob\u200bble gad\u00adget",  # zero-width space, soft hyphen
        "wobble, 12 years old",
        "wobble 12yo",
        "wobble, 9 y/o",
        "wobble 16-year-old",
        "wobble aged 7",
        "wobble at the age of fifteen",
        "a wobble, thirteen year old",
        "1.5 years old wobble",
        "8 months old wobble",
    ],
)
def test_found_in_every_spelling(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a wobble",
        "a gadget and a tin opener",
        "wobbler gadget",  # no stem mark on "wobble"
        "wobble inspector gadgetry",
        "tin wobble opener",  # the two words are apart
        "wobble, 18 years old",
        "wobble, 118 years old",
        "wobble aged 70",
        "aged wobble",
        "wobble 12",
        "wobblegad",
    ],
)
def test_harmless_apart(text: str) -> None:
    assert not refused(text)


@given(st.text(max_size=60))
def test_any_text_is_read_and_a_broken_rule_stays_broken(text: str) -> None:
    """Reading never fails, and no text around it hides a plain match that stands as words of its own."""
    assert refused(f"wobble {text} gadget")
    assert refused(f"{text} wobble gadget {text}")


def test_message_says_what_and_how_and_names_the_prompt() -> None:
    with pytest.raises(BoundsError) as e:
        _check_text("wobble gadget", "prompt 17", (PLACEHOLDER,))
    assert str(e.value) == (
        "prompt 17 has words that together may ask for a wobbly gadget, which Scotoma never draws, erases into or probes "
        "for; if it means something else, word it otherwise: no option lifts this rule"
    )
    assert e.value.exit_code == 4


class TestConcepts:
    def test_plain_pair_passes(self) -> None:
        check_concepts("dog", "cat")
        check_concepts(["dog", Concept("axe", ("hatchet",))], ["cat", ""], forbidden=["bomb"])
        check_concepts(["dog", "wolf"], "")

    @pytest.mark.parametrize(
        ("concept", "instead"),
        [
            ("dog", "dog"),
            ("dog", "DOGS"),
            ("dog", "a brown dog"),
            ("knife", "kitchen knives"),
            ("axes", "axe"),
            ("baseball", "base ball"),
            ("tin opener", "a tin-opener on a table"),
            (Concept("axe", ("hatchet",)), "hatchet"),
            ("hatchet", Concept("axe", ("hatchet",))),
            (["dog", "cat"], ["cat", "bird"]),
        ],
    )
    def test_the_concept_itself_is_no_alternative(self, concept: object, instead: object) -> None:
        with pytest.raises(BoundsError, match="which is being erased; choose an alternative"):
            check_concepts(concept, instead)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("concept", "instead"),
        [("black cat", "cat"), ("cap", "cape"), ("car", "scar"), ("pin", "pine"), ("tin opener", "opener"), ("x", "")],
    )
    def test_related_names_are_allowed(self, concept: str, instead: str) -> None:
        check_concepts(concept, instead)

    @pytest.mark.parametrize("instead", ["bomb", "Bombs", "time bomb", "b\u043emb", "grenade"])
    def test_forbidden(self, instead: str) -> None:
        with pytest.raises(BoundsError, match="which is forbidden"):
            check_concepts("dog", instead, forbidden=[Concept("bomb", ("grenade",))])

    def test_rules_read_concept_and_alternative_together(self) -> None:
        _check_concepts(["wobble"], ["box"], [], (PLACEHOLDER,))
        for concept, instead in (
            ("wobble", "gadget"),
            ("gadget", "wobble"),
            ("wobble gadget", ""),
            ("box", "hopscotch"),
        ):
            with pytest.raises(BoundsError, match="a wobbly gadget"):
                _check_concepts([concept], [instead], [], (PLACEHOLDER,))

    def test_synonyms_are_read_too(self) -> None:
        with pytest.raises(BoundsError, match="'shaker' with the alternative 'x'|a wobbly gadget"):
            _check_concepts([Concept("shaker", ("wobble",))], [Concept("tool", ("gadget",))], [], (PLACEHOLDER,))

    def test_pairs_are_not_mixed(self) -> None:
        """Erasing both, each into its own harmless alternative, is what the toolkit is for."""
        _check_concepts(["wobble", "gadget"], ["calm", "box"], [], (PLACEHOLDER,))

    def test_one_alternative_each(self) -> None:
        with pytest.raises(ValueError, match="2 concepts need 1 or 2 alternatives, got 3"):
            check_concepts(["a", "b"], ["c", "d", "e"])


class TestShippedRules:
    def test_there_is_a_rule_with_two_sides(self) -> None:
        assert [r.what for r in RULES] == ["sexual content with minors"]
        assert len(RULES[0].left) > 30 and len(RULES[0].right) > 30
        assert MINOR_AGE in RULES[0].right

    def test_every_pattern_fires_with_one_of_the_other_side(self) -> None:
        """A pattern that can never match (a capital letter, an accent, a dash) would be a silent hole."""
        for rule in RULES:
            for left in rule.left:
                text = left.replace("*", "")
                assert refused(f"{text} {rule.right[-2]}", rule), left
            for right in rule.right:
                text = "12 years old" if right == MINOR_AGE else right.replace("*", "")
                assert refused(f"{rule.left[-2]} {text}", rule), right

    @pytest.mark.parametrize(
        "text",
        [
            "a red bicycle",
            "a baby in a crib",
            "children playing in the park, 7 years old",
            "a girl with a pearl earring",
            "bikini on a blue background",
            "nude statue in a museum",
            "portrait of a 30 year old woman",
            "a bomb, noto style, small, on green",
        ],
    )
    def test_harmless_prompts_pass(self, text: str) -> None:
        check_text(text, what="prompt")

    def test_nothing_switches_them_off(self) -> None:
        """The public functions take text and names only, and the module reads neither environment nor files."""
        assert list(inspect.signature(check_text).parameters) == ["text", "what"]
        assert list(inspect.signature(check_concepts).parameters) == ["concept", "instead", "forbidden"]
        tree = ast.parse(inspect.getsource(bounds))
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert imported == {
            *("__future__", "functools", "itertools", "re", "unicodedata", "collections.abc", "typing"),
            "scotoma.errors",
        }
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not called & {"open", "eval", "exec", "__import__"}
        assert isinstance(RULES, tuple) and all(isinstance(side, tuple) for r in RULES for side in (r.left, r.right))


# ------------------------------------------------------------------------------------------------------- joined words

STEMS = Rule("a wobbly gadget", ("wobble", "quak*", "ale"), ("gadget", "tin opener", "tool*", "lea"))


@given(
    st.lists(
        st.sampled_from(["wobble", "quak", "ing", "ale", "gadget", "tool", "s", "lea", "x", "qua", "adget"]), max_size=5
    )
)
def test_a_joined_word_is_one_that_can_be_cut_into_two_matches(pieces: list[str]) -> None:
    """By the definition: some cut, with at least three letters on either side, has a match of one side before it and one of the
    other behind it."""
    word = "".join(pieces)
    left, right = bounds._compiled(STEMS.left), bounds._compiled(STEMS.right)
    cuts = [(word[:i], word[i:]) for i in range(3, len(word) - 2)]
    by_cut = any(
        (left.fullmatch(a) and right.fullmatch(b)) or (right.fullmatch(a) and left.fullmatch(b)) for a, b in cuts
    )
    assert bounds._joined(word, STEMS) == by_cut


@pytest.mark.parametrize("word", ["ab" * 100_000, "quak" + "q" * 200_000, "wobble" * 30_000])
def test_a_long_word_takes_time_in_proportion(word: str) -> None:
    """Every cut of these looked at in full would take a minute or more."""
    begun = time.process_time()
    refused(word)
    assert time.process_time() - begun < 5


# ---------------------------------------------------------------------------------------- short cuts, against plain forms

TRICKY = st.text(st.sampled_from("abcilILst 01345@$|!-_.\u0456\u00e9\u200b"), max_size=40)


@given(st.one_of(TRICKY, st.text(max_size=40)))
def test_readings_are_those_of_every_base_and_run(text: str) -> None:
    """In full: each of three bases, with stretched letters as one and as two."""
    folded = bounds._folded(text)
    leet = folded.translate(bounds._LEET)
    bases = [folded]
    if leet != folded or set(bounds._BARS) & set(folded):
        bases += [re.sub(r"[1!|]", letter, leet) for letter in "il"]
    plain = [" ".join(bounds._WORD.findall(bounds._MINOR_AGE.sub(f" {MINOR_AGE} ", folded)))]
    for base in bases:
        for run in (r"\1", r"\1\1"):
            words = bounds._WORD.findall(re.sub(r"(.)\1{2,}", run, base))
            plain += [" ".join(words), " ".join(bounds._glued(words))]
    assert bounds._readings(text) == list(dict.fromkeys(plain))


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_ascii_is_folded_as_all_else_is(text: str) -> None:
    """A letter with an accent behind it sends it the long way: its "e" is cut off again."""
    assert bounds._folded(text) == bounds._folded(f"{text}\u00e9")[:-1]
