from __future__ import annotations

import pytest

from scotoma import waiting


def test_it_is_waited_for_in_all_its_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 October 2026, 7:28:00 is 1792222080 seconds after the epoch."""
    monkeypatch.setattr(waiting.time, "time", lambda: 1792222075.0)
    for headers, seconds in (
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sat, 17 Oct 2026 07:28:00 GMT"}, 5.0),
        ({"retry-after": "Sat, 17 Oct 2020 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ):
        assert waiting.told_to_wait(headers) == seconds, headers


def test_waits_double_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_WAIT", 1.0)

    class Middle:
        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

    assert [waiting.wait(k, Middle()) for k in (1, 2, 3, 4, 20)] == [1.0, 2.0, 4.0, 8.0, 60.0]  # type: ignore[arg-type]
