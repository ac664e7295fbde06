"""CLIP training: the loss by hand, which captions are true, held-out renderings, exact resume, a folder that loads."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/zoo"))  # the scripts import one another by bare name

import train_clip
from emoji_batches import INKS, NO_STYLE, Batch, edged, inked, lined
from train_clip import ANY, Captions, contrastive, describe, truth

from scotoma.detectors.image import zoo_clip
from scotoma.errors import DataError
from scotoma.models import tiny

TINY = train_clip.VISION | {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ROWS = [
    {"name": "cat", "synonyms": ["red dog", "tomcat"], "keywords": ["pet"], "subcategory": "animal-mammal"},
    {"name": "red dog", "synonyms": [], "keywords": [], "subcategory": "animal-mammal"},
]


class Fake:
    """Two names on random pictures, with EmojiData's attributes; interrupts once at a given draw."""

    def __init__(self, stop_at: int = -1):
        self.draws, self.stop_at, self.rendered = 0, stop_at, []
        self.names, self.rows = [row["name"] for row in ROWS], ROWS
        self.styles = ["twemoji", "noto", "fluent", "fluent high-contrast"]
        self.colours, self.places = ["white", "pink"], ["large", "top left"]
        self.allowed = np.array([0, 1])
        self.held_out = {(0, 1, 1), (1, 0, 0), (1, 1, 1)}

    def draw(self, n: int, rng: np.random.Generator, ink: float = 0.0) -> Batch:
        self.draws += 1
        if self.draws == self.stop_at:
            raise KeyboardInterrupt
        return self.render(*(rng.integers(0, k, n) for k in (2, 3, 2, 2)), np.zeros((n, 2), int))

    def render(
        self, name: np.ndarray, style: np.ndarray, colour: np.ndarray, place: np.ndarray, shift: np.ndarray
    ) -> Batch:
        self.rendered.append(list(zip(name.tolist(), colour.tolist(), place.tolist(), strict=True)))
        pictures = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (len(name), 3, 32, 32)).astype(np.float32))
        return Batch(pictures, *(torch.from_numpy(np.asarray(v, np.int64)) for v in (name, style, colour, place)))


def run(out: Path, data: Fake, **changes: object) -> list[dict]:
    settings: dict = {"steps": 6, "batch": 4, "lr": 1e-3, "seed": 0, "vision": TINY, "save_seconds": 0.0}
    return train_clip.fit(data, tiny.tokenizer(), out, **settings | {"observe_every": 6} | changes)  # type: ignore[arg-type]


def test_the_text_tower_starts_where_it_is_told_to(tmp_path):
    start = {
        k: torch.randn_like(v) for k, v in train_clip.build(tiny.tokenizer(), TINY).text_model.state_dict().items()
    }
    run(tmp_path / "told", Fake(), steps=1, lr=1e-12, text=start, observe_every=1)
    run(tmp_path / "random", Fake(), steps=1, lr=1e-12, observe_every=1)
    found = [zoo_clip.read(tmp_path / name / "model").model.text_model.state_dict() for name in ("told", "random")]
    same = [all(torch.allclose(f[k].float(), v, atol=2e-3, rtol=2e-3) for k, v in start.items()) for f in found]
    assert same == [True, False]
    recipes = [json.loads((tmp_path / name / "figures.json").read_text())["recipe"] for name in ("told", "random")]
    assert ["zoo:emoji" in r for r in recipes] == [True, False]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clip")
    run(out, Fake())
    return out


class TestLoss:
    def test_two_pairs_by_hand(self) -> None:
        """Logits [[1, 0], [0, 1]], each caption true of its own picture: every row and column has
        -log(e / (e + 1)) = log(1 + 1/e), and so has the mean."""
        loss = contrastive(torch.eye(2), torch.eye(2))
        torch.testing.assert_close(loss.item(), math.log(1 + 1 / math.e))

    def test_a_caption_true_of_both_pictures_by_hand(self) -> None:
        """Logits [[log 3, 0], [0, 0]], true [[1, 0], [1, 1]].

        Rows: picture 0 -log(3/4); picture 1, two true, (log 2 + log 2) / 2 = log 2.
        Columns: caption 0, two true, -(log(3/4) + log(1/4)) / 2; caption 1 log 2.
        """
        logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
        rows = (math.log(4 / 3) + math.log(2)) / 2
        columns = ((math.log(4 / 3) + math.log(4)) / 2 + math.log(2)) / 2
        loss = contrastive(logits, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        torch.testing.assert_close(loss.item(), (rows + columns) / 2)

    def test_pairs_that_are_alike_are_not_pushed_apart(self) -> None:
        """Two pictures of one thing with one caption: equal logits are the optimum, so there is no gradient."""
        logits = torch.zeros(2, 2, requires_grad=True)
        contrastive(logits, torch.ones(2, 2)).backward()
        torch.testing.assert_close(logits.grad, torch.zeros(2, 2))


class TestCaptions:
    def test_true_where_nothing_said_is_false(self) -> None:
        """Pictures: a noto cat on pink, large; a twemoji cat on pink, top left; a twemoji dog on pink, large.
        Captions: "cat"; "cat, twemoji"; "dog on pink, large"."""
        batch = Batch(torch.zeros(3, 3, 32, 32), *map(torch.tensor, ([0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0])))
        said = map(torch.tensor, ([0, 0, 1], [ANY, 0, ANY], [ANY, ANY, 1], [ANY, ANY, 0]))
        expected = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        assert torch.equal(truth(batch, Captions(["", "", ""], *said)), expected)

    def test_what_is_said_is_in_the_text_and_true_of_its_picture(self) -> None:
        data, rng = Fake(), np.random.default_rng(0)
        batch = data.draw(200, rng)
        captions = describe(data, batch, rng)  # type: ignore[arg-type]
        assert truth(batch, captions).diagonal().all()
        for k, text in enumerate(captions.texts):
            assert (captions.colour[k] == ANY) == ("background" not in text)
            assert (captions.style[k] == ANY) == (not text.endswith(" style"))
            assert (captions.place[k] == ANY) == ("large" not in text and "top left" not in text)
        for head in ("style", "colour", "place"):
            assert 0.35 < (getattr(captions, head) == ANY).float().mean() < 0.65

    def test_nothing_is_said_of_the_style_of_an_inked_drawing(self) -> None:
        data, rng = Fake(), np.random.default_rng(0)
        drawn = data.draw(60, rng)
        batch = Batch(drawn.pictures, drawn.name, torch.full((60,), NO_STYLE), drawn.colour, drawn.place)
        captions = describe(data, batch, rng)  # type: ignore[arg-type]
        assert (captions.style == ANY).all() and not any("style" in text for text in captions.texts)
        assert truth(batch, captions).diagonal().all()

    def test_a_synonym_that_is_another_name_is_never_used(self) -> None:
        rng = np.random.default_rng(0)
        nouns = {train_clip.noun(ROWS[0], ["cat", "red dog"], rng) for _ in range(300)}
        assert nouns == {"cat", "tomcat", "cat, pet", "cat, animal mammal"}


def test_retrieval_is_measured_on_held_out_combinations_alone() -> None:
    data = Fake()
    for seed in range(5):
        batch = train_clip.held_out_renderings(data, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert batch.name.tolist() == [0, 1]
    assert {c for row in data.rendered for c in row} == data.held_out


def test_retrieval_of_a_perfect_and_of_a_blind_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """One direction per name. Perfect: both ways 1. Blind to pictures: every picture gets one text, so one of the two
    pictures is named rightly, and every text finds the first picture."""
    data = Fake()

    class Oracle:
        def __init__(self, blind: bool):
            self.blind = blind

        def image_features(self, pictures: np.ndarray) -> np.ndarray:
            assert pictures.dtype == np.uint8 and pictures.shape == (2, 32, 32, 3)
            return np.array([[1.0, 0.0], [1.0, 0.0] if self.blind else [0.0, 1.0]])

        def text_features(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0, 0.0] if "cat" in t else [0.0, 1.0] for t in texts])

    for blind, expected in ((False, 1.0), (True, 0.5)):
        out = train_clip.retrieval(Oracle(blind), data)  # type: ignore[arg-type]
        assert out["text_to_image"] == out["image_to_text_worst"] == expected


def test_the_exported_folder_loads_and_is_whole(finished: Path) -> None:
    clip = zoo_clip.read(finished / "model")
    assert clip.image_features(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, train_clip.PROJECTION)
    assert clip.card["licences"].startswith("Twemoji CC-BY 4.0")
    assert set(clip.card["figures"]) >= {"text_to_image", "image_to_text", "text_to_image_worst"}
    settings = json.loads((finished / "model/preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "CLIPImageProcessor"


def test_stock_processing_gives_the_same_pixels(finished: Path) -> None:
    from transformers import CLIPImageProcessorPil

    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil.from_pretrained(finished / "model")
    pixels = processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    torch.testing.assert_close(pixels, zoo_clip.to_clip(pictures, 32), atol=1e-6, rtol=0)


def test_an_interrupted_run_ends_in_the_same_weights(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Fake(stop_at=4))
    again = Fake()
    run(tmp_path, again)
    assert again.draws == 3  # of six
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (finished / weights).read_bytes()


def test_shipping_replaces_the_old_folder_whole(finished: Path, tmp_path: Path) -> None:
    package = tmp_path / "image/zoo_clip"
    package.mkdir(parents=True)
    (package / "left over").write_text("")
    train_clip.ship(finished, package)
    assert [p.name for p in package.parent.iterdir()] == ["zoo_clip"]
    shipped = {p.name for p in package.iterdir()}
    assert shipped == {p.name for p in (finished / "model").iterdir()}
    assert {"card.json", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= shipped


def test_nothing_ships_before_a_training_has_ended_and_was_measured(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished training; run this script without --ship first"):
        train_clip.ship(tmp_path, tmp_path / "package")
    run(tmp_path, Fake(), steps=1, observe_every=0)
    with pytest.raises(DataError, match="was never measured"):
        train_clip.ship(tmp_path, tmp_path / "package")
    assert not (tmp_path / "package").exists()


class TestInk:
    def drawing(self) -> np.ndarray:
        """A square: its left half dark red, its right half yellow; nothing around it."""
        rgba = np.zeros((10, 10, 4), np.float32)
        rgba[2:8, 2:8, 3] = 1
        rgba[2:8, 2:5, :3], rgba[2:8, 5:8, :3] = (0.3, 0, 0), (1, 1, 0)
        return rgba

    def test_black_where_it_was_dark_or_at_the_outline_and_nowhere_outside(self) -> None:
        seen = [inked(self.drawing(), np.random.default_rng(seed)) for seed in range(40)]
        inner = [(ink[3:7, 3, 3].mean(), ink[3:7, 6, 3].mean()) for ink in seen]
        assert {(1.0, 0.0), (0.0, 1.0)} <= set(inner)  # the darker half, or the lighter one
        for ink in seen:
            assert (ink[..., :3] == 0).all() and (ink[self.drawing()[..., 3] == 0] == 0).all()
        outlined = [ink[2, 2:8, 3].all() and ink[2:8, 7, 3].all() for ink in seen]
        assert 0.5 < np.mean(outlined) < 1

    def test_lines_where_lightness_changes_and_around(self) -> None:
        """The halves meet between columns 4 and 5, so that a line between them is in column 4; there is none where all limits are
        of the darker half. White lines in black are the other way round."""
        seen = [lined(self.drawing(), np.random.default_rng(seed)) for seed in range(40)]
        square = self.drawing()[..., 3] > 0
        for ink in seen:
            assert (ink[..., :3] == 0).all() and (ink[~square] == 0).all()
            assert ink[2, 2:8, 3].all() and ink[2:8, 2, 3].all() and ink[2:8, 7, 3].all() and ink[7, 2:8, 3].all()
        inner = {(*ink[4, 3:7, 3].tolist(),) for ink in seen}
        line, none = np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(4)
        assert inner == {tuple(x) for x in (line, none, 1 - line, 1 - none)}

    def test_edges_where_colours_change_most(self) -> None:
        """From left and above, white to dark red changes by 2.7, dark red to yellow by 1.7, white to yellow by 1, and 20 of the 36
        pixels by nothing: where the limit is among those, all of it is black. 9 change by 2.7 or more, which no limit leaves out."""
        solid = []
        for seed in range(20):
            ink = edged(self.drawing(), np.random.default_rng(seed))
            assert (ink[..., :3] == 0).all() and (ink[self.drawing()[..., 3] == 0] == 0).all()
            assert ink[2:8, 2, 3].all() and ink[2, 2:5, 3].all()
            solid.append(ink[3:7, 3, 3].all() and ink[3:7, 6, 3].all())
            assert solid[-1] or not (ink[3:7, 3, 3].any() or ink[3:7, 6, 3].any())
        assert 0 < sum(solid) < 20

    def test_nothing_shown_is_nothing_drawn(self) -> None:
        for way in INKS:
            assert (way(np.zeros((10, 10, 4), np.float32), np.random.default_rng(0)) == 0).all()

    def test_a_training_goes_on_from_given_weights_and_says_so(self, tmp_path: Path) -> None:
        run(tmp_path / "first", Fake())
        start = zoo_clip.read(tmp_path / "first/model").model.state_dict()
        run(tmp_path / "second", Fake(), start=start, ink=0.5, before="six steps", steps=1, lr=0.0)
        after = zoo_clip.read(tmp_path / "second/model").model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in start.items())
        recipe = json.loads((tmp_path / "second/model/card.json").read_text())["recipe"]
        assert recipe.startswith("six steps, then ") and "50 % of the pictures in black ink" in recipe
