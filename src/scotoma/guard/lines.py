"""YAML that knows its lines, for files that somebody else may have written: no aliases, no key twice, no more than a megabyte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from scotoma.errors import PolicyError

MOST_BYTES = 1_000_000
At = tuple[str | int, ...]  # keys and places that lead to a value


class _NoAliases(yaml.SafeLoader):
    """Aliases can make a small file as large as memory, and a policy has no use for them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "an alias is not taken here; write it out", event.start_mark)
        return super().compose_node(parent, index)


def read_yaml(data: bytes, where: str) -> tuple[Any, Mapping[At, int]]:
    """What a YAML file holds, and the line of each value. Raises PolicyError for what is no YAML, or not one mapping."""
    if len(data) > MOST_BYTES:
        raise PolicyError(
            f"{where} has {len(data):,} bytes, a policy has at most {MOST_BYTES:,}; put word lists into files"
        )
    lines: dict[At, int] = {}
    try:
        text = data.decode("utf-8-sig")
        loader = _NoAliases(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise PolicyError(f"{where} is empty; scotoma policy schema shows what a policy may say")
            _walk(node, (), lines, where)
            content = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        at = e.problem_mark or e.context_mark
        place = f" line {at.line + 1}" if at else ""
        raise PolicyError(
            f"{where}{place} is not YAML ({' '.join(str(e.problem or e.context).split())}); correct it"
        ) from e
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as e:
        reason = " ".join(str(e).split())[:200]
        raise PolicyError(f"{where} is not YAML ({type(e).__name__}: {reason}); correct it") from e
    if not isinstance(content, dict):
        raise PolicyError(f"{where} must be a mapping that begins with format: 1, not {type(content).__name__}")
    return content, lines


def _walk(node: Any, at: At, lines: dict[At, int], where: str) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            _walk(child, (*at, i), lines, where)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise PolicyError(f"{where} line {line}: a key must be a text; put it in quotes")
            if key.value in seen:
                raise PolicyError(f"{where} line {line}: the key {key.value!r} is there twice; keep one")
            seen.add(key.value)
            lines[(*at, key.value)] = line
            _walk(child, (*at, key.value), lines, where)
