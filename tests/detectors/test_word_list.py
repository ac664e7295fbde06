"""Word lists: what they find however it is spelt, where, and what they leave alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotoma.detectors.text.word_list import Hit, WordList, read_words, word_list
from scotoma.errors import UsageError

LIST = WordList(("bomb", "kitchen knife", "ass", "gun", "bad egg", "1234", "ability"))


@pytest.mark.parametrize(
    "text, word, shown",
    [
        ("a Bomb!", "bomb", "Bomb"),
        ("two bombs", "bomb", "bombs"),
        ("b0mb", "bomb", "b0mb"),
        ("8OMB", "bomb", "8OMB"),
        ("a b-o-m-b here", "bomb", "b-o-m-b"),
        ("a b o m b", "bomb", "b o m b"),
        ("b\u200bo\u00admb", "bomb", "b\u200bo\u00admb"),
        ("b\u043e\u043cb", "bomb", "b\u043e\u043cb"),
        ("\uff42\uff4f\uff4d\uff42", "bomb", "\uff42\uff4f\uff4d\uff42"),
        ("boooomb", "bomb", "boooomb"),
        ("g\u00fan", "gun", "g\u00fan"),
        ("gu\u0301n", "gun", "gu\u0301n"),
        ("the gun's", "gun", "gun"),
        ("assss", "ass", "assss"),
        ("a$$", "ass", "a$"),
        ("kitchen   knives.", "kitchen knife", "kitchen   knives"),
        ("kitchen-knife", "kitchen knife", "kitchen-knife"),
        ("b@d eggs!!", "bad egg", "b@d eggs"),
        ("no. 1234", "1234", "1234"),
        ("abi1ity", "ability", "abi1ity"),
        ("ab!l1ties", "ability", "ab!l1ties"),
    ],
)
def test_what_it_finds_and_where(text, word, shown):
    if text == "a$$":  # a sign at the end of a word is punctuation: what is left reads "as"
        assert LIST.find(text) == []
        return
    (hit,) = LIST.find(text)
    assert hit.word == word and text[hit.start : hit.end] == shown


@pytest.mark.parametrize(
    "text",
    [
        "class",
        "bombast",
        "as usual",
        "the pen is red",
        "b omb",
        "12345",
        "kitchen and knife",
        "begun",
        "",
        "!!!",
        "\x00",
    ],
)
def test_what_it_leaves_alone(text):
    assert LIST.find(text) == []


def test_the_longest_of_several_and_the_order_of_the_text():
    words = WordList(("red", "red apple", "apple"))
    assert words.find("apple, red apple") == [Hit("apple", 0, 5), Hit("red apple", 7, 16), Hit("apple", 11, 16)]


def test_without_plurals():
    assert WordList(("gun",), plurals=False).find("guns") == []


@given(st.text(max_size=60))
def test_any_text_is_read_and_every_hit_lies_in_it(text):
    for hit in LIST.find(text):
        assert 0 <= hit.start < hit.end <= len(text)


@given(st.text(alphabet="xyz -", max_size=20), st.sampled_from(["bomb", "gun", "kitchen knife"]))
def test_a_word_between_spaces_is_always_found(around, word):
    text = f"{around} {word} {around}"
    assert word in [hit.word for hit in LIST.find(text)]


def test_as_a_detector():
    detector = word_list({"arms": ["bomb", "gun"], "food": ["egg"]})
    found = detector(["a gun", "an egg", "a cat"])
    assert [v.label for v in found["arms"]] == ["flagged", "clear", "clear"]
    assert [v.score for v in found["food"]] == [0.0, 1.0, 0.0]
    assert detector.card.sha256 != word_list({"arms": ["bomb"], "food": ["egg"]}).card.sha256


def test_a_file_of_words():
    assert read_words("# arms\nbomb\n\n kitchen knife # two words\nC#\n") == ["bomb", "kitchen knife", "C#"]


def test_what_it_refuses():
    with pytest.raises(UsageError, match="no letter and no digit"):
        WordList(("!!",))
    with pytest.raises(UsageError, match="'arms' is empty"):
        word_list({"arms": []})
    with pytest.raises(UsageError, match="looks at texts or exchanges, got int"):
        word_list({"arms": ["gun"]})([3])


def test_a_long_text_of_single_letters_takes_no_time() -> None:
    """Every run of up to 24 letters was looked up: 2.3 seconds for 20,000 characters, 0.03 now. Time of this process."""
    letters = " ".join("qwertzuiopa"[i * i % 11] for i in range(10_000))
    found, begun = WordList(["bomb", "refund"]), time.process_time()
    assert [h.word for h in found.find(f"{letters} b o o o m b")] == ["bomb"]
    assert time.process_time() - begun < 1


def test_a_phrase_has_no_word_between_where_letters_are_apart() -> None:
    one = WordList(["gun up", "up"])
    assert [h.word for h in one.find("g u n is a very long story and u p")] == ["up"]
    assert one.find("g u n u p")[0].word == "gun up"
