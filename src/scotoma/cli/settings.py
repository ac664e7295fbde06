"""Settings of a method, typed by the fields of its dataclass, from `--set NAME=VALUE` or from a file.

Fields are bool, int, float, str, Literal, tuple[X, ...] of these, or one of these or None; help is in their metadata.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

from scotoma.errors import UsageError, unknown_name


def settings(config: type, given: Sequence[str] | Mapping[str, Any]) -> Any:
    """An instance of the dataclass `config` from texts NAME=VALUE, or from a mapping as a file has it.

    Fields are bool, int, float, str, Literal, tuple[X, ...] of these, or one of these or None. In a text, the items of
    a tuple stand between commas, white space around them is not theirs, and a backslash takes the next character as it
    is: `--set "templates=a {}\\, drawn,{}"` is two. Nothing is the empty tuple; none is None. A name is given once.
    Raises UsageError for an unknown name, with the nearest, and for a value of another type.
    """
    found = typed(config, given)
    for field in dataclasses.fields(config):
        if field.init and field.name not in found and default_of(field) is dataclasses.MISSING:
            raise UsageError(f"setting {field.name} is missing; give it with --set {field.name}=VALUE")
    return config(**found)


def typed(config: type, given: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The values given, by name, each of the type of its field."""
    hints, fields = typing.get_type_hints(config), dataclasses.fields(config)
    known = [f.name for f in fields if f.init]
    found: dict[str, Any] = {}
    pairs = given.items() if isinstance(given, Mapping) else [_split(text) for text in given]
    convert: Callable[[Any, Any], Any] = from_plain if isinstance(given, Mapping) else _from_text
    for name, value in pairs:
        if name not in known:
            raise unknown_name("setting", str(name), known)
        if name in found:
            raise UsageError(f"setting {name} is given twice; give it once, items of a list between commas")
        try:
            found[name] = convert(hints[name], value)
        except ValueError as e:
            word = in_words(hints[name])
            raise UsageError(f"setting {name} must be {word}, not {value!r}{hint(hints[name], value)}") from e
    return found


def by_method(names: Sequence[str], given: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Settings of each method: with several, `METHOD.NAME` says whose a setting is. Raises UsageError where it does not."""
    if len(names) == 1:
        return {names[0]: given}
    pairs = given.items() if isinstance(given, Mapping) else [_split(text) for text in given]
    found: dict[str, Any] = {name: {} if isinstance(given, Mapping) else [] for name in names}
    for key, value in pairs:
        whose, dot, name = str(key).partition(".")
        if not dot or whose not in found:
            raise UsageError(
                f"with several methods a setting is METHOD.NAME=VALUE, not {key}; write {names[0]}.{name or key}={value}"
            )
        if isinstance(given, Mapping):
            found[whose][name] = value
        else:
            found[whose].append(f"{name}={value}")
    return found


def help_of(config: type) -> str:
    """A table of the settings of a dataclass: name and default, then help from the metadata of the field."""
    hints, lines = typing.get_type_hints(config), []
    for field in dataclasses.fields(config):
        if field.init:
            default = default_of(field)
            lines.append(f"  {field.name}={'' if default is dataclasses.MISSING else spell(default)}")
            text = "; ".join(filter(None, [field.metadata.get("help", ""), in_words(hints[field.name])]))
            lines += textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def methods_help() -> str:
    """The settings of every registered method, for --help. Imports their code."""
    from scotoma.erasure import METHODS

    return "\n\n".join(
        f"settings of {name} (--set NAME=VALUE), with their defaults:\n{help_of(method.config)}"
        for name, method in METHODS.items()
    )


def spell(value: Any) -> str:
    """The text that gives `value` back after NAME=."""
    if isinstance(value, tuple):
        items = [re.sub(r"^\s|\s\Z|[\\,]", r"\\\g<0>", spell(v)) for v in value]
        return ",".join(items) + ("," if items and not items[-1] else "")
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set takes NAME=VALUE, not {text!r}")
    return name.strip(), value


def _items(text: str) -> list[str]:
    """Items between commas; a last one that is empty does not count, so that "" holds none and "a," holds one."""
    items: list[list[tuple[str, bool]]] = [[]]  # characters, and whether a backslash stood before them
    characters = iter(text)
    for c in characters:
        if c == ",":
            items.append([])
        else:
            items[-1].append((next(characters, c), True) if c == "\\" else (c, False))
    for item in items:
        for end in (0, -1):
            while item and item[end][0].isspace() and not item[end][1]:
                item.pop(end)
    if not items[-1]:
        items.pop()
    return ["".join(c for c, _ in item) for item in items]


def _parts(kind: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        if len(inner) == 1 and len(typing.get_args(kind)) == 2:
            return inner[0], True
    return kind, False


def in_words(kind: Any) -> str:
    """A type in words, after "must be"."""
    kind, optional = _parts(kind)
    if typing.get_origin(kind) is Literal:
        word = "one of " + ", ".join(map(str, typing.get_args(kind)))
    elif typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        word = {str: "texts", int: "whole numbers", float: "numbers"}.get(item, "values") + ", between commas"
    else:
        word = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    return f"{word}, or none" if optional else word


def _from_text(kind: Any, text: str) -> Any:
    """Raises ValueError for a text that is not of the type."""
    kind, optional = _parts(kind)
    if optional and text.strip().lower() == "none":
        return None
    if kind is str:
        return text
    if typing.get_origin(kind) is tuple:
        return tuple(_from_text(typing.get_args(kind)[0], item) for item in _items(text))
    if kind is bool:
        words: dict[str, Any] = {"true": True, "false": False}
    elif typing.get_origin(kind) is Literal:
        words = {str(option): option for option in typing.get_args(kind)}
    else:
        return kind(text)
    key = text.strip().lower() if kind is bool else text.strip()
    if key not in words:
        raise ValueError(text)
    return words[key]


def from_plain(kind: Any, value: Any) -> Any:
    """Raises ValueError for a value, as YAML has it, that is not of the type. A whole number is a number as well."""
    kind, optional = _parts(kind)
    if optional and value is None:
        return None
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        return tuple(from_plain(typing.get_args(kind)[0], item) for item in value)
    if typing.get_origin(kind) is Literal:
        fits = any(value == o and type(value) is type(o) for o in typing.get_args(kind))
    else:
        fits = isinstance(value, int | float if kind is float else kind) and (kind is bool or type(value) is not bool)
    if not fits:
        raise ValueError(value)
    return float(value) if kind is float else value


def hint(kind: Any, value: Any) -> str:
    """What usually went wrong in a file."""
    if kind is str and not isinstance(value, str | list | dict):
        return "; put it in quotes"
    if kind is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE):
        return "; YAML wants a point and a sign, as in 1.0e-4"
    return ""


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
