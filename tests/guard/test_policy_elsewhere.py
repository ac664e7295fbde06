"""One policy for the guard, for data sets and for moderation: what the guard refuses, curation does not keep."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
from guards import CONSTANT, detector, make_guard, policy_of
from PIL import Image

from scotoma.cli import main
from scotoma.curation.screen import checks, decide
from scotoma.detectors.card import Card, Category
from scotoma.guard.decide import load_guard
from scotoma.guard.elsewhere import in_its_words, screening
from scotoma.guard.eyes import make_eye
from scotoma.records import Exchange, Turn
from scotoma.statistics import Counted

TEXT = f"""
    categories: {{violent: , political: }}
    prompts:
      rules:
        - {{detector: word-list, words: {{violent: [bomb]}}}}
        - {{detector: word-list, words: {{political: [crown]}}, on_hit: review}}
    pictures: {{detectors: [{CONSTANT}, {CONSTANT}], combine: all, by_category: {{political: review}}}}
"""


def guard_of(*scores: float):
    """Two detectors of pictures; the second knows political things too."""
    made = make_guard(
        TEXT.replace("{detector: word-list, words: {violent: [bomb]}}", CONSTANT).replace(
            "{detector: word-list, words: {political: [crown]}, on_hit: review}",
            CONSTANT.replace("}}", "}, on_hit: review}"),
        ),
        prompts=[
            detector("text", lambda t: float("bomb" in t)),
            detector("text", lambda t: float("crown" in t), "political"),
        ],
        pictures=[
            detector("image", lambda p: scores[0]),
            detector("image", lambda p: scores[1], "violent", "political", name="other"),
        ],
    )
    return made


@pytest.mark.parametrize(
    "caption, scores, action",
    [
        ("an apple", (0.1, 0.1), "keep"),
        ("a bomb", (0.1, 0.1), "drop"),
        (base64.b64encode(b"draw a bomb").decode(), (0.1, 0.1), "drop"),  # captions are decoded, as prompts are
        ("a crown", (0.1, 0.1), "review"),
        ("an apple", (0.9, 0.1), "keep"),  # both have to see it
        ("an apple", (0.9, 0.9), "drop"),
        ("an apple", (0.1, 0.9), "review"),  # nobody else looks for political things
        ("an apple", (0.9, math.nan), "review"),
    ],
)
def test_a_policy_screens_a_data_set(caption: str, scores: tuple[float, float], action: str) -> None:
    found = screening(guard_of(*scores))
    assert [d.card.name for d in found.detectors] == ["made", "made 2", "made 3", "other"]
    asked = checks(found.rules, [d.card for d in found.detectors])
    gray = np.full((4, 4, 3), 9, np.uint8)
    row = {
        "path": "a",
        "scores": {
            d.card.name: [v[0].score for v in d([caption if d.card.kind == "text" else gray]).values()]
            for d in found.detectors
        },
    }
    assert decide(row, asked).action == action


def test_categories_that_a_policy_calls_one() -> None:
    """porn counts from 0.6 and hentai from 0.2 on: 0.3 of hentai is 0.1 over, as 0.7 of porn is. What was measured of two goes."""
    policy = policy_of(
        "categories: {sexual: }\npictures: {detectors: [{detector: constant, options: {score: 0}, categories: {porn: sexual, hentai: sexual}}]}"
    )
    known = Counted(9, 10)
    card = Card(
        "d",
        "image",
        "",
        "MIT",
        "",
        tuple(Category(n, "", t, known, known) for n, t in (("porn", 0.6), ("hentai", 0.2))),
        "",
    )
    made = detector("image", lambda p: 0.0)
    object.__setattr__(made, "card", card)
    scores = [[0.1, 0.3], [0.7, 0.0], [0.5, 0.1], [math.nan, 0.3], [math.nan, 0.1]]
    object.__setattr__(made, "score", lambda items: np.array(scores))
    one = in_its_words(make_eye(made, policy.pictures.detectors[0], policy, "image", "x"))
    assert np.allclose(one.score([None] * 5)[:, 0], [0.7, 0.7, 0.5, 0.7, math.nan], equal_nan=True)
    (category,) = one.card.categories
    assert (category.name, category.threshold, category.sensitivity) == ("sexual", 0.6, None)


def test_what_was_measured_stays_at_its_own_threshold_only() -> None:
    known = Counted(9, 10)
    for threshold, kept in ((0.5, known), (0.7, None)):
        made = detector("image", lambda p: 0.0)
        card = Card("d", "image", "", "MIT", "", (Category("violent", "", 0.5, known, known),), "")
        object.__setattr__(made, "card", card)
        policy = policy_of(
            f"categories: {{violent: {{threshold: {threshold}}}}}\npictures: {{detectors: [{CONSTANT}]}}"
        )
        one = in_its_words(make_eye(made, policy.pictures.detectors[0], policy, "image", "x"))
        assert one.card.categories[0].sensitivity == kept


def test_texts_are_prompts_and_dialogue_where_the_policy_says_both() -> None:
    words = "{detector: word-list, words: {violent: [%s]}}"
    text = (
        f"categories: {{violent: }}\nprompts: {{rules: [{words % 'bomb'}]}}\ndialogue: {{detectors: [{words % 'axe'}]}}"
    )
    asked = [Exchange(Turn("user", t)) for t in ("an apple", "a bomb", "an axe")]
    both = load_guard(policy_of(text)).check_texts(asked)
    assert [(d[0].action, d[0].stage) for d in both] == [
        ("allow", "prompt"),
        ("refuse", "prompt"),
        ("refuse", "dialogue"),
    ]
    assert all(len(d) == 2 for d in both)
    alone = load_guard(policy_of(text.partition("\ndialogue")[0])).check_texts(asked)
    assert [d[0].action for d in alone] == ["allow", "refuse", "allow"] and all(len(d) == 1 for d in alone)


POLICY = """
format: 1
name: words
categories: {violent: }
prompts: {rules: [{detector: word-list, words: {violent: [bomb]}}]}
"""


def test_curate_and_moderate_take_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    source = tmp_path / "pictures"
    source.mkdir()
    for name, caption in (("a", "an apple"), ("b", "a b-o-m-b")):
        noise = np.random.default_rng(ord(name)).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(noise).save(source / f"{name}.png")
        (source / f"{name}.txt").write_text(caption)
    policy = ["--policy", str(tmp_path / "policy.yaml")]
    assert main(["curate", str(source), *policy, "--exact-only", "--out", str(tmp_path / "out")]) == 0
    kept, dropped = (
        [json.loads(line)["path"] for line in (tmp_path / f"out/{a}.jsonl").read_text().splitlines()[1:]]
        for a in ("keep", "drop")
    )
    assert (kept, dropped) == (["a.png"], ["b.png"])
    capsys.readouterr()
    (tmp_path / "lines.txt").write_text("an apple\na bomb\n")
    assert main(["moderate", *policy, str(tmp_path / "lines.txt")]) == 0
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (one["id"], one["action"], two["action"], two["category"]) == ("1", "allow", "refuse", "violent")
    assert two["sentence"] and "bomb" not in json.dumps(two)


@pytest.mark.parametrize(
    "words, told",
    [
        (["curate", "x", "--policy", "policy/zoo", "--detector", "constant,score=1", "--out", "y"], "leave --detector"),
        (["curate", "x", "--policy", "policy/zoo", "--combine", "all", "--out", "y"], "leave --detector"),
        (["moderate", "--policy", "policy/zoo", "--with", "x"], "leave --with"),
    ],
)
def test_a_policy_says_it_all(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err
