"""Answers on disk: found again, recomputed when damaged, whole for every reader."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from scotoma.dialogue.annotators.cache import AnswerCache
from scotoma.dialogue.annotators.contract import Reply

ASKED = [{"role": "user", "content": "a red bicycle"}]
REPLY = Reply("none", "", {"none": -0.1, "commitment": -2.5}, 12, 1, 0.5, 0.25)


def key(
    model: str = "m", words: str = "a red bicycle", choices: tuple[str, ...] = ("a", "b"), heat: float = 0.0
) -> str:
    return AnswerCache.key(model, [{"role": "user", "content": words}], choices, {"temperature": heat})


def test_what_was_answered_is_found_again(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers")
    assert cache.get(key()) is None
    cache.put(key(), REPLY)
    assert AnswerCache(tmp_path / "answers").get(key()) == Reply(
        "none", "", REPLY.choices, 12, 1, 0.5, 0.25, cached=True
    )


def test_the_key_is_of_all_that_the_answer_depends_on() -> None:
    assert key() == key() and len(key()) == 64
    assert len({key(), key(model="n"), key(words="b"), key(choices=()), key(choices=("b", "a")), key(heat=1.0)}) == 6
    assert key(words="\ud800")  # half a character


def test_it_holds_no_question_and_is_its_owner_s(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put(key(), REPLY)
    (path,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert path == cache.path(key()) and "bicycle" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


DAMAGES = {
    "cut short": lambda text: text[:-9],
    "empty": lambda text: "",
    "another answer": lambda text: text.replace('"none"', '"nine"'),
    "another key": lambda text: text.replace(key(), key(model="n")),
    "another kind": lambda text: "[1]",
    "a field too many": lambda text: json.dumps({**json.loads(text), "reply": {"mood": 1}}),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_missing_one_and_is_written_again(tmp_path: Path, damage: str) -> None:
    cache = AnswerCache(tmp_path)
    cache.put(key(), REPLY)
    path = cache.path(key())
    path.write_text(DAMAGES[damage](path.read_text()))
    assert cache.get(key()) is None
    cache.put(key(), REPLY)
    assert cache.get(key()) is not None


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put(key(), REPLY)
    cache.path(key()).write_bytes(b"\xff\xfe\x00")
    assert cache.get(key()) is None


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("scotoma.dialogue.annotators.cache.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        AnswerCache(tmp_path).put(key(), REPLY)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def write(folder: str, who: int) -> None:
    cache = AnswerCache(Path(folder))
    for i in range(150):
        cache.put(key(words=str(i % 10)), Reply(f"{who} ".ljust(2000, "x")))


def test_two_processes(tmp_path: Path) -> None:
    """While both write the same ten answers, a reader finds each whole, of one or the other, from the first time on."""
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write, args=(str(tmp_path), who)) for who in (1, 2)]
    for writer in writers:
        writer.start()
    cache, seen, torn = AnswerCache(tmp_path), set[str](), 0
    while any(w.is_alive() for w in writers):
        for i in range(10):
            reply = cache.get(key(words=str(i)))
            if reply is not None:
                assert reply.text is not None and len(reply.text) == 2000
                seen.add(str(i))
            torn += reply is None and str(i) in seen
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert torn == 0
    assert all(cache.get(key(words=str(i))) is not None for i in range(10))
    assert list(tmp_path.rglob("*.partial")) == []
