"""scotoma label, distill and moderate, from a file of dialogues to verdicts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from scotoma.cli import label as verb
from scotoma.cli import main
from scotoma.dialogue.annotators import registry
from scotoma.dialogue.annotators.contract import Chat
from scotoma.dialogue.annotators.registry import Kind
from scotoma.dialogue.annotators.replay import replay
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.schema import LEVELS
from scotoma.dialogue.views import items


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 dialogues as jsonl, and the template's labels as a file to replay."""
    folder = tmp_path_factory.mktemp("dialogues")
    dialogues = generate(120, 3)
    rows = [{"id": d.id, "turns": [{"speaker": t.speaker, "text": t.text} for t in d.turns]} for d in dialogues]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = [{"item": i.id, "label": i.given or "none"} for i in items(dialogues)]
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    return folder


@pytest.fixture(scope="module")
def labelled(data):
    told = f"truth=replay,file={data / 'truth.jsonl'}"
    given = ["label", str(data / "chats.jsonl"), "--guideline", "commitments", "--annotator", told]
    assert main([*given, "--annotator", "patterns", "--annotator", "linear", "--out", str(data / "run")]) == 0
    return data / "run"


@pytest.fixture(scope="module")
def student(labelled, data):
    assert main(["distill", str(labelled), "--route", "ngrams", "--out", str(data / "student")]) == 0
    return data / "student"


def test_items_that_the_vote_left_open_teach_by_their_soft_label(data, tmp_path):
    """Two voters decide what they agree on."""
    told = f"truth=replay,file={data / 'truth.jsonl'}"
    given = ["label", str(data / "chats.jsonl"), "--guideline", "commitments", "--annotator", told]
    assert main([*given, "--annotator", "patterns", "--out", str(tmp_path / "run")]) == 0
    assert (
        main(["distill", str(tmp_path / "run"), "--route", "ngrams", "--noise", "off", "--out", str(tmp_path / "s")])
        == 0
    )
    counts = json.loads((tmp_path / "s/figures.json").read_text())["counts"]
    rows = [json.loads(line) for line in (tmp_path / "run/labels.jsonl").read_text().splitlines()[1:]]
    assert sum(n.get("undecided", 0) for n in counts["items"].values()) == sum(not r["label"] for r in rows)
    assert 0 < counts["items"]["train"]["undecided"] <= counts["soft labels"]


def test_a_run_has_records_report_and_card(labelled, capsys):
    assert {"votes.jsonl", "labels.jsonl", "label.json", "report.html", "card.md"} <= {
        p.name for p in labelled.iterdir()
    }
    before = (labelled / "report.html").read_bytes()
    assert main(["label", "report", str(labelled)]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    assert (labelled / "report.html").read_bytes() == before


def test_the_time_of_a_student_stands_beside_what_the_labels_cost(labelled, student):
    assert main(["label", "report", str(labelled), "--student", str(student)]) == 0
    assert "the student, for 1,000 texts" in (labelled / "card.md").read_text()
    assert main(["label", "report", str(labelled)]) == 0
    assert "the student, for 1,000 texts" not in (labelled / "card.md").read_text()


def test_texts_are_shown_on_demand_and_without_personal_data(labelled):
    def words() -> str:
        return (labelled / "report.html").read_text()

    row = json.loads((labelled / "items.jsonl").read_text().splitlines()[5])
    assert row["exchange"]["response"]["text"] not in words()
    assert main(["label", "report", str(labelled), "--redact"]) == 0
    shown = [
        json.loads(line)["exchange"]["response"]["text"]
        for line in (labelled / "items.jsonl").read_text().splitlines()[1:]
    ]
    assert any(text in words() for text in shown)


def test_a_student_judges_dialogues_lines_and_stdin(student, data, capsys, monkeypatch):
    assert main(["moderate", "--with", str(student), str(data / "chats.jsonl")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == sum(i.level == "context" for i in items(generate(120, 3)))
    assert {row["verdicts"]["commitment"]["label"] for row in rows} == {"flagged", "clear"}
    (data / "lines.txt").write_text("We are open until six.\nYou get the full amount back.\n")
    assert main(["moderate", "--with", str(student), str(data / "lines.txt")]) == 0
    from_file = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO((data / "lines.txt").read_text()))
    assert main(["moderate", "--with", str(student)]) == 0
    assert capsys.readouterr().out == from_file and from_file.count("\n") == 2


def test_the_turn_that_opens_a_dialogue_is_judged(data, tmp_path, capsys):
    """The assistant's first words as an utterance, its others in their context, those of others not; in a dialogue of one turn
    whoever spoke."""
    rows = {
        "opens": [("assistant", "Your refund is on its way."), ("user", "A refund?"), ("assistant", "It is.")],
        "answers": [("user", "A refund?"), ("assistant", "No.")],
        "single": [("user", "A refund?")],
    }
    told = [{"id": k, "turns": [{"speaker": s, "text": t} for s, t in v]} for k, v in rows.items()]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    (tmp_path / "words.json").write_text(json.dumps({"refund": ["refund"]}))
    words = f"word-list,words={tmp_path / 'words.json'}"
    assert main(["moderate", "--detector", words, str(tmp_path / "chats.jsonl")]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["verdicts"]["refund"]["label"]) for row in found] == [
        ("opens/0/utterance", "flagged"),
        ("opens/2/context", "clear"),
        ("answers/1/context", "clear"),
        ("single/0/utterance", "flagged"),
    ]


def test_any_detector_of_texts_moderates(data, capsys):
    (data / "words.json").write_text(json.dumps({"refund": ["refund"]}))
    (data / "two.txt").write_text("A r3fund?\nNo.\n")
    assert main(["moderate", "--detector", f"word-list,words={data / 'words.json'}", str(data / "two.txt")]) == 0
    rows = [json.loads(line)["verdicts"]["refund"]["label"] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["flagged", "clear"]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["label", "x.jsonl", "--out", "run"], 2, "needs --guideline"),
        (["label", "x.jsonl", "--guideline", "comitments", "--out", "run"], 2, "did you mean 'commitments'"),
        (["label", "a", "b"], 2, "label takes one file"),
        (["label", "x.jsonl", "--guideline", "commitments", "--out", "run"], 9, "x.jsonl"),
        (["distill", "nowhere", "--out", "s"], 9, "nowhere"),
        (["distill", "nowhere"], 2, "--out student/"),
        (["distill", "nowhere", "--out", "s", "--route", "ngram"], 2, "did you mean 'ngrams'"),
        (["moderate", "x.txt"], 2, "--with FOLDER"),
        (["moderate", "--detector", "zoo-standins", "x.txt"], 2, "looks at pictures"),
        (["moderate", "--detector", "word-list,words", "x.txt"], 2, "NAME,OPTION=VALUE"),
    ],
)
def test_mistakes_are_named(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec, said",
    [
        ("pattern", "did you mean 'patterns'"),
        ("patterns,fil=x", "did you mean 'file'"),
        ("judge=endpoint,url=http://localhost:1/v1", "model"),
        ("judge=endpoint,url=http://localhost:1/v1,model=m,key=", "set a budget"),
        ("patterns,file", "OPTION=VALUE"),
    ],
)
def test_annotators_that_cannot_be_made(spec, said, data, tmp_path, capsys):
    given = ["label", str(data / "chats.jsonl"), "--guideline", "commitments", "--annotator", spec]
    assert main([*given, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "guideline, kept, left",
    [
        ("commitments", ["patterns", "descriptions", "local", "linear", "examples"], []),
        (
            "toxic",
            ["descriptions", "local", "linear", "examples"],
            ["patterns ship for 'commitments' and not for 'toxic'"],
        ),
        ("pornographic", ["descriptions", "local"], ["no example of 'pornographic'"] * 2 + ["patterns ship for"]),
    ],
)
def test_who_labels_where_nobody_is_named(guideline, kept, left, capsys):
    """Who lacks patterns or examples for a guideline is left out, and it is said why."""
    assert verb.offline([*verb.OFFLINE, *verb.OFFLINE_RESERVES], load_guideline(guideline)) == kept
    told = sorted(capsys.readouterr().err.splitlines(), key=lambda line: "patterns" in line.split(" is left out: ")[0])
    assert len(told) == len(left) and all(why in line for why, line in zip(left, told, strict=True))


@pytest.mark.parametrize("guideline", ["commitments", "toxic", "pornographic"])
def test_every_guideline_labels_without_a_named_annotator(guideline, tmp_path, monkeypatch, capsys):
    """Without the packages of models: `similar` stands for the encoder and the language model."""
    stand_in = Kind("", lambda name: replay(tmp_path / "known.jsonl", name))
    monkeypatch.setattr(
        registry, "KINDS", {**registry.KINDS, **dict.fromkeys(("descriptions", "local", "examples"), stand_in)}
    )
    turns = [("user", "Is it warm?"), ("assistant", "It is, I think."), ("user", "And now?"), ("assistant", "No.")]
    rows = [{"id": f"d{i}", "turns": [{"speaker": s, "text": f"{t} {i} {i}x"} for s, t in turns]} for i in range(12)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    none = load_guideline(guideline).negative
    known = [
        {"item": f"d{i}/{turn}/{level}", "label": none} for i in range(12) for turn in range(4) for level in LEVELS
    ]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in known))
    given = ["label", str(tmp_path / "chats.jsonl"), "--guideline", guideline, "--json", "--out", str(tmp_path / "run")]
    assert main(given) == 0
    told = capsys.readouterr()
    voters = [a["name"] for a in json.loads(told.out)["annotators"] if a["role"] == "voter"]
    assert (
        voters
        == {
            "commitments": ["patterns", "descriptions", "local", "linear"],
            "toxic": ["descriptions", "local", "linear"],
            "pornographic": ["descriptions", "local"],
        }[guideline]
    )
    assert ("patterns is left out: " in told.err) == (guideline != "commitments")


def test_what_an_endpoint_answered_and_what_was_spent_is_kept_in_the_run(data, tmp_path, monkeypatch):
    """Unless another cache is named, or none."""
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(
        "scotoma.dialogue.annotators.endpoint.endpoint", lambda *a, **k: made.append(k["cache"]) or Chat("m", None)
    )
    spec = "endpoint,url=http://localhost:1/v1,model=m,key=,tokens=9"
    for more in ("", ",cache=mine", ",cache="):
        verb.annotator(spec + more, tmp_path / "run/answers")
    assert made == [tmp_path / "run/answers", Path("mine"), None]


def test_kinds_of_annotators(capsys):
    assert main(["label", "kinds", "--json"]) == 0
    assert {"endpoint", "local", "patterns", "replay"} <= set(json.loads(capsys.readouterr().out))
