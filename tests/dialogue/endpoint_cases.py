"""What the tests of endpoints share: a chat of a test server, and short conversations."""

from __future__ import annotations

from typing import Any

from chat_server import ChatServer

from scotoma.dialogue.annotators.budget import Budget
from scotoma.dialogue.annotators.contract import Chat
from scotoma.dialogue.annotators.endpoint import endpoint

KEY = "sk-harmless-0123456789"
CHOICES = ("commitment", "none")


def echo(messages: Any) -> str:
    return f"you said {messages[-1]['content']}"


def asked_of(server: ChatServer, **options: Any) -> Chat:
    told = {"timeout": 5, "retries": 2, "concurrency": 4, "budget": Budget(), "cache": None, **options}
    return endpoint(server.url, "m", **told)


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]
