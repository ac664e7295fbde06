"""policy.yaml: read, checked, and hashed. One file says what is refused, by whom it is found, and which model may be served.

    policy = load_policy("policy.yaml")       or a shipped one by its name: load_policy("policy/zoo")

Fields are in schema.py, and in policy.schema.json for editors. A mistake is one PolicyError that names the file, the line, the
field, and what it might have been.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.errors import MissingExtraError, PolicyError
from scotoma.guard.lines import At, read_yaml
from scotoma.records import sha256_text

if TYPE_CHECKING:
    from scotoma.guard.schema import Policy

SHIPPED = Path(__file__).parents[1] / "configs"
SCHEMA_FILE = Path(__file__).with_name("policy.schema.json")
MOST = 5  # mistakes in one message


def load_policy(path: str | Path) -> Policy:
    """A policy file, or a shipped one by its name. Raises PolicyError, MissingExtraError where pydantic is missing."""
    _schema()
    shipped = SHIPPED / f"{path}.yaml"
    file = shipped if str(path).startswith("policy/") and shipped.is_file() else Path(path)
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        known = ", ".join(f"policy/{p.stem}" for p in sorted((SHIPPED / "policy").glob("*.yaml")))
        raise PolicyError(
            f"the policy {path} cannot be read ({reason}); give a file, or one that ships: {known}"
        ) from e
    policy = parse_policy(data, str(path))
    policy._folder = file.resolve().parent
    policy._source = str(path)
    return policy


def parse_policy(data: bytes, where: str = "policy") -> Policy:
    """A policy from the bytes of a file. Raises PolicyError."""
    schema = _schema()
    from pydantic import ValidationError

    content, lines = read_yaml(data, where)
    try:
        policy: Policy = schema.Policy.model_validate(content)
    except ValidationError as e:
        raise PolicyError(_told(e.errors(include_url=False), where, lines)) from e
    except RecursionError as e:
        raise PolicyError(f"{where} is nested too deep; a policy has no more than a few levels") from e
    return policy


def identity(policy: Policy) -> str:
    """sha256 of everything that a policy says, defaults written out."""
    return sha256_text(json.dumps(policy.model_dump(mode="json"), sort_keys=True))


@functools.cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy, as it is shipped in policy.schema.json."""
    made: dict[str, Any] = _schema().Policy.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"


def _schema() -> Any:
    """The module of pydantic models. Raises MissingExtraError where pydantic is not installed."""
    try:
        import pydantic
    except ImportError as e:
        raise MissingExtraError("pydantic", "guard", "a policy") from e
    if pydantic.VERSION.startswith("1."):
        raise MissingExtraError("pydantic 2", "guard", "a policy")
    from scotoma.guard import schema

    return schema


def _told(found: list[Any], where: str, lines: Mapping[At, int]) -> str:
    """What is wrong, one clause for each mistake, in the order of the file."""
    rows = []
    for error in found:
        context = error.get("ctx") or {}
        at = tuple(context.get("at") or error["loc"])
        at = tuple(p for p in at if p != "[key]")
        near = at
        while near not in lines and near:
            near = near[:-1]
        line = lines.get(near, 1)
        rows.append((line, f"line {line}: {dotted(at) or 'the policy'}: {_clause(error, at)}"))
    rows.sort(key=lambda row: row[0])
    more = f"; and {len(rows) - MOST} more" if len(rows) > MOST else ""
    return f"{where} " + "; ".join(text for _, text in rows[:MOST]) + more


def _clause(error: Any, at: At) -> str:
    kind, given = error["type"], error.get("input")
    if kind == "policy":
        return str(error["ctx"]["told"])
    if kind == "extra_forbidden":
        return f"there is no such key{_near(str(at[-1]), _known(at[:-1]))}"
    if kind == "missing":
        return "is missing; write it" + (" (format: 1)" if at == ("format",) else "")
    if kind == "literal_error":
        known = error["ctx"]["expected"]
        return f"is {known}, not {_short(given)}{_near(str(given), _options(known))}"
    return f"{_lower(error['msg'])}, not {_short(given)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _options(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; known: {', '.join(known)}" if known else ""


def _known(at: At) -> list[str]:
    """Names of the fields at a place, from the JSON Schema."""
    whole = json_schema()
    nodes: list[Any] = [whole]
    for step in at:
        out = []
        for node in nodes:
            for flat in _flat(node, whole):
                if isinstance(step, int):
                    out.append(flat.get("items", {}))
                elif step in flat.get("properties", {}):
                    out.append(flat["properties"][step])
                elif isinstance(flat.get("additionalProperties"), dict):
                    out.append(flat["additionalProperties"])
        nodes = out
    return sorted({name for node in nodes for flat in _flat(node, whole) for name in flat.get("properties", {})})


def _flat(node: Any, whole: Any) -> list[dict[str, Any]]:
    """A node of the schema without references and alternatives."""
    if not isinstance(node, dict):
        return []
    if "$ref" in node:
        return _flat(whole["$defs"][node["$ref"].rpartition("/")[2]], whole)
    parts = [p for key in ("anyOf", "allOf", "oneOf") for p in node.get(key, ())]
    return [flat for part in parts for flat in _flat(part, whole)] or [node]


def dotted(at: At) -> str:
    """("prompts", "rules", 0, "on_hit") as prompts.rules[0].on_hit."""
    out = ""
    for step in at:
        named = step if not isinstance(step, str) or re.fullmatch(r"[\w $+-]+", step) else repr(step)
        out += f"[{step}]" if isinstance(step, int) else f".{named}" if out else str(named)
    return out
