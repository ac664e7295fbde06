"""Hostile pictures: each is read as what it shows, or is a reason, and none is an exception."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scotoma.detectors.contract import Unreadable
from scotoma.detectors.image.reading import read

RED = np.full((6, 8, 3), (200, 30, 40), np.uint8)


def saved(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def same(found, expected, tolerance=0):
    assert isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= tolerance


def test_a_plain_picture_from_bytes_path_and_picture(tmp_path):
    picture = Image.fromarray(RED)
    (tmp_path / "wrong.jpg").write_bytes(saved(picture, "PNG"))
    for source in (saved(picture, "PNG"), tmp_path / "wrong.jpg", str(tmp_path / "wrong.jpg"), picture):
        same(read(source), RED)


def test_modes_become_rgb():
    same(read(saved(Image.fromarray(RED).convert("CMYK"), "TIFF")), RED, 3)
    same(read(saved(Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")), RED, 3)
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8)
    same(read(saved(Image.fromarray(gray), "PNG")), np.repeat(gray[..., None], 3, 2))
    deep = (gray.astype(np.uint16)) * 257
    same(read(saved(Image.fromarray(deep), "PNG")), np.repeat(gray[..., None], 3, 2), 1)
    same(read(Image.fromarray(gray.astype(np.float32) / 255)), np.repeat(gray[..., None], 3, 2), 1)
    same(read(saved(Image.fromarray(gray > 20), "PNG")), np.repeat(np.uint8(255 * (gray > 20))[..., None], 3, 2))


def test_what_is_transparent_is_seen_on_white():
    rgba = np.dstack([RED, np.zeros((6, 8), np.uint8)])
    rgba[:3, :, 3] = 255
    expected = np.where(np.arange(6)[:, None, None] < 3, RED, 255)
    same(read(saved(Image.fromarray(rgba), "PNG")), expected)
    palette = Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE)
    same(read(saved(palette, "PNG", transparency=palette.getpixel((0, 0)))), np.full_like(RED, 255))


def test_rotation_in_exif_is_applied():
    picture = Image.fromarray(np.dstack([np.arange(48, dtype=np.uint8).reshape(6, 8)] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right to show it upright
    same(read(saved(picture, "PNG", exif=exif)), np.rot90(np.asarray(picture), -1))


def png_of(width, height):
    """A PNG that says it is large and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (b"not a picture at all", "cannot be read"),
        (saved(Image.fromarray(RED), "PNG")[:30], "cannot be read"),
        (
            saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")[:900],
            "cannot be read",
        ),
        (png_of(20_000, 20_000), "pixels"),
        (png_of(9_000, 6_000), "9000 x 6000 pixels, more than 50000000"),
        (
            saved(Image.fromarray(RED), "GIF", save_all=True, append_images=[Image.fromarray(255 - RED)]),
            "several frames",
        ),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "cannot be read"),
    ],
)
def test_what_cannot_be_judged_is_a_reason(data, reason):
    found = read(data)
    assert isinstance(found, Unreadable) and reason in found.reason


def test_frames_are_not_counted(monkeypatch):
    """Of a GIF that would decode all of them."""
    from PIL import GifImagePlugin

    moving = saved(Image.fromarray(RED), "GIF", save_all=True, append_images=[Image.fromarray(255 - RED)] * 3)
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(lambda self: 1 / 0))
    assert "several frames" in read(moving).reason


def test_a_missing_file(tmp_path):
    assert "cannot be read" in read(tmp_path / "none.png").reason


def test_every_cut_and_every_flipped_byte_of_a_file_is_a_picture_or_a_reason():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = saved(Image.fromarray(RED), kind)
        for k in range(0, len(whole), max(1, len(whole) // 40)):
            for data in (whole[:k], whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :]):
                assert isinstance(read(data, max_pixels=10_000), Unreadable | np.ndarray)


def test_a_file_that_pillow_would_hand_to_another_program_is_not_opened(tmp_path, monkeypatch):
    """EPS is decoded by Ghostscript, which Pillow starts; a name that ends in .png does not change that."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert isinstance(read(path), Unreadable)
