"""A chat endpoint on loopback, and waits that are short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import ChatServer
from endpoint_cases import KEY, echo

from scotoma import waiting


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment, no proxies, and a hundredth of a second before a second try."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setattr(waiting, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """It repeats what it is asked."""
    with ChatServer(echo) as it:
        yield it
