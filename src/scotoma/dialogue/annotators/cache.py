"""Answers on disk, so that nothing is asked and paid for twice: one JSON file for each question, named by what was asked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scotoma.dialogue.annotators.contract import Message, Reply

FORMAT = 1


class AnswerCache:
    """Holds what models answered and not what they were asked; an answer may still quote it, so only its owner may read it.

    Files appear whole (temporary file, rename), so that two processes may share a folder: of two that answer one question,
    the later file stays. A file that is damaged counts as missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @staticmethod
    def key(model: str, messages: Sequence[Message], choices: Sequence[str], parameters: Mapping[str, Any]) -> str:
        """sha256 of all that the answer depends on."""
        asked = [FORMAT, model, [dict(m) for m in messages], list(choices), dict(parameters)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Reply | None:
        """Marked as `cached`; tokens, seconds and cost are those of the call that was made then."""
        try:
            told = json.loads(self.path(key).read_text(encoding="utf-8"))
            if told["key"] != key or told["sha256"] != _digest(told["reply"]):
                return None
            return Reply(**{**told["reply"], "cached": True})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        told = {**dataclasses.asdict(reply), "choices": dict(reply.choices)}
        path = self.path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"key": key, "sha256": _digest(told), "reply": told}, file)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def _digest(reply: Any) -> str:
    return hashlib.sha256(json.dumps(reply, sort_keys=True).encode()).hexdigest()
