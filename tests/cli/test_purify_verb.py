"""scotoma purify, on a tiny random SD 1.x pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from scotoma.cli import main
from scotoma.erasure import method
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.records import Concept


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, an Edit of it, and a picture."""
    root = tmp_path_factory.mktemp("purify")
    base = tiny.write("sd1", root / "base")
    uce = method("uce")
    uce.run(load(base), [Concept("cat")], ["dog"], uce.config()).save(root / "cat.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / "in.png")
    return base, root / "cat.safetensors", root / "in.png"


def call(files, out, *more):
    base, edit, picture = map(str, files)
    return main(["purify", base, picture, "--edit", edit, "--out", str(out), "--steps", "2", *more])


def test_a_picture_of_the_models_size_and_what_it_was_told(files, tmp_path, capsys):
    assert call(files, tmp_path / "new" / "out.png") == 0
    assert "'cat'" in capsys.readouterr().out
    with Image.open(tmp_path / "new/out.png") as out:
        assert out.size == load(files[0]).picture_size
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.png"]


def test_the_prompt_decides(files, tmp_path):
    assert call(files, tmp_path / "a.png", "--prompt", "") == 0
    assert call(files, tmp_path / "b.png", "--prompt", "cat") == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_what_does_not_fit(files, tmp_path, capsys):
    assert call(files, tmp_path / "out.jpg") == 2
    assert "out.png" in capsys.readouterr().err
    text = tmp_path / "words.png"
    text.write_text("no picture")
    assert call((*files[:2], text), tmp_path / "out.png") == 9
    assert "words.png" in capsys.readouterr().err
    assert main(["purify", str(files[0]), str(files[2]), "--out", str(tmp_path / "out.png")]) == 2
    assert "--edit" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
