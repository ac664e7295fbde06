"""Emoji as pictures: read one drawing, place it on a coloured square of 32 px.

Shapes: a drawing is RGBA uint8 (64, 64, 4); a rendering is RGB uint8 (32, 32, 3).
The four drawing styles are three for training (`STYLES`) and one that nothing is ever trained on (`UNSEEN_STYLE`).
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32
STYLES = ("twemoji", "noto", "fluent")
UNSEEN_STYLE = "fluent high-contrast"
COLOURS = {
    "white": (255, 255, 255),
    "purple": (200, 175, 235),
    "pink": (255, 182, 203),
    "yellow": (255, 236, 139),
    "green": (160, 220, 160),
    "blue": (135, 190, 240),
}
# place -> (side of the drawing, left, top) in pixels
PLACES = {
    "large": (30, 1, 1),
    "top left": (22, 0, 0),
    "top right": (22, 10, 0),
    "bottom left": (22, 0, 10),
    "bottom right": (22, 10, 10),
}
# Fluent files whose name is not the slug of the CLDR label.
FLUENT_ALIASES = {"pouting face": "pouting-face", "zombie": "person-zombie"}
RENAMED = {"enraged face": "pouting face"}  # the name the field's stand-in list uses


def slug(label: str) -> str:
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower().replace("'", "")).strip("-")


def catalogue(source: Path) -> list[dict]:
    """Every emoji that exists in all four styles: name, category, subcategory, synonyms, keywords, files."""
    emoji = json.loads((source / "twemoji/package/emoji.json").read_text())
    labels = {
        e["hexcode"].replace("-FE0F", ""): e
        for e in json.loads((source / "emojibase/package/en/data.json").read_text())
    }
    flat = source / "fluent/package/icons/flat"
    contrast = source / "fluent/package/icons/high-contrast"
    rows = []
    for e in emoji:
        base = labels.get(e["unified"].replace("-FE0F", ""))
        if base is None or not (e["has_img_twitter"] and e["has_img_google"]):
            continue
        name = base["label"].replace("’", "'").lower()
        name = RENAMED.get(name, name)
        stem = FLUENT_ALIASES.get(name, slug(name))
        stem = next((s for s in (stem, f"{stem}-default") if (flat / f"{s}.svg").exists()), None)
        if stem is None or not (contrast / f"{stem}.svg").exists():
            continue
        short = [s.replace("_", " ").replace("-", " ") for s in e["short_names"]]
        rows.append(
            {
                "name": name,
                "category": e["category"],
                "subcategory": e["subcategory"],
                "synonyms": [s for s in dict.fromkeys(short) if s != name and re.fullmatch(r"[a-z ]{3,}", s)],
                "keywords": [t for t in base.get("tags", []) if re.fullmatch(r"[a-z ]{3,}", t) and t != name],
                "image": e["image"],
                "fluent": stem,
            }
        )
    return rows


def drawing(source: Path, row: dict, style: str) -> np.ndarray:
    """RGBA uint8 (64, 64, 4) of one emoji in one style."""
    if style in ("twemoji", "noto"):
        vendor = {"twemoji": "twitter", "noto": "google"}[style]
        image = Image.open(source / style / "package/img" / vendor / "64" / row["image"])
    else:
        import resvg_py

        folder = {"fluent": "flat", UNSEEN_STYLE: "high-contrast"}[style]
        svg = source / "fluent/package/icons" / folder / f"{row['fluent']}.svg"
        image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=64, height=64))))
    return np.asarray(image.convert("RGBA").resize((64, 64), Image.LANCZOS))


def render(rgba: np.ndarray, colour: str, place: str, dx: int = 0, dy: int = 0) -> np.ndarray:
    """RGB uint8 (32, 32, 3): the drawing on a square of `colour`, at `place`, moved by (dx, dy) pixels."""
    side, left, top = PLACES[place]
    small = np.asarray(_premultiplied_resize(rgba, side), np.float32)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = COLOURS[colour]
    y = min(max(top + dy, 0), SIZE - side)
    x = min(max(left + dx, 0), SIZE - side)
    alpha = small[..., 3:] / 255
    canvas[y : y + side, x : x + side] = canvas[y : y + side, x : x + side] * (1 - alpha) + small[..., :3]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _premultiplied_resize(rgba: np.ndarray, side: int) -> np.ndarray:
    """Area-averaged resize with premultiplied alpha, so that no colour hidden under alpha 0 bleeds in."""
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    channels = [
        np.asarray(Image.fromarray(premultiplied[..., c], mode="F").resize((side, side), Image.BOX)) for c in range(4)
    ]
    return np.stack(channels, -1)
