"""Annotators that ask nobody: a file, and a script with known error rates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scotoma.dialogue.annotators.replay import FOREIGN, MISSING, replay
from scotoma.dialogue.annotators.scripted import scripted
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.schema import Answer, Item, Stage, Vote
from scotoma.errors import DataError, UsageError
from scotoma.records import Exchange, RunHeader, Turn, write_jsonl

COMMITMENTS = load_guideline("commitments")


def items(n: int) -> list[Item]:
    return [Item(f"d/{i}/context", "d", i, "context", Exchange(Turn("assistant", "Yes."))) for i in range(n)]


def told(path: Path, name: str = "Ada", n: int = 3) -> list[tuple[str, str, str]]:
    return [(a.outcome, a.label, a.reason) for a in replay(path, name).annotate(items(n), COMMITMENTS)]


class TestLabels:
    def test_csv(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.csv"
        path.write_text("item,label,probability\nd/1/context,none,\nd/0/context,commitment,0.75\nd/9/context,none,1\n")
        ada = replay(path, "Ada")
        given = ada.annotate(items(3), COMMITMENTS)
        assert given == [
            Answer("label", "commitment", 0.75, cached=True),
            Answer("label", "none", cached=True),
            Answer("failed", reason=MISSING),
        ]
        assert (ada.name, ada.kind, ada.criticise) == ("Ada", "replay", None)
        assert ada.model.startswith("labels.csv@") and len(ada.model) == len("labels.csv@") + 12

    def test_jsonl(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.jsonl"
        path.write_text('{"item": "d/0/context", "label": "none"}\n\n{"item": "d/1/context", "label": ""}\n')
        assert told(path) == [("label", "none", ""), ("failed", "", MISSING), ("failed", "", MISSING)]

    def test_a_label_of_another_guideline_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.csv"
        path.write_text("item,label\nd/0/context,toxic\nd/1/context,None\nd/2/context,none\n")
        assert told(path) == [("failed", "", FOREIGN), ("failed", "", FOREIGN), ("label", "none", "")]

    def test_twice_the_same_is_once(self, tmp_path: Path) -> None:
        path = tmp_path / "labels.csv"
        path.write_text("item,label\nd/0/context,none\nd/0/context,none\n")
        assert told(path, n=1) == [("label", "none", "")]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("item,label\nx,none\nx,commitment\n", "gives the item x two labels; leave one"),
            ("id,label\nx,none\n", "has no columns item and label"),
            ("", "has no columns item and label"),
            ("item,label,probability\nx,none,2\n", "line 2 is not item, label and perhaps a probability"),
            ("item,label\n,none\n", "line 2 is not item"),
            ('{"item": "x", "label": "none"}\n{"item"\n', "line 2 is not JSON"),
            ('{"item": "x", "label": 1}\n', "line 1 is not item"),
            ('{"item": "x", "label": "none"}\n[1]\n', "line 2 is not item"),
        ],
    )
    def test_files_that_cannot_be_read(self, tmp_path: Path, text: str, sentence: str) -> None:
        path = tmp_path / "labels"
        path.write_text(text)
        with pytest.raises(DataError, match=sentence):
            replay(path, "Ada")

    def test_no_file_and_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be replayed .No such file"):
            replay(tmp_path / "nothing.csv", "Ada")
        (tmp_path / "bytes").write_bytes(b"\xff\xfe")
        with pytest.raises(DataError, match="it is not UTF-8"):
            replay(tmp_path / "bytes", "Ada")


class TestVotes:
    def file(self, path: Path, *votes: tuple[str, int, Stage, Answer], **changes: Any) -> Path:
        rows = [
            Vote(f"d/{n}/context", stage, who, "tiny-1", COMMITMENTS.identity, answer)
            for who, n, stage, answer in votes
        ]
        header = RunHeader("label", {}, {}, {}, "0", None, None, "2026-10-17T00:00:00Z")
        write_jsonl(path, header, [dataclasses.replace(row, **changes).row() for row in rows])
        return path

    def test_those_of_one_annotator(self, tmp_path: Path) -> None:
        """A failed call gives way to what came later; a refusal stays one; what it cost is kept."""
        path = self.file(
            tmp_path / "votes.jsonl",
            ("Ada", 0, "vote", Answer("failed", reason="HTTP 500")),
            ("Bob", 0, "vote", Answer("label", "none")),
            ("Ada", 0, "vote", Answer("label", "commitment", 0.9, "ab", "", "p", 10, 1, 0.5, 0.25)),
            ("Ada", 1, "vote", Answer("refusal", raw="cd")),
        )
        given = replay(path, "Ada").annotate(items(3), COMMITMENTS)
        assert given == [
            Answer("label", "commitment", 0.9, "ab", "", "p", 10, 1, 0.5, 0.25, cached=True),
            Answer("refusal", raw="cd", cached=True),
            Answer("failed", reason=MISSING),
        ]
        with pytest.raises(DataError, match="holds votes of Ada, Bob, and none of Eve; name one of them"):
            replay(path, "Eve")

    def test_the_only_annotator_whatever_it_is_called(self, tmp_path: Path) -> None:
        path = self.file(tmp_path / "v", ("Ada", 0, "calibrate", Answer("label", "none")))
        assert told(path, "Eve", 1) == [("label", "none", "")]

    def test_self_criticism(self, tmp_path: Path) -> None:
        path = self.file(
            tmp_path / "v",
            ("Ada", 0, "vote", Answer("label", "none")),
            ("Ada", 0, "criticise", Answer("label", "commitment")),
        )
        ada = replay(path, "Ada")
        assert ada.criticise is not None
        assert ada.annotate(items(1), COMMITMENTS)[0].label == "none"
        assert [a.label for a in ada.criticise(items(2), COMMITMENTS, ["none", "none"])] == ["commitment", ""]

    def test_another_guideline(self, tmp_path: Path) -> None:
        path = self.file(tmp_path / "v", ("Ada", 0, "vote", Answer("label", "none")), guideline="other-1@ab")
        with pytest.raises(DataError, match=r"by the guideline other-1@ab, and this run goes by commitments-2@"):
            told(path)

    def test_records_of_another_kind(self, tmp_path: Path) -> None:
        header = RunHeader("audit", {}, {}, {}, "0", None, None, "2026-10-17T00:00:00Z")
        write_jsonl(tmp_path / "v", header, [{"prompt": "x"}])
        with pytest.raises(DataError, match="but not of votes"):
            replay(tmp_path / "v", "Ada")


N = 4000
MANY = items(N)
TRUTH = {item.id: "commitment" if item.turn % 4 == 0 else "none" for item in MANY}


class TestScripted:
    def test_rates(self) -> None:
        """Of 1,000 positive and 3,000 negative items. Four standard deviations: 4 sqrt(0.9 x 0.1 / 1000) = 0.038 and
        4 sqrt(0.8 x 0.2 / 3000) = 0.030."""
        ada = scripted("Ada", TRUTH, sensitivity=0.9, specificity=0.8, seed=1)
        labels = [a.label for a in ada.annotate(MANY, COMMITMENTS)]
        assert sum(label == "commitment" for label in labels[::4]) / 1000 == pytest.approx(0.9, abs=0.038)
        negative = [label for i, label in enumerate(labels) if i % 4]
        assert sum(label == "none" for label in negative) / 3000 == pytest.approx(0.8, abs=0.030)

    def test_refusals_and_mumbling(self) -> None:
        """Of 4,000: 4 sqrt(0.1 x 0.9 / 4000) = 0.019. They are of either label, and errors are as many among the rest."""
        rates = {"refusal_rate": 0.1, "unparsable_rate": 0.1}
        ada = scripted("Ada", TRUTH, sensitivity=0.7, specificity=0.7, seed=1, **rates)
        given = ada.annotate(MANY, COMMITMENTS)
        for outcome in ("refusal", "unparsable"):
            assert sum(a.outcome == outcome for a in given) / N == pytest.approx(0.1, abs=0.019)
        right = [a.label == TRUTH[i.id] for i, a in zip(MANY, given, strict=True) if a.label]
        assert sum(right) / len(right) == pytest.approx(0.7, abs=0.033)

    def test_an_answer_depends_on_seed_name_and_item_alone(self) -> None:
        def labels(name: str, seed: int) -> list[str]:
            these = scripted(name, TRUTH, sensitivity=0.5, specificity=0.5, seed=seed)
            return [a.label for a in these.annotate(MANY, COMMITMENTS)]

        def same(a: list[str], b: list[str]) -> float:
            return sum(x == y for x, y in zip(a, b, strict=True)) / N

        ada = labels("Ada", 1)
        backwards = scripted("Ada", TRUTH, sensitivity=0.5, specificity=0.5, seed=1)
        assert [backwards.annotate([i], COMMITMENTS)[0].label for i in reversed(items(200))] == ada[:200][::-1]
        # Independent fair coins agree half the time: 4 sqrt(0.25 / 4000) = 0.032.
        assert same(ada, labels("Bob", 1)) == pytest.approx(0.5, abs=0.032)
        assert same(ada, labels("Ada", 2)) == pytest.approx(0.5, abs=0.032)

    def test_criticism_mends_a_share_of_what_is_wrong(self) -> None:
        ada = scripted("Ada", TRUTH, sensitivity=0.5, specificity=0.5, repairs=0.6, seed=1)
        assert ada.criticise is not None
        before = [a.label for a in ada.annotate(MANY, COMMITMENTS)]
        after = [a.label for a in ada.criticise(MANY, COMMITMENTS, before)]
        right = [TRUTH[i.id] for i in MANY]
        was_wrong = [(b, a, r) for b, a, r in zip(before, after, right, strict=True) if b != r]
        assert all(a == r for b, a, r in zip(before, after, right, strict=True) if b == r)
        assert sum(a == r for _, a, r in was_wrong) / len(was_wrong) == pytest.approx(0.6, abs=0.045)

    def test_without_repairs_it_cannot(self) -> None:
        assert scripted("Ada", {}, sensitivity=1, specificity=1, seed=1).criticise is None

    def test_perfect_and_perfectly_wrong(self) -> None:
        for rate, agrees in ((1.0, True), (0.0, False)):
            ada = scripted("Ada", TRUTH, sensitivity=rate, specificity=rate, seed=1)
            given = ada.annotate(items(100), COMMITMENTS)
            assert {a.label == TRUTH[i.id] for i, a in zip(items(100), given, strict=True)} == {agrees}

    def test_what_it_does_not_know(self) -> None:
        truth = {"d/0/context": "toxic", "d/1/context": "none"}
        ada = scripted("Ada", truth, sensitivity=1, specificity=1, repairs=1, seed=1)
        outcomes = ["failed", "label", "failed"]
        assert [a.outcome for a in ada.annotate(items(3), COMMITMENTS)] == outcomes
        assert ada.criticise is not None
        assert [a.outcome for a in ada.criticise(items(3), COMMITMENTS, ["none"] * 3)] == outcomes

    @pytest.mark.parametrize("wrong", [{"sensitivity": 1.1}, {"refusal_rate": 0.6, "unparsable_rate": 0.6}])
    def test_rates_that_do_not_fit(self, wrong: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="the rates of Ada must be from 0 to 1"):
            scripted("Ada", {}, **{"sensitivity": 1.0, "specificity": 1.0, **wrong}, seed=1)  # type: ignore[arg-type]
