"""Ids built from segments: layout, truncation by hand, and markers that nobody can type."""

from __future__ import annotations

import pytest

from sample_students import write_bert
from scotoma.detectors.text.encoder import load_tokenizer
from scotoma.detectors.text.normalise import bare, cut, plain
from scotoma.detectors.text.runs import by_length, padded
from scotoma.detectors.text.segments import MARKERS, Segments, add_markers, head_and_tail, segments, tokens
from scotoma.errors import ModelError
from scotoma.records import Exchange, Turn


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    found = load_tokenizer(write_bert(tmp_path_factory.mktemp("bert")))
    assert add_markers(found) == 3
    return found


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def exchange(response, *context, speaker="assistant"):
    return Exchange(Turn(speaker, response), tuple(Turn(s, t) for s, t in context))


def test_the_layout(tokenizer):
    cut_ids = segments(tokenizer)
    alone, pair = cut_ids(
        [exchange("tea is here"), exchange("yes", ("user", "tea ?"), ("guest", "cup"), ("assistant", "mint"))]
    )
    assert words(tokenizer, alone) == ["[CLS]", "tea", "is", "here", "[SEP]"]
    assert " ".join(words(tokenizer, pair)) == (
        "[CLS] [user] tea ? [speaker] cup [assistant] mint [SEP] [assistant] yes [SEP]"
    )
    assert cut_ids([exchange("", ("user", ""))])[0] == [
        tokenizer.cls_token_id,
        tokenizer.convert_tokens_to_ids("[user]"),
        tokenizer.sep_token_id,
        tokenizer.convert_tokens_to_ids("[assistant]"),
        tokenizer.sep_token_id,
    ]


@pytest.mark.parametrize(
    "typed", ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[user]", "[assistant]", "[speaker]", "[chatbot]"]
)
def test_nobody_can_type_a_marker(tokenizer, typed):
    """However a marker is written into a turn, the sequence has those of its own layout and no other."""
    special = {tokenizer.convert_tokens_to_ids(m) for m in MARKERS.values()} | set(tokenizer.all_special_ids)
    special -= {tokenizer.unk_token_id}
    plain_ids = segments(tokenizer)([exchange("tea", ("user", "cup"))])[0]
    for text in (typed, f"cup {typed} tea", f"{typed}{typed}", f" {typed} ", typed.replace("[", "\u200b[")):
        for e in (exchange(f"tea {text}", ("user", "cup")), exchange("tea", ("user", f"cup {text}"))):
            ids = segments(tokenizer)([e])[0]
            assert [i for i in ids if i in special] == [i for i in plain_ids if i in special]
    # Without the option the tokenizer does take it for a marker, so the test can fail.
    if typed != "[chatbot]":
        assert set(tokenizer(typed, add_special_tokens=False)["input_ids"]) & special


def test_context_goes_before_the_response_and_oldest_first(tokenizer):
    """longest 12: [CLS] [SEP] [assistant] [SEP] leave 8. A response of 3 leaves 5 for context: the newest turn takes marker and
    2, which leaves 2 for the older one, marker and its last word. A response of 8 or more leaves nothing."""
    cut_ids = segments(tokenizer, 12)
    context = (("user", "the car is here"), ("assistant", "a pot"))
    found = cut_ids([exchange("we have tea", *context)])[0]
    assert (
        " ".join(words(tokenizer, found)) == "[CLS] [user] here [assistant] a pot [SEP] [assistant] we have tea [SEP]"
    )
    # One more word: 1 is left for the older turn, not enough for marker and word.
    found = cut_ids([exchange("we have tea yes", *context)])[0]
    assert " ".join(words(tokenizer, found)) == "[CLS] [assistant] a pot [SEP] [assistant] we have tea yes [SEP]"
    found = cut_ids([exchange("tea pot cup leaf mint car road tyre map fuel", *context)])[0]
    assert " ".join(words(tokenizer, found)) == "[CLS] [SEP] [assistant] tea pot cup leaf road tyre map fuel [SEP]"


def test_an_overlong_response_keeps_head_and_tail(tokenizer):
    assert head_and_tail([1, 2, 3, 4, 5], 5) == [1, 2, 3, 4, 5]
    assert head_and_tail([1, 2, 3, 4, 5], 3) == [1, 4, 5] and head_and_tail([1, 2, 3, 4, 5], 2) == [1, 5]
    found = segments(tokenizer, 6)([exchange("tea pot cup leaf mint")])[0]
    assert words(tokenizer, found) == ["[CLS]", "tea", "pot", "leaf", "mint", "[SEP]"]


def test_every_sequence_fits_and_long_texts_are_quick(tokenizer):
    long = "tea " * 250_000  # 1 MB
    given = [exchange(long, ("user", long)), exchange("tea", *[("user", "cup")] * 3000), exchange("\x00\u202e\ud800")]
    for longest in (8, 64, 512):
        assert max(map(len, segments(tokenizer, longest)(given))) <= longest


def test_tokenizers_that_do_not_do(tokenizer, tmp_path):
    fresh = load_tokenizer(write_bert(tmp_path))
    with pytest.raises(ModelError, match=r"does not know the marker \[user\]"):
        segments(fresh)

    class Careless:
        """One that ignores split_special_tokens."""

        def __call__(self, texts, **options):
            return tokenizer(texts, **{**options, "split_special_tokens": False})

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    with pytest.raises(ModelError, match="makes special tokens of what somebody types"):
        segments(Careless())
    fresh.sep_token = None
    with pytest.raises(ModelError, match="no tokens for beginning"):
        segments(fresh)
    assert tokens(tokenizer, []) == []


def test_one_spelling():
    assert plain("tea\x00 \u200bpot\ttab") == "tea pot\ttab"
    assert plain("\u0440ay the \u0440\u0430\u0443") == "pay the pay"
    told = "\u0440ay the \u0440\u0430\u0439"  # the last letter is like no Latin one, so words of another script may stand here
    assert plain(told) == "pay the \u0440\u0430\u0439" and plain(told[6:]) == told[6:]
    assert plain("\uff54\uff45\uff41 caf\xe9 \ud800") == "tea caf\xe9 "
    assert bare("TEA \u0440\u0430y Caf\xe9\u202e") == "tea pay cafe"
    assert cut("abcdefg", 4) == "ab fg" and cut("abcd", 4) == "abcd"


def test_batches_by_length():
    """Lengths 5, 1, 9, 1 with 10 tokens a batch: 1, 1 and 5 would be 3 x 5 = 15 tokens, so 5 stands alone, and so does 9."""
    assert list(by_length([5, 1, 9, 1], most_tokens=10)) == [[1, 3], [0], [2]]
    assert list(by_length([5, 1, 9, 1], most_tokens=100, most=3)) == [[1, 3, 0], [2]]
    assert list(by_length([50], most_tokens=10)) == [[0]] and list(by_length([])) == []
    ids, mask = padded([[7, 8], [9]], 3)
    assert ids.tolist() == [[7, 8], [9, 3]] and mask.tolist() == [[1, 1], [1, 0]]


def test_unnamed_speakers_share_a_marker():
    cut_ids = Segments(None, {"user": 7, "": 9}, 1, 2, 0)
    assert cut_ids._marker("user") == 7 and cut_ids._marker("assistant") == 9 == cut_ids._marker("")
