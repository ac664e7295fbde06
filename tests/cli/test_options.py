import argparse
import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scotoma.cli import main, options
from scotoma.cli.options import VerbParser, dump, resolve, settings
from scotoma.erasure import METHODS
from scotoma.errors import UsageError


@dataclass(frozen=True)
class Fake:
    rate: float = field(default=0.5, metadata={"help": "how fast"})
    count: int = 3
    bold: bool = False
    words: tuple[str, ...] = ("a, b",)
    limit: float | None = None


@pytest.fixture(autouse=True)
def method(monkeypatch):
    monkeypatch.setitem(METHODS, "fake", SimpleNamespace(config=Fake))


def small_number(text: str) -> int:
    if not 0 <= int(text) < 10:
        raise argparse.ArgumentTypeError("not small")
    return int(text)


def verb() -> VerbParser:
    """A verb with every kind of option that verbs have."""
    parser = VerbParser("paint", "Paint. Example: scotoma paint zoo:emoji a.safetensors --out FOLDER")
    parser.add_argument("model")
    parser.add_argument("edits", nargs="+", type=Path, metavar="EDIT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concept", action="append", default=[])
    parser.add_argument("--instead", action="append")
    parser.add_argument("--method", default="fake")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    group = parser.add_argument_group("drawing")
    group.add_argument("-s", "--seed", type=int, default=0)
    group.add_argument("--guidance", type=float)
    group.add_argument("--size", type=small_number, default="4")
    group.add_argument("--judge", choices=("a", "b"), default="b")
    group.add_argument("--title")
    group.add_argument("--accept-undecided", action="store_true")
    group.add_argument("--blur", action=argparse.BooleanOptionalAction, default=True)
    return parser.replayable()


def parse(*words: str) -> argparse.Namespace:
    return resolve(verb(), words)[0]


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as error:
        parse(*words)
    return str(error.value)


WHOLE = ("zoo:emoji", "a.safetensors", "--out", "folder")


@pytest.fixture
def file(tmp_path):
    """Writes a configuration file; returns its path as a text."""

    def write(text: str | None = None, more: dict | None = None, **content) -> str:
        path = tmp_path / "call.yaml"
        path.write_text(
            yaml.safe_dump({"verb": "paint", **content, **(more or {})}) if text is None else text, encoding="utf-8"
        )
        return str(path)

    return write


# ------------------------------------------------------------------------------------------------------- command lines


def test_defaults_types_and_order_of_words_are_those_of_argparse():
    args = parse("--out", "folder", "zoo:emoji", "--seed", "3", "a.safetensors", "b.safetensors", "--concept", "cat")
    assert args.model == "zoo:emoji" and args.edits == [Path("a.safetensors"), Path("b.safetensors")]
    assert (args.out, args.seed, args.concept, args.instead) == (Path("folder"), 3, ["cat"], None)
    assert (args.size, args.judge, args.accept_undecided, args.blur) == (4, "b", False, True)
    assert args.verb == "paint" and not hasattr(args, "config") and not hasattr(args, "dump_config")


def test_negative_numbers_and_words_after_two_dashes():
    args = parse("--guidance", "-1.5", "--out", "folder", "--", "-model", "-edit")
    assert args.guidance == -1.5 and args.model == "-model" and args.edits == [Path("-edit")]


def test_flags_are_turned_off_by_no():
    assert parse(*WHOLE, "--accept-undecided").accept_undecided
    assert not parse(*WHOLE, "--accept-undecided", "--no-accept-undecided").accept_undecided
    assert not parse(*WHOLE, "--no-blur").blur


@pytest.mark.parametrize(
    "words, message",
    [
        ((*WHOLE, "--concpt", "x"), "unknown option '--concpt'; did you mean '--concept'"),
        ((*WHOLE, "--sed=3"), "unknown option '--sed'; did you mean '--seed'"),
        ((*WHOLE, "--seed", "x"), "argument -s/--seed: invalid int value: 'x'; see scotoma paint --help"),
        ((*WHOLE, "--judge", "c"), "argument --judge: invalid choice: 'c'"),
        ((*WHOLE, "--seed"), "argument -s/--seed: expected one argument"),
        ((*WHOLE, "--method", "fack"), "unknown method 'fack'; did you mean 'fake'?"),
        (
            ("zoo:emoji",),
            (
                "edits and --out are missing; give what is missing on the command line, or in a file with --config "
                "(scotoma paint --help)"
            ),
        ),
        (
            (*WHOLE[:2],),
            (
                "--out is missing; give what is missing on the command line, or in a file with --config "
                "(scotoma paint --help)"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(words, message):
    assert refused(*words).startswith(message)


def test_too_many_words_are_refused():
    parser = VerbParser("look")
    parser.add_argument("model")
    with pytest.raises(UsageError, match="'b' 'c' is more than scotoma look takes; see scotoma look --help"):
        resolve(parser.replayable(), ["a", "b", "c"])


def test_help_shows_the_settings_of_the_method(capsys, monkeypatch):
    monkeypatch.delitem(METHODS, "uce")
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: scotoma paint" in text and "model EDIT [EDIT ...]" in text
    assert "settings of fake (--set NAME=VALUE), with their defaults:\n  rate=0.5\n      how fast; a number\n" in text
    assert "--dump-config" in text and "--no-accept-undecided" not in text


# --------------------------------------------------------------------------------------------------------------- files


RICH = (
    *("zoo:emoji", "a.safetensors", "b b.safetensors", "--out", "folder", "--concept", "cat", "--concept", "t-shirt"),
    *("--instead", "", "--set", "rate=1e-5", "--set", "words=drawing, noto style", "--set", "bold=true", "-s", "7"),
    *("--guidance", "-3", "--size", "9", "--judge", "a", "--title", "-no: #1\nit's\u2028fine", "--accept-undecided"),
    "--no-blur",
)


@pytest.mark.parametrize("words", [WHOLE, RICH])
def test_a_dumped_file_replays_to_the_same_namespace(words, tmp_path):
    parser = verb()
    args, dump_only = resolve(parser, [*words, "--dump-config"])
    assert dump_only
    path = tmp_path / "call.yaml"
    path.write_text(dump(parser, args), encoding="utf-8")
    replayed, dump_only = resolve(verb(), ["--config", str(path)])
    assert replayed == args and not dump_only
    assert dump(verb(), replayed) == dump(parser, args)


@pytest.mark.parametrize("words", [WHOLE, RICH, ("--out", "--", "--", "-model", "-edit")])
def test_the_command_gives_the_same_namespace(words):
    if words[:2] == ("--out", "--"):
        words = ("--out", "folder", *words[2:])
    args = parse(*words)
    start, *rest = shlex.split(args.command)
    assert start == "scotoma" and rest[0] == "paint"
    assert parse(*rest[1:]) == args


def test_a_dump_opens_with_the_command_and_has_every_option_and_setting():
    parser = verb()
    text = dump(parser, resolve(parser, [*WHOLE, "--set", "count=4"])[0])
    assert text.splitlines()[0] == "# scotoma paint zoo:emoji a.safetensors --out folder --set count=4"
    content = yaml.safe_load(text)
    assert list(content) == [
        *("verb", "model", "edits", "out", "concept", "instead", "method", "settings"),
        *("seed", "guidance", "size", "judge", "title", "accept_undecided", "blur"),
    ]
    assert content["settings"] == {**dataclasses.asdict(Fake(count=4)), "words": ["a, b"]}
    assert (content["out"], content["guidance"], content["size"]) == ("folder", None, 4)


def test_the_command_line_overrides_the_file(file):
    config = file(
        model="zoo:emoji", edits=["a", "b"], out="folder", concept=["cat", "dog"], seed=3, accept_undecided=True
    )
    args = parse("--config", config)
    assert args.concept == ["cat", "dog"] and args.edits == [Path("a"), Path("b")] and args.accept_undecided
    args = parse("--config", config, "--concept", "cow", "--seed", "0", "--no-accept-undecided", "other")
    assert args.concept == ["cow"] and args.seed == 0 and not args.accept_undecided
    assert args.model == "other" and args.edits == [Path("a"), Path("b")]
    assert parse("--config", config, "other", "c").edits == [Path("c")]


def test_settings_of_file_and_command_line_are_merged_by_name(file):
    config = file(model="m", edits=["a"], out="o", method="fake", settings={"rate": 2, "count": 7})
    found = settings(Fake, parse("--config", config, "--set", "count=8").set)
    assert found == Fake(rate=2.0, count=8)


def test_settings_of_another_method_are_refused(file):
    config = file(model="m", edits=["a"], out="o", method="fake", settings={"rate": 2})
    message = refused("--config", config, "--method", "uce")
    assert message.startswith("the settings in ") and "are those of fake; leave out --method uce" in message
    assert parse("--config", file(model="m", edits=["a"], out="o", method="fake"), "--method", "uce").method == "uce"


@pytest.mark.parametrize(
    "content, message",
    [
        ({"concpt": ["cat"]}, "unknown option in {file}: 'concpt'; did you mean 'concept'?"),
        ({"accept-undecided": True}, "unknown option in {file}: 'accept-undecided'; did you mean 'accept_undecided'?"),
        ({"set": ["rate=1"]}, "unknown option in {file}: 'set'; known: accept_undecided, blur"),
        ({"config": "uce"}, "unknown option in {file}: 'config'; known: accept_undecided, blur"),
        ({7: 1}, "unknown option in {file}: '7'; known: "),
        ({"seed": "three"}, "seed in {file} must be a whole number, not 'three'"),
        ({"seed": True}, "seed in {file} must be a whole number, not True"),
        ({"seed": 1.5}, "seed in {file} must be a whole number, not 1.5"),
        ({"seed": None}, "seed in {file} must be a whole number, not None"),
        ({"guidance": "1e-4"}, "guidance in {file} must be a number, not '1e-4'; YAML wants a point and a sign"),
        ({"title": False}, "title in {file} must be a text, not False; put it in quotes"),
        ({"concept": "cat"}, "concept in {file} must be a list, not 'cat'; write [cat]"),
        ({"concept": [1]}, "concept in {file} must be a text, not 1; put it in quotes"),
        ({"accept_undecided": "yes"}, "accept_undecided in {file} must be true or false, not 'yes'"),
        ({"judge": "c"}, "unknown value of judge in {file}: 'c'; known: a, b."),
        ({"out": 3}, "out in {file} must be a path, not 3"),
        ({"size": 11}, "size in {file} must be a small_number, not 11"),
        ({"settings": [1]}, "settings in {file} must be a mapping of names to values, not [1]"),
        ({"settings": {"rat": 1}}, "unknown setting 'rat'; did you mean 'rate'?"),
        ({"settings": {"count": 1.5}}, "setting count must be a whole number, not 1.5"),
        ({"verb": "erase"}, "{file} is for scotoma erase, not for scotoma paint; run that, or give another"),
    ],
)
def test_what_does_not_fit_in_a_file_names_key_and_type(file, content, message):
    config = file(more=content, model="m", edits=["a"], out="o")
    assert refused("--config", config).startswith(message.format(file=config))


@pytest.mark.parametrize(
    "text, message",
    [
        ("model: [", "is not YAML"),
        ("- 1", "does not say `verb: paint`"),
        ("", "does not say `verb: paint`"),
        ("model: m", "does not say `verb: paint`"),
        ("verb: paint\nmodel: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_files_that_are_no_configuration_are_refused(file, text, message):
    config = file(text)
    found = refused("--config", config)
    assert found.startswith(f"{config} {message}") and "\n" not in found


def test_a_file_that_is_not_there_lists_the_presets(tmp_path):
    missing = str(tmp_path / "no.yaml")
    message = refused("--config", missing)
    assert message.startswith(
        f"--config {missing} cannot be read (No such file or directory); give a file, or a preset"
    )
    assert "erase/uce" in message.rpartition("preset: ")[2].split(", ")
    assert refused("--config", str(tmp_path)).startswith(f"--config {tmp_path} cannot be read (Is a directory)")


def test_a_preset_is_found_by_its_name(monkeypatch, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/thick.yaml").write_text("verb: paint\nmodel: m\nedits: [a]\nout: o\nseed: 5\n", encoding="utf-8")
    monkeypatch.setattr(options, "CONFIGS", tmp_path)
    assert parse("--config", "more/thick").seed == 5


def test_null_is_as_if_not_given_where_nothing_is_the_default(file):
    config = file(model=None, edits=["a"], out="o", guidance=None)
    assert refused("--config", config).startswith("model is missing; ")
    assert parse("--config", config, "m").guidance is None


def test_dump_config_does_nothing_but_print(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["apply", "zoo:nothing", "a.safetensors", "--out", str(out)]
    assert main([*words, "--dump-config"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# scotoma apply zoo:nothing a.safetensors --out {out}\nverb: apply\nmodel: zoo:nothing\n")
    config = tmp_path / "apply.yaml"
    config.write_text(text, encoding="utf-8")
    assert main(["apply", "--config", str(config), "--dump-config"]) == 0
    assert capsys.readouterr().out == text
    assert not out.exists()
    assert main(["subtract", "--config", str(config)]) == 2
    assert capsys.readouterr().err.startswith(f"scotoma subtract: {config} is for scotoma apply")
