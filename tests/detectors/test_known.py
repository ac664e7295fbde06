"""Known pictures: copies, variants and others, on made-up embeddings and real hashes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from scotoma.detectors.image import known
from scotoma.detectors.image.known import Bands, Bank, bands, bank
from scotoma.errors import DataError, MissingExtraError, UsageError

pytest.importorskip("imagehash")


def drawn(seed, side=64):
    """Smooth blobs: something with low frequencies, as pictures have."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def thumbnails(pictures):
    """Embeddings for the tests: the picture itself at 4 x 4, its mean taken off."""
    rows = [np.asarray(Image.fromarray(p).resize((4, 4)), np.float32).flatten() for p in pictures]
    return np.stack([r - r.mean() for r in rows])


PICTURES = [drawn(seed) for seed in range(6)]
BANK = bank(PICTURES, [f"p{i}" for i in range(6)], thumbnails, "enc")
LIMITS = Bands(0.97, 0.6)


def changed(picture, how):
    image = Image.fromarray(picture)
    if how == "smaller":
        return np.asarray(image.resize((31, 31)))
    if how == "recoded":
        import io

        data = io.BytesIO()
        image.save(data, "JPEG", quality=40)
        return np.asarray(Image.open(data))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


@pytest.mark.parametrize("how", ["smaller", "recoded", "blurred"])
def test_copies_are_found_by_their_hash(how):
    batch = [changed(p, how) for p in PICTURES]
    assert BANK.bits(batch).argmin(1).tolist() == list(range(6)) and BANK.bits(batch).min(1).max() <= known.BITS
    # Features that know nothing: the hash alone decides.
    found = known.known(BANK, lambda pictures: np.eye(48)[: len(pictures)] * 0 + 1e-3, LIMITS)(batch)
    assert [v.label for v in found["near-copy"]] == ["flagged"] * 6
    assert [v.label for v in found["variant"]] == ["clear"] * 6


def test_variants_lie_between_the_bands_and_others_below():
    """cos 45 degrees = 0.707 is a variant, 0.98 a copy, 0.5 nothing."""
    one = Bank(("p",), np.zeros((1, 64), bool), np.array([[1.0, 0.0]], np.float32), "enc")
    angles = np.arccos([0.707, 0.98, 0.5])
    features = np.stack([np.cos(angles), np.sin(angles)], 1) * 7
    found = known.known(one, lambda p: features, LIMITS)([drawn(100 + i) for i in range(3)])
    assert [v.label for v in found["variant"]] == ["flagged", "clear", "clear"]
    assert [v.label for v in found["near-copy"]] == ["clear", "flagged", "clear"]
    assert [round(v.score, 3) for v in found["near-copy"]] == [0.707, 0.98, 0.5]


def test_bands_by_hand():
    """A hundredth of 201 unrelated cosines 0, 0.002 ... 0.4 lies above 0.396; copies and variants part between 0.8 and 0.9."""
    found = bands(np.array([0.9, 0.95]), np.array([0.6, 0.8]), np.linspace(0, 0.4, 201))
    assert found.variant == pytest.approx(0.396) and found.copy == pytest.approx(0.85)
    with pytest.raises(DataError, match="as alike as copies"):
        bands(np.array([0.2, 0.3]), np.array([0.1]), np.full(9, 0.9))
    with pytest.raises(UsageError, match="pairs of each kind"):
        bands(np.array([0.9]), np.array([]), np.array([0.1]))


def test_a_bank_comes_back_without_its_pictures(tmp_path):
    BANK.save(tmp_path / "bank.safetensors")
    back = Bank.load(tmp_path / "bank.safetensors")
    assert back.names == BANK.names and (back.hashes == BANK.hashes).all() and (back.features == BANK.features).all()
    assert (tmp_path / "bank.safetensors").stat().st_size < 6 * (64 + 48 * 4) + 1000
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="no bank of known pictures"):
        Bank.load(tmp_path / "bad.safetensors")


def test_what_it_refuses(monkeypatch):
    with pytest.raises(DataError, match="made with the encoder enc and not with other"):
        known.known(BANK, thumbnails, LIMITS, encoder="other")
    with pytest.raises(UsageError, match="a name for each, got 6 and 1"):
        bank(PICTURES, ["a"], thumbnails)
    with pytest.raises(UsageError, match="variant < copy"):
        Bands(0.5, 0.6)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[known\]"):
        BANK.bits(PICTURES)
