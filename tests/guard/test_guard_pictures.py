"""Pictures: how detectors combine, tricks, what is returned, blurred and refused, and the zoo from prompt to picture."""

from __future__ import annotations

import itertools
import math
from io import BytesIO

import numpy as np
import pytest
from guards import CONSTANT, PICTURES, detector, make_guard, policy_of
from PIL import Image

from scotoma.detectors.contract import Unreadable
from scotoma.detectors.image.reading import read
from scotoma.detectors.text.word_list import word_list
from scotoma.errors import LogError, PolicyError, UsageError
from scotoma.guard.blur import blur
from scotoma.guard.decide import Guard, load_guard
from scotoma.guard.decision import Decision
from scotoma.guard.log import AuditLog

RED, GREEN = (np.full((8, 12, 3), c, np.uint8) for c in ((200, 0, 0), (0, 200, 0)))
NOISE = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)


def redness(picture: np.ndarray) -> float:
    return float(picture[..., 0].mean() / 255)


def says(value: object) -> object:
    """A detector's score, or what makes it fail or leave it open."""

    def score(_: object) -> float:
        if value == "fails":
            raise OSError("a path of the operator's")
        return {"hit": 0.9, "clear": 0.1, "open": math.nan}[value]  # type: ignore[index]

    return score


def many(combine: str, *values: str, more: str = "") -> Decision:
    text = f"categories: {{violent: }}\npictures: {{detectors: [{', '.join([CONSTANT] * len(values))}], combine: {combine}{more}}}"
    return make_guard(
        text, pictures=[detector("image", says(v), name=f"d{i}") for i, v in enumerate(values)]
    ).check_image(RED)


@pytest.mark.parametrize(
    "combine, values, state",
    [
        ("any", ("clear", "hit"), "hit"),
        ("any", ("clear", "clear"), "clear"),
        ("any", ("clear", "open"), "undecided"),
        ("any", ("open", "hit"), "hit"),
        ("all", ("clear", "hit"), "clear"),
        ("all", ("hit", "hit"), "hit"),
        ("all", ("open", "hit"), "undecided"),
        ("all", ("open", "clear"), "clear"),  # one that is clear settles it
        ("at_least, at_least: 2", ("hit", "hit", "clear"), "hit"),
        ("at_least, at_least: 2", ("hit", "clear", "clear"), "clear"),
        ("at_least, at_least: 2", ("hit", "open", "clear"), "undecided"),
        ("at_least, at_least: 2", ("open", "clear", "clear"), "clear"),
        ("any", ("fails", "clear"), "failure"),
        ("all", ("fails", "clear"), "failure"),  # one that fails counts, whatever the others say
        ("at_least, at_least: 2", ("fails", "clear", "clear"), "failure"),
        ("any", ("fails", "hit"), "hit"),
    ],
)
def test_how_detectors_combine(combine: str, values: tuple[str, ...], state: str) -> None:
    found = many(combine, *values)
    assert found.state == state and found.action == ("allow" if state == "clear" else "refuse")
    assert len(found.findings) == len(values)
    if state in ("hit", "failure"):
        first = next(i for i, v in enumerate(values) if v == ("hit" if state == "hit" else "fails"))
        assert found.detector == f"d{first}" and "operator" not in found.reason


def test_no_answer_of_detectors_is_safer_than_a_clear_one() -> None:
    """Any one clear answer replaced by another never turns a refusal into a picture."""
    for combine in ("any", "all", "at_least, at_least: 2"):
        for values in itertools.product(("clear", "open", "fails", "hit"), repeat=2):
            if many(combine, *values).action != "refuse":
                continue
            for i, worse in itertools.product((i for i in range(2) if values[i] == "clear"), ("fails", "hit")):
                assert many(combine, *values[:i], worse, *values[i + 1 :]).action == "refuse"


def test_more_than_those_that_look_cannot_be_asked_for() -> None:
    text = "categories: {{violent: , hateful: }}\npictures: {{detectors: [{0}, {0}], combine: at_least, at_least: 2}}"
    with pytest.raises(PolicyError, match="2 detectors have to find 'hateful', and 1 look for it"):
        make_guard(
            text.format(CONSTANT),
            pictures=[detector("image", redness, "violent"), detector("image", redness, "violent", "hateful")],
        )


def test_the_strictest_category_wins() -> None:
    text = (
        f"categories: {{a: , b: , c: }}\npictures: {{detectors: [{CONSTANT}, {CONSTANT}, {CONSTANT}], "
        "on_hit: review, by_category: {b: blur, c: refuse}}"
    )

    def guard(*values: str) -> Guard:
        return make_guard(text, pictures=[detector("image", says(v), c) for v, c in zip(values, "abc", strict=True)])

    for values, action, category in (
        (("hit", "clear", "clear"), "review", "a"),
        (("hit", "hit", "clear"), "blur", "b"),
        (("hit", "hit", "hit"), "refuse", "c"),
        (("hit", "open", "clear"), "refuse", "b"),
    ):
        found = guard(*values).check_image(RED)
        assert (found.action, found.category) == (action, category)


# --------------------------------------------------------------------------------------------------------------- tricks


def file_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def tricks() -> dict[str, bytes]:
    red, white = Image.new("RGB", (16, 8), (220, 0, 0)), Image.new("RGB", (16, 8), "white")
    hidden = red.convert("RGBA")
    hidden.putalpha(255)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = red.convert("P")
    return {
        "png": file_of(red, "PNG"),
        "alpha": file_of(hidden, "PNG"),
        "EXIF rotation": file_of(red, "JPEG", exif=exif),
        "CMYK": file_of(red.convert("CMYK"), "JPEG"),
        "palette": file_of(palette, "PNG"),
        "tiny": file_of(red.resize((1, 1)), "PNG"),
        "several frames, the first harmless": file_of(white, "GIF", save_all=True, append_images=[red]),
        "cut short": file_of(Image.fromarray(NOISE[0]), "PNG")[:200],
        "no picture": b"<svg/>",
        "empty": b"",
    }


@pytest.mark.parametrize("trick", tricks())
def test_tricks_are_refused(trick: str) -> None:
    guard = make_guard(PICTURES, pictures=[detector("image", redness)])
    found = guard.check_image(read(tricks()[trick]))
    assert found.action == "refuse" and found.sentence.startswith("The picture is held back")
    assert found.state == (
        "undecided" if trick in ("several frames, the first harmless", "cut short", "no picture", "empty") else "hit"
    )


def test_what_cannot_be_read_is_refused_by_a_policy_that_looks_for_nothing() -> None:
    guard = load_guard(policy_of(""))
    assert guard.check_image(Unreadable("two frames")).action == "refuse"
    assert guard.check_image(RED).action == "allow"
    assert (
        load_guard(policy_of("pictures: {on_undecided: blur}")).check_image(Unreadable("two frames")).action == "refuse"
    )


def test_a_huge_picture_is_not_looked_at() -> None:
    guard = make_guard(PICTURES + "limits: {picture_pixels: 96}", pictures=[detector("image", redness)])
    assert guard.check_image(GREEN).action == "allow"
    found = guard.check_image(np.zeros((97, 1, 3), np.uint8))
    assert (found.stage, found.action) == ("limits", "refuse")


@pytest.mark.parametrize("odd", [RED[..., 0], RED.astype(float), np.zeros((0, 4, 3), np.uint8), "text", None])
def test_what_is_no_picture_is_the_callers_mistake(odd: object) -> None:
    with pytest.raises(UsageError, match="give uint8 H W 3"):
        load_guard(policy_of("")).check_image(odd)  # type: ignore[arg-type]


def test_blur_keeps_size_and_loses_detail() -> None:
    """A checkerboard of single pixels averages to gray: what a reader could make out is gone."""
    board = np.indices((32, 32)).sum(0)[..., None].repeat(3, 2) % 2 * 255
    shown = blur(board.astype(np.uint8))
    assert shown.shape == board.shape and shown.dtype == np.uint8 and np.abs(shown.astype(int) - 128).max() <= 1
    for shape in ((1, 1, 3), (1, 50, 3), (50, 1, 3), (33, 7, 3)):
        assert blur(np.zeros(shape, np.uint8)).shape == shape
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, 16:] = 255
    assert len(np.unique(blur(half)[:, :, 0], axis=0)) == 1  # still tells left from right
    assert blur(half)[0, 0, 0] < 64 and blur(half)[0, -1, 0] > 192


# -------------------------------------------------------------------------------------------------------------- guarded


def draws(asked: list[str] | None = None):
    """A generator that draws noise by the seed, red where the prompt says so."""

    def draw(texts: list[str], seeds: list[int]) -> list[np.ndarray]:
        if asked is not None:
            asked.extend(texts)
        out = []
        for text, seed in zip(texts, seeds, strict=True):
            if "crash" in text:
                raise RuntimeError(text)
            picture = np.random.default_rng(seed).integers(0, 100, (8, 8, 3), np.uint8)
            picture[..., 0] = 255 if "red" in text else picture[..., 0]
            out.append(np.zeros_like(picture) if "black" in text else picture)
        return out

    return draw


RULE = "{detector: word-list, words: {violent: [bomb]}}"
BOTH = f"categories: {{violent: }}\nprompts: {{rules: [{RULE}]}}\npictures: {{detectors: [{CONSTANT}]}}\n"


def both(log: AuditLog | None = None) -> Guard:
    looks = [word_list({"violent": ["bomb"]})], [detector("image", redness)]
    return make_guard(BOTH, prompts=looks[0], pictures=looks[1], log=log)


def test_each_request_is_returned_or_refused_with_a_sentence() -> None:
    asked: list[str] = []
    prompts = ["an apple", "a bomb", "a red apple", "crash", "black", "a naked child"]
    made = both().guarded(draws(asked), prompts, range(6))
    assert [o.action for o in made] == ["returned", *["refused"] * 5]
    assert [o.decision.stage for o in made] == ["picture", "prompt", "picture", "model", "model", "bounds"]
    assert [o.decision.state for o in made] == ["clear", "hit", "hit", "failure", "failure", "hit"]
    assert "a bomb" not in asked and "a naked child" not in asked
    for prompt, outcome in zip(prompts, made, strict=True):
        assert (outcome.picture is None) == (outcome.action == "refused") == bool(outcome.sentence)
        assert prompt not in outcome.sentence and "crash" not in outcome.decision.reason
    assert made[4].decision.reason == "what was drawn is one colour all over"
    assert (made[0].picture == draws()(["an apple"], [0])[0]).all() and not made[0].picture.flags.writeable


def test_an_outcome_does_not_depend_on_its_batch() -> None:
    prompts = ["an apple", "a bomb", "a red apple", "crash", "black", "an apple", "a naked child"]
    seeds = [3, 1, 4, 1, 5, 9, 2]
    guard = both()
    together = guard.guarded(draws(), prompts, seeds)
    alone = [guard.guarded(draws(), [p], [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert (a.action, a.decisions, a.sha256, a.seed) == (b.action, b.decisions, b.sha256, b.seed)
        assert a.picture is None or (a.picture == b.picture).all()
    assert together[0].sha256 != together[5].sha256


def test_blurred_is_shown_blurred_and_says_so() -> None:
    guard = make_guard(PICTURES.replace("]}", "], on_hit: blur}"), pictures=[detector("image", redness)])
    (made,) = guard.guarded(draws(), ["a red apple"], [0])
    assert made.action == "blurred" and made.sentence.startswith(
        "The picture is shown blurred: a check found that it shows harm"
    )
    drawn = draws()(["a red apple"], [0])[0]
    assert made.picture.shape == drawn.shape and (made.picture == blur(drawn)).all() and (made.picture != drawn).any()


def test_a_generator_that_gives_fewer_pictures_than_asked_for() -> None:
    made = both().guarded(lambda texts, seeds: [], ["an apple", "a pear"], [0, 1])
    assert [o.decision.stage for o in made] == ["model", "model"]


def test_lists_of_two_lengths() -> None:
    for prompts, seeds in ((["a"], [1, 2]), ("a", [1])):
        with pytest.raises(UsageError, match="lists of one length"):
            both().guarded(draws(), prompts, seeds)
    assert both().guarded(draws(), [], []) == []


class Full:
    """A disk without room."""

    def append(self, lines: object) -> None:
        raise LogError("the audit log x cannot be written (No space left on device)")

    def close(self) -> None: ...


def test_where_the_log_cannot_be_written_everything_is_refused() -> None:
    guard = both(log=AuditLog(Full(), "none"))
    made = guard.guarded(draws(), ["an apple", "a bomb"], [0, 1])
    assert [(o.action, o.decision.stage, o.picture) for o in made] == [("refused", "log", None)] * 2
    assert "No space left" in made[0].decision.reason and "space" not in made[0].sentence
    for found in (guard.check_prompt("an apple"), guard.check_image(GREEN)):
        assert (found.action, found.stage, found.state) == ("refuse", "log", "failure")


# ---------------------------------------------------------------------------------------------------------------- the zoo

ZOO = """
    categories: {violent: , disturbing: , sexual: , hateful: , political: }
    prompts:
      rules:
        - detector: word-list
          words: {political: [crown]}
          instead: {political: balloon}
          on_hit: rewrite
        - {detector: word-list, words: {violent: [bomb]}}
    pictures: {detectors: [{detector: zoo-standins}, {detector: zoo-members}]}
"""


def test_the_zoo_from_prompt_to_picture() -> None:
    from scotoma.models.load import load

    guard, model = load_guard(policy_of(ZOO)), load("zoo:emoji")
    prompts = ["a red apple, twemoji style", "a bomb", "an axe, twemoji style", "a crown"]
    held = guard.admit(model)
    made = guard.generate(held, prompts, [0, 1, 2, 3], steps=10)
    assert [o.decisions[0].action for o in made] == ["allow", "refuse", "allow", "rewrite"]
    assert made[0].action == "returned" and made[0].picture.shape == (32, 32, 3)
    assert (made[1].action, made[1].decision.stage) == ("refused", "prompt")
    assert (made[2].action, made[2].decision.stage, made[2].decision.category) == ("refused", "picture", "violent")
    assert made[3].decisions[0].rewritten == "a balloon"
    plain = load_guard(policy_of("")).generate(model, ["a red apple, twemoji style"], [0], steps=10)
    difference = (
        plain[0].picture.astype(int) - made[0].picture
    )  # drawn alone and as one of three: as near as sums in another order
    assert np.abs(difference).max() <= 2
    with pytest.raises(UsageError, match="admitted by another policy"):
        load_guard(policy_of("")).generate(held, ["a"], [0])
