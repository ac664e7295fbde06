"""The options of a verb: defaults, then a configuration file, then the command line, and back to a file.

A verb declares what it takes as on any argparse parser and knows nothing of files. `resolve` gives the namespace, with
the command that repeats the call in `args.command`. `--config FILE` takes a file that `--dump-config` wrote, or a
shipped preset by its name.

A file gives values by the names of the namespace (`accept_undecided: true`), positional arguments among them; a list
that the command line gives replaces the one in the file; a flag of the file is turned off by `--no-FLAG`.

A verb that declares both `--method` and `--set NAME=VALUE` has settings: in a file they are a mapping, `settings:`,
which `--set` overrides name by name, and `args.set` is every setting of the method by name, for `settings()`.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scotoma.cli.settings import (
    by_method,
    default_of,
    from_plain,
    help_of,
    hint,
    in_words,
    methods_help,
    settings,
    spell,
    typed,
)
from scotoma.errors import UsageError, unknown_name

__all__ = [
    "CONFIGS",
    "Paragraphs",
    "VerbParser",
    "by_method",
    "command",
    "dump",
    "help_of",
    "presets",
    "read",
    "resolve",
    "settings",
]

CONFIGS = Path(__file__).parents[1] / "configs"
RELAXED = {None: "?", "+": "*"}  # what stands for the nargs of a positional argument that a file may give
OWN = ("help", "config", "dump_config")  # options that say where options come from, and are in no file


class VerbParser(argparse.ArgumentParser):
    """What a verb declares its options on. Usage errors are raised as UsageError; only --help prints and exits.

    Options that store a value, append one or are a flag can be replayed; groups of options that exclude each other can
    not, since a file and a flag may then disagree: `run` checks such things itself.
    """

    def __init__(self, verb: str, description: str | None = None):
        super().__init__(
            prog=f"scotoma {verb}", description=description, formatter_class=Paragraphs, allow_abbrev=False
        )
        self.verb = verb

    def replayable(self) -> VerbParser:
        """Add --config and --dump-config, after the verb's own options."""
        group = self.add_argument_group("configuration files")
        group.add_argument(
            "--config",
            metavar="FILE",
            help="take options from a file, or from a preset by its name; options given here override it, --no-FLAG "
            "turns a flag off",
        )
        group.add_argument("--dump-config", action="store_true", help="print the options of this call, and do nothing")
        return self

    def declared(self) -> dict[str, argparse.Action]:
        """Options that a file may give, by their name in the namespace, in the order of declaration."""
        out: dict[str, argparse.Action] = {}
        for action in self._actions:
            if action.dest not in OWN:
                out.setdefault(action.dest, action)
        return out

    @property
    def has_settings(self) -> bool:
        return {"method", "set"} <= self.declared().keys()

    def format_help(self) -> str:
        """Settings of the methods are below the options; their code is imported for this alone."""
        if self.has_settings and self.epilog is None:
            self.epilog = methods_help()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


class Paragraphs(argparse.HelpFormatter):
    """Fills paragraphs one by one, and leaves those with indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = re.split(r"\n\s*\n", text.strip())
        return "\n\n".join(p if "\n " in p else super(Paragraphs, self)._fill_text(p, width, indent) for p in parts)


class Scanner(argparse.ArgumentParser):
    """A part of `whole`, in which nothing is required and nothing has a default: what was given, and no more."""

    def __init__(self, whole: VerbParser, actions: Iterable[argparse.Action]):
        super().__init__(prog=whole.prog, add_help=False, allow_abbrev=False)
        self.whole = whole
        for action in actions:
            part = copy.copy(action)
            part.required = False
            if part.option_strings:
                part.default = argparse.SUPPRESS
            else:
                part.default = None
                part.nargs = RELAXED.get(part.nargs, part.nargs)  # type: ignore[arg-type]
            self._add_action(part)
            off = [f"--no-{flag[2:]}" for flag in part.option_strings if flag.startswith("--")]
            if isinstance(part, argparse._StoreTrueAction) and part.dest not in OWN:
                self.add_argument(*off, dest=part.dest, action="store_false", default=argparse.SUPPRESS)

    def format_help(self) -> str:
        return self.whole.format_help()

    def error(self, message: str) -> NoReturn:
        self.whole.error(message)


def resolve(parser: VerbParser, words: Sequence[str]) -> tuple[argparse.Namespace, bool]:
    """The namespace of a call, and whether the call only asks for it (--dump-config).

    Options are read first and positional arguments from what is left, from left to right, so that a file may stand for
    those that are not there. Raises UsageError, in one sentence, for everything that does not fit.
    """
    given = _given(parser, words)
    source, dump_only = given.pop("config", None), given.pop("dump_config", False)
    from_file = read(source, parser) if source is not None else {}
    values: dict[str, Any] = {}
    for name, action in parser.declared().items():
        default = parser.get_default(name)
        if isinstance(default, str) and callable(action.type):
            default = action.type(default)
        if default is None and action.nargs == "*":
            default = []
        values[name] = given.get(name, from_file.get(name, copy.copy(default)))
    missing = [
        _flag(action) if action.option_strings else name
        for name, action in parser.declared().items()
        if action.required and action.nargs != "*" and values[name] in (None, [])
    ]
    if missing:
        be = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{' and '.join(missing)} {be} missing; give what is missing on the command line, or in a file with "
            f"--config ({parser.prog} --help)"
        )
    if parser.has_settings:
        values["set"] = _merged(values["method"], from_file, given, str(source))
    args = argparse.Namespace(verb=parser.verb, **values)
    args.command = command(parser, args)
    return args, dump_only


def _given(parser: VerbParser, words: Sequence[str]) -> dict[str, Any]:
    """What the command line says, by name; options that it does not mention are not there."""
    flags = [a for a in parser._actions if a.option_strings]
    scanner = Scanner(parser, flags)
    found, rest = scanner.parse_known_args(list(words))
    for word in rest[: rest.index("--")] if "--" in rest else rest:
        if re.fullmatch(r"-[^\d.].*", word, re.DOTALL):
            raise unknown_name("option", word.partition("=")[0], [flag for a in flags for flag in a.option_strings])
    positional, left = Scanner(parser, (a for a in parser._actions if not a.option_strings)).parse_known_args(rest)
    if left:
        parser.error(f"{' '.join(map(repr, left))} is more than {parser.prog} takes")
    return {**vars(found), **{name: value for name, value in vars(positional).items() if value not in (None, [])}}


def _merged(name: str, from_file: Mapping[str, Any], given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Every setting of the method by name: its defaults, then those of the file, then those of the command line."""
    from scotoma.erasure import method, methods

    in_file = from_file.get("set", {})
    if in_file and methods(from_file.get("method", name)) != methods(name):
        raise UsageError(
            f"the settings in {source} are those of {from_file['method']}; leave out --method {name}, or take the "
            f"settings out of the file"
        )
    names = methods(name)
    of_file, of_line = by_method(names, in_file), by_method(names, given.get("set", ()))
    found: dict[str, Any] = {}
    for each in names:
        config = method(each).config
        whole = settings(config, {**typed(config, of_file[each]), **typed(config, of_line[each])})
        prefix = f"{each}." if len(names) > 1 else ""
        found |= {prefix + f.name: getattr(whole, f.name) for f in dataclasses.fields(whole) if f.init}
    return found


# ---------------------------------------------------------------------------------------------------------------- files


def presets() -> dict[str, Path]:
    """Shipped files by name: `erase/uce` is configs/erase/uce.yaml. Policies are no calls of a verb (guard/policy.py reads them)."""
    files = (p for p in sorted(CONFIGS.rglob("*.yaml")) if p.parent.name != "policy")
    return {p.relative_to(CONFIGS).with_suffix("").as_posix(): p for p in files}


def read(source: str, parser: VerbParser) -> dict[str, Any]:
    """What a preset, or else a file, gives: names of the namespace to values of the type that each option has.

    Raises UsageError for a file that cannot be read, is for another verb, or holds what the verb does not take.
    """
    import yaml

    path = presets().get(source, Path(source))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(
            f"--config {source} cannot be read ({e.strerror}); give a file, or a preset: {', '.join(presets())}"
        ) from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"{source} is not YAML ({' '.join(str(e).split())}); correct it, or dump it again") from e
    if not isinstance(content, dict) or "verb" not in content:
        raise UsageError(
            f"{source} does not say `verb: {parser.verb}`; --dump-config shows what such a file looks like"
        )
    if content["verb"] != parser.verb:
        raise UsageError(f"{source} is for scotoma {content['verb']}, not for {parser.prog}; run that, or give another")
    actions = parser.declared()
    names = {("settings" if name == "set" and parser.has_settings else name): name for name in actions}
    found = {}
    for key, value in content.items():
        if key == "verb":
            continue
        if key not in names:
            raise unknown_name(f"option in {source}:", str(key), names)
        if key == "settings" and parser.has_settings:
            if not isinstance(value, dict):
                raise UsageError(f"settings in {source} must be a mapping of names to values, not {value!r}")
            found["set"] = value
        else:
            found[names[key]] = _from_file(actions[names[key]], value, f"{key} in {source}")
    return found


def _from_file(action: argparse.Action, value: Any, where: str) -> Any:
    """`value`, as YAML has it, as the namespace has it. Raises UsageError that names the key and the type expected."""
    if value is None and action.default is None:
        return None
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false, not {value!r}")
        return value
    if isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*"):
        if not isinstance(value, list):
            raise UsageError(f"{where} must be a list, not {value!r}; write [{value}]")
        return [_one(action, item, where) for item in value]
    return _one(action, value, where)


def _one(action: argparse.Action, value: Any, where: str) -> Any:
    kind = action.type or str
    if kind in (str, int, float):
        try:
            value = from_plain(kind, value)
        except ValueError as e:
            raise UsageError(f"{where} must be {in_words(kind)}, not {value!r}{hint(kind, value)}") from e
    else:  # Path, or a function that reads text
        try:
            if not callable(kind) or type(value) not in ((str,) if kind is Path else (str, int, float)):
                raise ValueError(value)
            value = kind(str(value))
        except (ValueError, TypeError, argparse.ArgumentTypeError) as e:
            raise UsageError(f"{where} must be a {getattr(kind, '__name__', 'text').lower()}, not {value!r}") from e
    if action.choices is not None and value not in action.choices:
        raise unknown_name(f"value of {where}:", str(value), map(str, action.choices))
    return value


def dump(parser: VerbParser, args: argparse.Namespace) -> str:
    """YAML that `--config` takes: the command as a comment, then every option."""
    import yaml

    content = {"verb": args.verb}
    for name in parser.declared():
        as_settings = name == "set" and parser.has_settings
        content["settings" if as_settings else name] = _plain(getattr(args, name))
    comment = "\n# ".join("".join(c if c.isprintable() else "?" for c in line) for line in args.command.splitlines())
    return f"# {comment}\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def command(parser: VerbParser, args: argparse.Namespace) -> str:
    """The shortest command line that gives `args`: what differs from the defaults, quoted for a shell."""
    words, positional = parser.prog.split(), []
    for name, action in parser.declared().items():
        value, default = getattr(args, name), parser.get_default(name)
        if name == "set" and parser.has_settings:
            words += _spelled(args)
        elif not action.option_strings:
            positional += [str(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
        elif value == default or str(value) == default:
            continue
        elif action.nargs == 0:
            on = value == (True if action.const is None else action.const)
            words.append(_flag(action) if on else f"--no-{_flag(action)[2:]}")
        else:
            for item in value if isinstance(action, argparse._AppendAction) else [value]:
                texts = [str(v) for v in item] if isinstance(item, list) else [str(item)]
                words += [f"{_flag(action)}={texts[0]}"] if texts[0].startswith("-") else [_flag(action), *texts]
    start = 2 if not any(p.startswith("-") for p in positional) else len(words)
    words[start:start] = positional if start == 2 else ["--", *positional]
    return shlex.join(words)


def _flag(action: argparse.Action) -> str:
    return next((flag for flag in action.option_strings if flag.startswith("--")), action.option_strings[0])


def _spelled(args: argparse.Namespace) -> list[str]:
    from scotoma.erasure import method, methods

    words, names = [], methods(args.method)
    for name in names:
        prefix = f"{name}." if len(names) > 1 else ""
        for field in dataclasses.fields(method(name).config):
            if field.init and (value := args.set[prefix + field.name]) != default_of(field):
                words += ["--set", f"{prefix}{field.name}={spell(value)}"]
    return words
