"""How the server says no: the OpenAI API's error bodies, one status for each kind of reason."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastapi.responses import Response

from scotoma.guard.decision import Decision
from scotoma.guard.drawing import ONE_COLOUR

INVALID, LIMITED, UNAVAILABLE = "invalid_request_error", "rate_limit_error", "service_unavailable_error"


class Answer(Exception):
    """Ends a request with an error body. `retry_after` in seconds, for 429 and 503."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        stage: str = "",
        category: str = "",
    ):
        super().__init__(message)
        kind = {429: LIMITED, 503: UNAVAILABLE}.get(status, INVALID)
        self.status, self.code = status, code
        self.body = {
            "error": {
                "message": message,
                "type": kind,
                "param": param,
                "code": code,
                "stage": stage,
                "category": category,
            }
        }
        self.headers: Mapping[str, str] = {} if retry_after is None else {"retry-after": str(max(1, retry_after))}

    def response(self) -> Response:
        return answer(self.body, self.status, self.headers)


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ASCII JSON, so that no character of a message can make it fail."""
    return Response(json.dumps(body, allow_nan=False), status, dict(headers or {}), media_type="application/json")


def of_decision(decision: Decision, retry_after: int) -> Answer:
    """Of a Decision that does not pass. Scores and thresholds are for the log: who asks would learn how near it was."""

    def no(status: int, code: str, wait: int | None = None) -> Answer:
        told = decision.sentence
        return Answer(status, code, told, retry_after=wait, stage=decision.stage, category=decision.category)

    if decision.stage == "limits":
        return no(400, "limit_exceeded")
    if decision.stage == "model" and decision.reason == ONE_COLOUR:
        return no(400, "nothing_drawn")
    if decision.state == "failure":
        return no(503, "unavailable", retry_after)
    return no(400, "content_policy_violation")
