"""Every preset that ships is a call that its verb takes."""

import dataclasses
from importlib import import_module
from importlib.util import find_spec

import pytest
import yaml

from scotoma.cli import VERBS, options
from scotoma.erasure import METHODS, method

FILES = sorted(p for p in options.CONFIGS.rglob("*.y*ml") if p.parent.name != "policy")  # tests/guard has the policies
AT_LEAST = 5  # raise it with every preset: a glob that finds less has lost some


def verb_parser(verb: str) -> options.VerbParser:
    parser = options.VerbParser(verb)
    import_module(f"scotoma.cli.{verb}").add_arguments(parser)
    return parser.replayable()


def test_the_glob_finds_them_and_names_reach_them():
    assert len(FILES) >= AT_LEAST
    assert sorted(options.presets().values()) == FILES


def test_every_method_has_a_preset():
    assert {yaml.safe_load(path.read_text(encoding="utf-8")).get("method") for path in FILES} >= METHODS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_opening_comment_says_how_it_runs_and_what_it_reaches(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    content = yaml.safe_load("\n".join(lines))
    name = path.relative_to(options.CONFIGS).with_suffix("").as_posix()
    assert lines[0].startswith(f"# scotoma {content['verb']} ") and f"--config {name}" in lines[0]
    assert lines[1].startswith("# Figure it should reach: ")
    assert lines[2].startswith("# Measured by: ")
    if "not measured yet" not in lines[1]:
        assert "benchmarks/" in lines[2] and "results/" in lines[2]


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "erase"], ids=lambda path: path.stem)
def test_the_settings_are_those_of_the_method(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = method(content["method"]).config
    found = options.settings(config, content.get("settings", {}))
    assert dataclasses.is_dataclass(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_verb_takes_the_command_and_every_option(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert find_spec(f"scotoma.cli.{content['verb']}") is not None
    words = path.read_text(encoding="utf-8").splitlines()[0].split()[3:]
    args, _ = options.resolve(verb_parser(content["verb"]), words)
    for key in content.keys() - {"settings"}:
        assert getattr(args, key) == content[key]
    for key, value in content.get("settings", {}).items():
        assert options._plain(args.set[key]) == value


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_can_be_dumped_and_replayed(verb):
    """What `options` cannot replay: groups of options that exclude each other, and actions of other kinds."""
    parser = verb_parser(verb)
    assert not parser._mutually_exclusive_groups
    for action in parser.declared().values():
        assert type(action).__name__ in ("_StoreAction", "_StoreTrueAction", "_AppendAction", "BooleanOptionalAction")
        assert not isinstance(action.nargs, int) or action.nargs == 0
        assert action.dest not in ("verb", "command", "settings")
