"""policy.yaml: every mistake is one sentence with file, line, field and the nearest name, and nothing else comes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scotoma.detectors.crosswalk import CROSSWALK
from scotoma.errors import BoundsError, MissingExtraError, PolicyError, ScotomaError
from scotoma.guard import policy as module
from scotoma.guard.policy import SCHEMA_FILE, SHIPPED, identity, load_policy, parse_policy, schema_text
from scotoma.guard.schema import FIVE, Policy, Steered
from scotoma.models.sld import STRENGTHS

FILES = sorted((SHIPPED / "policy").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_policies_are_read_by_name_and_open_with_the_command_that_runs_them(path: Path) -> None:
    assert identity(load_policy(f"policy/{path.stem}")) == identity(load_policy(path))
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# scotoma policy check policy/{path.stem}")


def test_both_ship_and_what_was_not_run_says_so() -> None:
    assert {p.stem for p in FILES} >= {"zoo", "sd15"}
    assert "Not run by us" in (SHIPPED / "policy/sd15.yaml").read_text()


def test_the_shipped_schema_is_the_generated_one() -> None:
    assert SCHEMA_FILE.read_text() == schema_text()
    assert json.loads(schema_text())["properties"].keys() == Policy.model_fields.keys()


def test_one_vocabulary() -> None:
    assert FIVE.keys() == CROSSWALK.keys()
    assert set(Steered.model_json_schema()["properties"]["strength"]["enum"]) == STRENGTHS.keys()


def test_everything_refuses_unless_it_is_told_otherwise() -> None:
    made = parse_policy(b"format: 1\nname: nothing")
    for stage in (made.prompts, made.pictures, made.dialogue):
        assert (stage.on_hit, stage.on_undecided, stage.on_failure) == ("refuse",) * 3
    assert made.limits.pictures == 4


def test_identity_is_of_what_it_says_and_not_of_how_it_is_written() -> None:
    one = parse_policy(b"format: 1\nname: x\nlimits: {pictures: 4}")
    assert identity(one) == identity(parse_policy(b"# a comment\nname: x\nformat: 1\n"))
    assert identity(one) != identity(parse_policy(b"format: 1\nname: x\nlimits: {pictures: 3}"))


HEAD = "format: 1\nname: x\ncategories: {violent: }\n"
MISTAKES = [
    ("", "p.yaml is empty"),
    ("- a\n", "p.yaml must be a mapping"),
    ("format: 1", "line 1: name: is missing; write it"),
    ("name: x", "line 1: format: is missing; write it (format: 1)"),
    ("format: 2\nname: x", "line 1: format: is 1, not 2"),
    (HEAD + "pictures:\n  combin: any\n", "line 5: pictures.combin: there is no such key; did you mean 'combine'?"),
    (
        HEAD + "pictures:\n  on_hit: blurr\n",
        "line 5: pictures.on_hit: is 'refuse', 'blur' or 'review', not 'blurr'; did you",
    ),
    (HEAD + "prompts: {on_hit: blur}", "line 4: prompts.on_hit: is 'refuse', 'rewrite' or 'review', not 'blur'"),
    (
        HEAD + "pictures: {by_category: {violnt: blur}}",
        "pictures.by_category.violnt: unknown category 'violnt'; did you mean",
    ),
    (
        HEAD + "pictures:\n  detectors:\n    - detector: q61\n",
        "line 6: pictures.detectors[0].detector: unknown detector 'q61'",
    ),
    (HEAD + "pictures:\n  detectors:\n    - thresholds: {}\n", "line 6: pictures.detectors[0].detector: is missing"),
    (
        "format: 1\nname: x\ncategories:\n  violent: {threshold: true}",
        "line 4: categories.violent.threshold: input should be",
    ),
    ("format: 1\nname: x\ncategories:\n  violent: {threshold: 1.5}", "less than or equal to 1, not 1.5"),
    ("format: 1\nname: x\ncategories:\n  violent: {threshold: .nan}", "categories.violent.threshold: input should be"),
    (HEAD + "categories: {}", "p.yaml line 4: the key 'categories' is there twice"),
    (HEAD + "limits: {1: 2}", "p.yaml line 4: a key must be a text"),
    (HEAD + "limits: &a {pictures: 2}\nlog: *a", "p.yaml line 5 is not YAML (an alias is not taken here"),
    ("format: 1\n  name: [", "p.yaml line 2 is not YAML"),
    ("format: 1\nname: 2024-99-99", "p.yaml is not YAML (ValueError"),
    (HEAD + "name2: " + "[" * 5000, "p.yaml is not YAML (RecursionError"),
    (HEAD + "x: !!python/object:os.system {}", "p.yaml line 4 is not YAML (could not determine a constructor"),
    (HEAD + "model: {edits: [{id: abc}]}", "model.edits[0].id: string should match pattern"),
    (
        HEAD + "model: {edits: [{concept: a, file: b}]}",
        "model.edits[0]: an Edit is named by one of id, file and concept",
    ),
    (
        HEAD + "model: {sld: {strength: mx, concepts: [a]}}",
        "model.sld.strength: is 'weak', 'medium', 'strong' or 'max', not",
    ),
    (
        HEAD + "model: {sld: {strength: max, concepts: [child, naked]}}",
        "model.sld.concepts: what sld stays away from has",
    ),
    (HEAD + "pictures: {combine: at_least}", "pictures: combine: at_least and at_least: NUMBER go together"),
    (HEAD + "pictures: {combine: at_least, at_least: 2}", "pictures: at_least is 2, of 0 detectors"),
    (
        HEAD + "prompts: {rules: [{detector: word-list, words: {violent: [a]}, on_hit: rewrite}]}",
        "prompts.rules[0]: rewrite needs an alternative for violent",
    ),
    (
        HEAD + "prompts: {rules: [{detector: word-list, words: {violent: [a]}, instead: {violent: naked child}}]}",
        "prompts.rules[0].instead: the alternative has words that together",
    ),
    (HEAD + "prompts: {rules: [{detector: q16, words: {violent: [a]}}]}", "words are for word-list, not for q16"),
    (
        HEAD + "prompts: {rules: [{detector: word-list, words: {violent: []}}]}",
        "prompts.rules[0].words.violent: list should",
    ),
    (HEAD + "log: {path: a, key: a b}", "log.key: string should match"),
    (
        HEAD + "log: {path: a, kind: jsonlines}",
        "log.kind: is 'jsonl' or 'sqlite', not 'jsonlines'; did you mean 'jsonl'?",
    ),
]


@pytest.mark.parametrize("text, told", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(text.encode(), "p.yaml")
    assert told in str(error.value) and str(error.value).startswith("p.yaml")
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_several_mistakes_come_in_the_order_of_the_file_and_not_without_end() -> None:
    rows = "\n".join(f"  a{i}: 1" for i in range(8))
    with pytest.raises(PolicyError) as error:
        parse_policy(f"{HEAD}limits:\n{rows}".encode())
    told = str(error.value)
    assert told.index("line 5") < told.index("line 6") < told.index("line 9") and "line 10" not in told
    assert told.endswith("; and 3 more")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00", b"a: " + b"x" * 1_000_001, b"format: " + b"9" * 5000])
def test_bytes_that_are_no_text(data: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_policy(data)


def test_a_file_that_is_not_there_names_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read .* one that ships: policy/sd15, policy/zoo"):
        load_policy(tmp_path / "none.yaml")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy("a\0b")


def test_paths_beside_the_policy_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("format: 1\nname: x")
    made = load_policy(tmp_path / "p.yaml")
    assert Path(made.beside("./words.json")) == tmp_path / "words.json"
    assert made.beside("openai/clip") == "openai/clip" and made.beside("/a") == "/a"


def test_without_pydantic_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingExtraError, match=r"a policy needs pydantic.*pip install 'scotoma\[guard\]'"):
        module.load_policy("policy/zoo")


# ------------------------------------------------------------------------------------------------------- random files

_names = sorted(
    {n for n in Policy.model_fields} | {"on_hit", "detector", "words", "violent", "id", "edits", "<<", "at_least"}
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["refuse", "blur", "any"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def held(data: bytes) -> None:
    """A Policy or a ScotomaError of one line, and nothing else."""
    try:
        assert isinstance(parse_policy(data), Policy)
    except ScotomaError as e:
        assert "\n" not in str(e)


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text(text: str) -> None:
    held(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    held(data)


@given(st.dictionaries(st.sampled_from(_names), _values, max_size=6))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_mapping(content: dict) -> None:
    held(yaml.safe_dump({"format": 1, "name": "x", **content}, allow_unicode=True).encode())


def _places(node: object, at: tuple = ()) -> list[tuple]:
    found = [at]
    if isinstance(node, dict):
        for key, child in node.items():
            found += _places(child, (*at, key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            found += _places(child, (*at, i))
    return found


@given(st.data())
@settings(max_examples=60)
def test_a_real_policy_with_one_thing_replaced(data: st.DataObject) -> None:
    content = yaml.safe_load((SHIPPED / "policy" / data.draw(st.sampled_from(["zoo.yaml", "sd15.yaml"]))).read_text())
    at = data.draw(st.sampled_from([p for p in _places(content) if p]))
    node = content
    for step in at[:-1]:
        node = node[step]
    node[at[-1]] = data.draw(_values)
    held(yaml.safe_dump(content, allow_unicode=True).encode())


def test_bounds_errors_do_not_pass_for_policies() -> None:
    """What an alternative may not be is told with its place, as any mistake: never a BoundsError without one."""
    assert not issubclass(PolicyError, BoundsError)
