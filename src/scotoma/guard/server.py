"""The guard over HTTP: the routes, and every way to say no. Fields and errors are those of the OpenAI API.

picture     prompt decided -> drawn in a batch with others -> looked at -> written down -> sent
moderation  texts and pictures decided by the same policy -> written down -> sent
chat        every turn decided -> the upstream asked -> its answer decided -> written down -> sent (server_chat.py)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import scotoma
from scotoma.guard import server_page
from scotoma.guard.batches import Full
from scotoma.guard.decision import Unavailable
from scotoma.guard.describe import describe, described
from scotoma.guard.server_errors import Answer, answer
from scotoma.guard.server_schema import (
    ChatRequest,
    Completion,
    ImageRequest,
    Images,
    InForce,
    Models,
    ModerationRequest,
    Moderations,
    State,
    answers,
)
from scotoma.guard.server_work import Service

if TYPE_CHECKING:
    from scotoma.guard.schema import Policy


MISSING = "Somebody is not there; Retry-After says when to ask again."


def make_app(service: Service, *, keys: bool = False) -> FastAPI:
    """The application without its door (server_door.Door). `keys` is whether the door asks for one."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for one in service.lines:
            one.start()
        try:
            yield
        finally:
            for one in service.lines:
                await one.stop()
            if service.upstream is not None:
                await service.upstream.close()

    app = FastAPI(
        title="scotoma serve",
        version=scotoma.__version__,
        description=f"Behind the policy {service.policy.name}. Fields are those of the OpenAI API; additions say so.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    _errors(app, service)
    if service.crew.served is not None:

        @app.post("/v1/images/generations", responses=answers(404, 503), response_model=Images)
        async def draw_pictures(asked: ImageRequest, request: Request) -> Response:
            """Draw pictures of a prompt, as far as the policy allows. A picture that is refused is never a black square."""
            work = service.images(asked, request.state.request_id, service.until(request))
            return await service.while_there(request, work)

    @app.post("/v1/moderations", responses=answers(503), response_model=Moderations)
    async def moderate(asked: ModerationRequest, request: Request) -> Response:
        """What the policy says of texts and pictures. Texts: its rules for prompts and its detectors of dialogue."""
        work = service.moderations(asked, request.state.request_id, service.until(request))
        return await service.while_there(request, work)

    if service.upstream is not None:

        @app.post("/v1/chat/completions", responses=answers(503), response_model=Completion)
        async def chat(asked: ChatRequest, request: Request) -> Response:
            """Ask the upstream, where the policy lets every turn and the answer pass. Streams are not passed on."""
            work = service.chat(asked, request.state.request_id, service.until(request))
            return await service.while_there(request, work)

    @app.get("/v1/models", responses=answers(body=False), response_model=Models)
    async def list_models() -> Response:
        """The model that is served, if any."""
        row = {"id": service.settings.name, "object": "model", "created": service.begun, "owned_by": "scotoma"}
        return answer({"object": "list", "data": [row] if service.crew.served else []})

    @app.get("/v1/policy", responses=answers(body=False), response_model=InForce)
    async def policy_in_force() -> Response:
        """What is refused, by whom it is found, and from which score on."""
        served = service.crew.served
        return answer(
            {
                "name": service.policy.name,
                "identity": service.guard.identity,
                "says": [*_told(service.policy), *described(service.guard)],
                "model": service.settings.name if served else "",
                "size": "{}x{}".format(*served.size) if served else "",
                "credits": list(served.credits) if served else [],
                "chat": service.upstream is not None,
            }
        )

    @app.get("/healthz", response_model=State)
    async def healthy() -> Response:
        """Whether the server runs."""
        return answer({"status": "ok", "missing": []})

    @app.get("/readyz", responses={503: {"model": State, "description": MISSING}}, response_model=State)
    async def ready() -> Response:
        """Whether everybody who has to look or draw is there."""
        missing = [p.reason for p in service.crew.missing]
        if missing:
            return answer({"status": "not ready", "missing": missing}, 503, {"retry-after": str(service.retry_after)})
        return answer({"status": "ok", "missing": []})

    @app.get("/metrics", responses=answers(body=False), response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    server_page.add(app, keys)
    return app


def _told(policy: Policy) -> list[str]:
    """Where the log lies is nobody's business who asks."""
    lines = [line for line in describe(policy) if not line.startswith("log: ")]
    return [*lines, "log: none" if policy.log is None else "log: every decision is written down before it is told"]


def _errors(app: FastAPI, service: Service) -> None:
    """Every way in which a request can end without an answer, as an error body."""

    @app.exception_handler(Answer)
    async def no(_: Request, e: Answer) -> Response:
        return e.response()

    @app.exception_handler(Full)
    async def full(_: Request, e: Full) -> Response:
        told = "This service has too many requests at the moment. Please try again."
        return Answer(429, "overloaded", told, retry_after=service.retry_after).response()

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, e: Unavailable) -> Response:
        told = f"This service cannot answer at the moment: {e}. Please try again."
        return Answer(503, "unavailable", told, retry_after=service.retry_after).response()

    @app.exception_handler(TimeoutError)
    async def late(_: Request, e: TimeoutError) -> Response:
        told = "This request was not done before its deadline, and is refused. Please try again."
        return Answer(503, "deadline", told, retry_after=service.retry_after).response()

    @app.exception_handler(RequestValidationError)
    async def unfit(_: Request, e: RequestValidationError) -> Response:
        """What is wrong with the first field, and nothing of what it held."""
        first = e.errors()[0]
        at = ".".join(str(p) for p in first["loc"][1:] if not isinstance(p, str) or p.isidentifier())[:100]
        told = f"{at or 'The body'} does not fit: {first['msg']}."
        return Answer(400, "invalid_value", told, param=at or None).response()

    @app.exception_handler(HTTPException)
    async def other(_: Request, e: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(e.status_code, "invalid_value")
        made = Answer(e.status_code, code, f"{e.detail}.")
        made.headers = dict(e.headers or {})
        return made.response()
