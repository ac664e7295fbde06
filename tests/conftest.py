"""What every test runs under: one thread, no hub, no network, the same examples from hypothesis every time."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("scotoma", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scotoma")

_connect = socket.socket.connect
LOCAL = ("127.0.0.1", "::1", "localhost")


class NetworkUsedError(AssertionError):
    """A test reached for the network. Tests run offline; give it a local file or a fake."""


def _local_only(sock: socket.socket, address: object) -> None:
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if internet and isinstance(address, tuple) and address[0] not in LOCAL:
        raise NetworkUsedError(f"connection to {address}: tests run offline")
    _connect(sock, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _local_only)
