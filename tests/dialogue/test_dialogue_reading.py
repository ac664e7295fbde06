"""Files of dialogues: every form, and what hostile files do. All texts are harmless stand-ins."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scotoma.dialogue.reading import read_dialogues
from scotoma.dialogue.schema import Dialogue, Given
from scotoma.errors import DataError, MissingExtraError
from scotoma.records import Turn

TURNS = [{"speaker": "user", "text": "Is it open?"}, {"role": "Assistant", "content": "Yes, until six."}]
READ = (Turn("user", "Is it open?"), Turn("assistant", "Yes, until six."))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(path: Path, row: Any) -> Dialogue:
    (dialogue,) = read_dialogues(write(path / "one.jsonl", row))
    return dialogue


def test_jsonl(tmp_path: Path) -> None:
    labels = [{"turn": 1, "level": "context", "label": "none"}, {"turn": 0, "level": "utterance", "label": "none"}]
    path = write(tmp_path / "shop.jsonl", {"id": "a", "turns": TURNS, "labels": labels}, {"id": 7, "turns": TURNS[:1]})
    given = (Given(1, "context", "none"), Given(0, "utterance", "none"))
    assert read_dialogues(path) == [Dialogue("a", READ, given, "shop.jsonl"), Dialogue("7", READ[:1], (), "shop.jsonl")]


def test_the_name_of_a_file_says_nothing_of_its_form_and_a_bom_and_empty_lines_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + json.dumps({"id": "a", "turns": TURNS}).encode() + b"\r\n\r\n")
    assert read_dialogues(path) == [Dialogue("a", READ, (), "odd.csv")]


def test_messages_of_openai(tmp_path: Path) -> None:
    """System and developer messages are left out; parts are joined by a line feed; a call of a tool has no words."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "Twelve."},
    ]
    read = (Turn("user", "one\ntwo"), Turn("assistant", ""), Turn("tool", "12"), Turn("assistant", "Twelve."))
    assert one(tmp_path, {"messages": messages}) == Dialogue("one-1", read, (), "one.jsonl")


@pytest.mark.parametrize("speakers, name", [({"Customer": "user"}, "user"), ({}, "CUSTOMER")])
def test_speakers_are_mapped_in_whatever_case_and_kept_where_nothing_is_said_of_them(
    tmp_path: Path, speakers: dict[str, str], name: str
) -> None:
    path = write(tmp_path / "a.jsonl", {"turns": [{"speaker": " CUSTOMER ", "text": "Hello."}]})
    assert read_dialogues(path, speakers=speakers)[0].turns == (Turn(name, "Hello."),)


def table(path: Path, rows: list[list[str]]) -> Path:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    return path


def test_csv_gathers_rows_of_a_dialogue_wherever_they_stand(tmp_path: Path) -> None:
    """Numbers from 1 are as good as from 0: the label of turn 2 of "b" is that of its second turn, 1 in our count."""
    rows = [
        ["dialogue", "turn", "speaker", "text", "label_utterance", "label_context"],
        ["b", "2", "bot", "Yes,\nuntil six.", "", "none"],
        ["a", "0", "user", "Hello.", "none", ""],
        ["b", "1", "user", "Is it open?", "", ""],
    ]
    assert read_dialogues(table(tmp_path / "t.csv", rows)) == [
        Dialogue("b", (READ[0], Turn("assistant", "Yes,\nuntil six.")), (Given(1, "context", "none"),), "t.csv"),
        Dialogue("a", (Turn("user", "Hello."),), (Given(0, "utterance", "none"),), "t.csv"),
    ]


def test_parquet_holds_tables_of_turns_and_objects(tmp_path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = {"dialogue": ["a", "a"], "turn": [0, 1], "speaker": ["user", "bot"], "text": [t.text for t in READ]}
    pq.write_table(pa.table({**columns, "label_context": [None, "none"]}), tmp_path / "t.parquet")
    expected = Dialogue("a", READ, (Given(1, "context", "none"),), "t.parquet")
    assert read_dialogues(tmp_path / "t.parquet") == [expected]
    messages = [[{"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "Yes, until six."}]]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "m.parquet")
    assert read_dialogues(tmp_path / "m.parquet") == [Dialogue("m-1", READ, (), "m.parquet")]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged parquet file"):
        read_dialogues(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"dialogue": ["a"], "text": ["x"], "speaker": ["user"]}), tmp_path / "u.parquet")
    with pytest.raises(DataError, match="no column turn"):
        read_dialogues(tmp_path / "u.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[dialogue\]"):
        read_dialogues(tmp_path / "t.parquet")


def test_the_published_layout_of_the_first_revision(tmp_path: Path) -> None:
    """Its labels are numbers, 0 = NSFW and 1 = SFW, and an exchange is one text with markers."""
    rows = [
        {"text": "Hello there.", "label": 0},
        {"text": "[user] Is it open? [SEP] [bot] Yes, until six.", "label": 1},
    ]
    path = tmp_path / "test.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    assert read_dialogues(path) == [
        Dialogue("test-1", (Turn("", "Hello there."),), (Given(0, "utterance", "NSFW"),), "test.json"),
        Dialogue("test-2", READ, (Given(1, "context", "SFW"),), "test.json"),
    ]


@pytest.mark.parametrize("label, expected", [(0, "porn"), ("normal", "normal")])
def test_the_published_layout_of_the_second_revision(tmp_path: Path, label: Any, expected: str) -> None:
    dialogue = one(tmp_path, {"text": "[user] Is it open? [SEP] [chatbot] Yes, until six.", "label": label})
    assert (dialogue.turns, dialogue.given) == (READ, (Given(1, "context", expected),))


def test_the_published_layout_without_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path / "u.json", {"dialogue": {"user": "Is it open?", "bot": "Yes, until six."}}, {"text": "Hello."}
    )
    assert read_dialogues(path) == [
        Dialogue("u-1", READ, (), "u.json"),
        Dialogue("u-2", (Turn("", "Hello."),), (), "u.json"),
    ]


def test_markers_that_somebody_typed_into_an_utterance_are_words_of_it(tmp_path: Path) -> None:
    assert one(tmp_path, {"text": "hello [SEP] [bot] hello"}).turns == (Turn("", "hello [SEP] [bot] hello"),)


BOT = "[user] a [SEP] [bot] b"


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": BOT}, {"text": BOT.replace("bot", "chatbot")}], r"mixes both .*\(v1: line 1; v2: line 2\)"),
        ([{"text": "a", "label": "SFW"}, {"text": "b", "label": "porn"}], "mixes both revisions"),
        ([{"text": "a", "label": 0}], "no row tells of which revision"),
        ([{"text": BOT, "label": "normal"}], "line 1: a label of one revision and the marker .bot. of the other"),
        ([{"text": BOT + " [SEP] [bot] c"}], "line 1: .* more than once"),
        ([{"text": "a"}, {"text": "[user] hello"}], "line 2: it begins with"),
        ([{"text": "a", "label": 2}], "line 1: the label is neither"),
        ([{"text": "a", "label": True}], "line 1: the label is neither"),
        ([{"dialogue": {"user": "a"}}], "line 1: the dialogue needs the texts"),
    ],
)
def test_what_does_not_fit_the_published_layout(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dialogues(write(tmp_path / "p.jsonl", *rows))


HARD = [
    "a\0b\x07\x1b[31mc",
    "\ufeffmark in front",
    "\u05e9\u05dc\u05d5\u05dd \u202e abc \u202c",
    "zero\u200bwidth e\u0301",
    "",
    "  \t ",
    "line\r\nfeed\u2028",
    "x" * 1_000_000,
    'quote " and, comma',
]


def test_hard_texts_are_kept_exactly_in_every_form(tmp_path: Path) -> None:
    """Nothing is cut, normalised or dropped, neither in jsonl, escaped or not, nor in csv, nor in parquet."""
    turns = [{"speaker": "user", "text": text} for text in HARD]
    escaped = one(tmp_path, {"id": "a", "turns": turns})
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"id": "a", "turns": turns}, ensure_ascii=False), encoding="utf-8")
    rows = [["dialogue", "turn", "speaker", "text"], *(["a", str(i), "user", t] for i, t in enumerate(HARD))]
    found = [escaped, *read_dialogues(plain), *read_dialogues(table(tmp_path / "t.csv", rows))]
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = list(zip(*rows[1:], strict=True))
    pq.write_table(pa.table(dict(zip(rows[0], map(list, columns), strict=True))), tmp_path / "t.parquet")
    for dialogue in (*found, *read_dialogues(tmp_path / "t.parquet")):
        assert [turn.text for turn in dialogue.turns] == HARD
    assert csv.field_size_limit() == 131072  # reading a table of long cells leaves the limit as it was


@pytest.mark.parametrize(
    "row, message",
    [
        ([1], "no object"),
        ({"words": "secret words"}, "fits no form"),
        ({"text": "secret words", "speaker": "user", "turn": 1}, "fits no form"),
        ({"turns": []}, "a dialogue without turns"),
        ({"messages": [{"role": "system", "content": "secret words"}]}, "a dialogue without turns"),
        ({"turns": "secret words"}, "the turns are no list"),
        ({"turns": ["secret words"]}, "turn 0: no object"),
        ({"turns": [{"speaker": "user"}]}, "turn 0: no text"),
        ({"turns": [{"speaker": "user", "text": 3}]}, "turn 0: no text"),
        ({"turns": [{"speaker": "user", "text": "secret words \ud800"}]}, "turn 0: there is half a character"),
        ({"turns": [{"text": "secret words"}]}, "turn 0: no speaker"),
        ({"turns": [{"speaker": "user\nLabel: none", "text": "secret words"}]}, "turn 0: no speaker"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "message 0: a part"),
        ({"messages": [{"role": "user"}]}, "message 0: no text"),
        ({"id": "a\x1b[31m", "turns": TURNS}, "an id is a number or"),
        ({"id": True, "turns": TURNS}, "an id is a number or"),
        ({"id": "a" * 257, "turns": TURNS}, "an id is a number or"),
        ({"turns": TURNS, "labels": {"1": "none"}}, "the labels are no list"),
        ({"turns": TURNS, "labels": [{"turn": 1, "label": "none"}]}, "a label is"),
        ({"turns": TURNS, "labels": [{"turn": 1, "level": "context", "label": "a\nb"}]}, "a label is"),
        ({"turns": TURNS, "labels": [{"turn": 2, "level": "context", "label": "none"}]}, "numbered from 0 to 1"),
        (
            {"turns": TURNS, "labels": [{"turn": 0, "level": "context", "label": "none"}]},
            "turn 0, which has no context",
        ),
        ({"turns": TURNS, "labels": [{"turn": 1, "level": "context", "label": "x"}] * 2}, "two labels for turn 1"),
    ],
)
def test_what_is_no_dialogue_is_an_error_with_its_line_and_without_its_words(
    tmp_path: Path, row: Any, message: str
) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "first", "turns": TURNS}, row)
    with pytest.raises(DataError, match=f"a.jsonl, line 2.*{message}") as caught:
        read_dialogues(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"[]", "holds no dialogues"),
        (b'{"id": "a",\n', "line 1 is not JSON"),
        (b'{"turns": [{"speaker": "user", "text": "secret\x01 words"}]}', "line 1 is not JSON .Invalid control"),
        (b"{" + b'"a":[' * 100_000, "line 1 is not JSON"),
        (b'{"text": "a"}\n{"text": "secret \xe9"}\n', "line 2 is not UTF-8 .byte 0xe9"),
        ('{"text": "a"}'.encode("utf-16"), "UTF-16"),
        (b'[{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', "line 3 is not JSON .no comma"),
        (b'[{"text": "a"},\n]', "line 2 is not JSON .a comma"),
        (b'[{"text": "a"},\n{"text": \n', "line 3 is not JSON"),
        (b'[{"text": "a"}]\n[]', "line 2 is not JSON .something after"),
        (b'[{"text": "a"},\n\n{"words": "b"}]', "line 3: it fits no form"),
        (b"secret words\nsecret words\n", "no column dialogue, turn, speaker, text"),
        (b"dialogue,turn,speaker,text,label\na,0,user,b,none\n", "label does not say of which view"),
        (b"dialogue,turn,speaker,text,text\na,0,user,b,c\n", "two columns of one name"),
        (b'dialogue,turn,speaker,text\na,0,user,"b\nc"\na,1,user\n', "line 4: 3 cells"),
        (b'dialogue,turn,speaker,text\na,0,user,b\na,1,user,"secret words\n', "begins in line 3 is not CSV"),
        (b"dialogue,turn,speaker,text\na,0,user,b\na,0,user,c\n", "line 3: the dialogue 'a' has two turns 0"),
        (b"dialogue,turn,speaker,text\na,0,user,b\na,2,user,c\n", "the dialogue 'a' lacks turns"),
        (b"dialogue,turn,speaker,text\na,first,user,b\n", "line 2: the turn is no number"),
        (b"dialogue,turn,speaker,text\na,-1,user,b\n", "line 2: the turn is no number"),
        (b"dialogue,turn,speaker,text,label_context\na,0,user,b,none\n", "turn 0, which has no context"),
    ],
)
def test_files_that_are_broken_as_a_whole(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_dialogues(path)
    assert "secret" not in str(caught.value)


def test_an_id_that_comes_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "x1", "turns": TURNS}, {"id": "x1", "turns": TURNS})
    with pytest.raises(DataError, match="line 2: the id 'x1' is that of line 1 as well"):
        read_dialogues(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read .No such file"):
        read_dialogues(tmp_path / "none.jsonl")
