"""The guard of conftest.py itself: a test that reaches out must fail."""

from __future__ import annotations

import os
import socket

import pytest
import torch


def test_a_connection_to_elsewhere_is_refused() -> None:
    """192.0.2.1 is reserved for documentation (RFC 5737); the guard must speak before any packet leaves."""
    with socket.socket() as s, pytest.raises(AssertionError, match="tests run offline"):
        s.connect(("192.0.2.1", 80))


def test_a_local_connection_works() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client.connect(server.getsockname())
        assert client.getpeername() == server.getsockname()


def test_one_thread_and_no_hub() -> None:
    assert torch.get_num_threads() == 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"
