"""The description of the API against the server, by schemathesis: valid and broken requests, no 5xx, no answer that is not described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from guards import policy_of
from serving_cases import crew_of, running
from test_server import POLICY, guard_of
from test_server_chat import behind, completion, saying

from scotoma.guard.server_chat import Upstream

LEAST = 500
# A valid prompt may be refused, which is what this server is for.
OFF = "positive_data_acceptance"


@pytest.mark.slow
def test_the_description_holds() -> None:
    guard = guard_of(f"{POLICY}    dialogue: {{detectors: [{{detector: word-list, words: {{violent: [bomb]}}}}]}}\n")
    with (
        behind(saying(completion("an apple"))) as (url, sent_on),
        running(crew_of(guard), upstream=Upstream(url, "")) as server,
    ):
        ran = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"http://{server.host}:{server.port}/openapi.json",
                *("--exclude-checks", OFF, "--max-examples", "150", "--seed", "1", "--no-color"),
            ],
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        answered = server.ask("/metrics")[2]
    assert ran.returncode == 0, ran.stdout[-6000:]
    cases = re.search(r"([\d,]+) generated", ran.stdout)
    assert cases and int(cases[1].replace(",", "")) >= LEAST
    assert not re.search(r'status="5\d\d"', answered)
    assert sent_on  # a chat is part of what is described


def test_every_status_that_a_request_met_is_described() -> None:
    """422 is FastAPI's and never ours; a chat is described where there is one."""
    from scotoma.guard.decide import load_guard

    guard = load_guard(policy_of("categories: {}"))
    with running(crew_of(guard), upstream=Upstream("http://127.0.0.1:1/v1", "")) as server:
        paths = server.ask("/openapi.json")[2]["paths"]
        assert set(paths) == {
            *("/v1/images/generations", "/v1/moderations", "/v1/chat/completions", "/v1/models", "/v1/policy"),
            *("/healthz", "/readyz", "/metrics"),
        }
        for path in ("/v1/images/generations", "/v1/moderations", "/v1/chat/completions"):
            told = paths[path]["post"]["responses"]
            assert {"200", "400", "401", "413", "415", "429", "503"} <= set(told) and "422" not in told
        page = server.ask("/docs")[2]
        assert all(path in page for path in paths) and "extra_body" in page
