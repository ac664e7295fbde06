"""The page at /, the description of the API at /openapi.json, and the same to read at /docs. Nothing of it is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from scotoma.guard.server_errors import answer

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@cache
def _text(name: str) -> str:
    return (files("scotoma.guard") / "page" / name).read_text(encoding="utf-8")


def add(app: FastAPI, keys: bool) -> None:
    """`keys` is whether the API asks for one."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, keys)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]

    def static(path: str, name: str, kind: str) -> None:
        @app.get(path, include_in_schema=False, name=name)
        async def sent() -> Response:
            return Response(_text(name), media_type=kind)

    for path, (name, kind) in FILES.items():
        static(path, name, kind)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return answer(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        page = environment.from_string(_text("docs.html.j2")).render(operations=_operations(app.openapi()), keys=keys)
        return Response(page, media_type="text/html; charset=utf-8")


def _described(app: FastAPI, keys: bool) -> dict[str, Any]:
    """FastAPI's description without the 422 that this server never gives, and with its keys."""
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"]["200"]["description"] = "Done."
    for name in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(name, None)
    if keys:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in made["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if path in ("/healthz", "/readyz") else [{"key": []}]
    return made


def _operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page says of each: its fields with their types, and what it may answer."""
    schemas = described["components"]["schemas"]
    out = []
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            body = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            named = schemas.get(body.get("$ref", "").rpartition("/")[2], {})
            fields = [
                {
                    "name": name,
                    "type": _kind(field, schemas),
                    "needed": name in named.get("required", ()),
                    "what": field.get("description", ""),
                }
                for name, field in named.get("properties", {}).items()
            ]
            said = [(s, r["description"]) for s, r in told["responses"].items()]
            out.append(
                {"method": method.upper(), "path": path, "what": told["description"], "fields": fields, "answers": said}
            )
    return out


def _kind(field: dict[str, Any], schemas: dict[str, Any]) -> str:
    if "anyOf" in field or "oneOf" in field:
        parts = [_kind(f, schemas) for f in field.get("anyOf", field.get("oneOf", ()))]
        return " or ".join(dict.fromkeys(p for p in parts if p != "null"))
    if "const" in field:
        return repr(field["const"])
    if "enum" in field:
        return " or ".join(map(repr, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], schemas)}"
    if "$ref" in field:
        own = schemas[field["$ref"].rpartition("/")[2]]
        return "{" + ", ".join(f"{n}: {_kind(f, schemas)}" for n, f in own["properties"].items()) + "}"
    return str(field.get("type", "anything"))
