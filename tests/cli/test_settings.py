import dataclasses
from dataclasses import dataclass, field
from typing import Literal, Optional

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scotoma.cli.settings import help_of, settings, spell
from scotoma.erasure import METHODS
from scotoma.errors import UsageError


@dataclass(frozen=True)
class Fake:
    """Every kind of field that a setting may have."""

    rate: float = field(default=0.5, metadata={"help": "how fast"})
    count: int = 3
    bold: bool = False
    tokens: Literal["last", "all"] = "last"
    words: tuple[str, ...] = ("a, b",)
    weights: tuple[float, ...] = ()
    limit: float | None = None
    note: Optional[str] = None  # noqa: UP045 (the other way to write it)
    name: str = "x"


@dataclass(frozen=True)
class Needy:
    depth: int


@pytest.mark.parametrize(
    "text, name, value",
    [
        ("rate=1e-3", "rate", 1e-3),
        ("rate=2", "rate", 2.0),
        ("count=-4", "count", -4),
        ("bold=True", "bold", True),
        ("bold=false", "bold", False),
        ("tokens=all", "tokens", "all"),
        ("words=cat, dog", "words", ("cat", "dog")),
        ("words=a {}\\, noto style,{}", "words", ("a {}, noto style", "{}")),
        ("words=", "words", ()),
        ("words=,", "words", ("",)),
        ("words=\\ a\\\\", "words", (" a\\",)),
        ("weights=1,0.5", "weights", (1.0, 0.5)),
        ("limit=none", "limit", None),
        ("limit=3", "limit", 3.0),
        ("note=a=b", "note", "a=b"),
        ("name=", "name", ""),
    ],
)
def test_texts_are_typed_by_the_field(text, name, value):
    found = getattr(settings(Fake, [text]), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "given, message",
    [
        (["rat=1"], "unknown setting 'rat'; did you mean 'rate'?"),
        (["rate"], "--set takes NAME=VALUE, not 'rate'"),
        (["rate=fast"], "setting rate must be a number, not 'fast'"),
        (["count=1.5"], "setting count must be a whole number, not '1.5'"),
        (["bold=1"], "setting bold must be true or false, not '1'"),
        (["tokens=first"], "setting tokens must be one of last, all, not 'first'"),
        (["weights=1,x"], "setting weights must be numbers, between commas, not '1,x'"),
        (["limit=low"], "setting limit must be a number, or none, not 'low'"),
        (["rate=1", "rate=2"], "setting rate is given twice; give it once, items of a list between commas"),
        ({"rat": 1}, "unknown setting 'rat'; did you mean 'rate'?"),
        ({"rate": "1e-4"}, "setting rate must be a number, not '1e-4'; YAML wants a point and a sign, as in 1.0e-4"),
        ({"rate": True}, "setting rate must be a number, not True"),
        ({"count": True}, "setting count must be a whole number, not True"),
        ({"bold": 1}, "setting bold must be true or false, not 1"),
        ({"tokens": "first"}, "setting tokens must be one of last, all, not 'first'"),
        ({"words": "cat"}, "setting words must be texts, between commas, not 'cat'"),
        ({"words": [1]}, "setting words must be texts, between commas, not [1]"),
        ({"name": None}, "setting name must be a text, not None; put it in quotes"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(given, message):
    with pytest.raises(UsageError) as error:
        settings(Fake, given)
    assert str(error.value) == message


def test_a_mapping_is_taken_as_yaml_has_it():
    found = settings(Fake, {"rate": 1, "words": ["a"], "weights": [1, 2.5], "limit": None, "note": "none"})
    assert found == Fake(rate=1.0, words=("a",), weights=(1.0, 2.5), note="none")
    assert type(found.rate) is float and type(found.weights[0]) is float


def test_a_setting_without_default_is_asked_for():
    with pytest.raises(UsageError, match="setting depth is missing; give it with --set depth=VALUE"):
        settings(Needy, [])
    assert settings(Needy, ["depth=2"]) == Needy(2)


def test_what_the_dataclass_refuses_is_refused():
    with pytest.raises(UsageError, match="uce: lam must be above 0"):
        settings(METHODS["uce"].config, ["lam=0"])


@given(
    st.builds(
        Fake,
        rate=st.floats(allow_nan=False),
        count=st.integers(),
        bold=st.booleans(),
        tokens=st.sampled_from(["last", "all"]),
        words=st.lists(st.text(alphabet=st.sampled_from("a ,\\\n={}'\u2028é")), max_size=4).map(tuple),
        weights=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
        limit=st.none() | st.floats(allow_nan=False),
        name=st.text(),
    )
)
def test_spelled_and_plain_settings_come_back(config):
    texts = [f"{f.name}={spell(getattr(config, f.name))}" for f in dataclasses.fields(config)]
    assert settings(Fake, texts) == config
    assert (
        settings(
            Fake,
            yaml.safe_load(
                yaml.safe_dump({**dataclasses.asdict(config), "words": [*config.words], "weights": [*config.weights]})
            ),
        )
        == config
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_typed_settings_with_help(name):
    config = METHODS[name].config
    found = config()
    assert settings(config, [f"{f.name}={spell(getattr(found, f.name))}" for f in dataclasses.fields(config)])
    table = help_of(config)
    assert all(f"  {f.name}=" in table and f.metadata["help"].split()[0] in table for f in dataclasses.fields(config))
