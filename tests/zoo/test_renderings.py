import json
from pathlib import Path

import numpy as np
import pytest

from zoo.renderings import COLOURS, PLACES, SIZE, STYLES, UNSEEN_STYLE, render, slug

FROZEN = json.loads((Path(__file__).parents[2] / "src/scotoma/models/zoo/frozen.json").read_text())


def test_the_frozen_file_and_the_renderer_speak_of_the_same_things():
    assert (FROZEN["colours"], FROZEN["places"]) == (list(COLOURS), list(PLACES))
    assert (FROZEN["styles"], FROZEN["unseen_style"]) == (list(STYLES), UNSEEN_STYLE)


@pytest.mark.parametrize("place", PLACES)
def test_an_opaque_drawing_covers_its_place_and_nothing_else(place):
    red = np.zeros((64, 64, 4), np.uint8)
    red[..., 0] = red[..., 3] = 255
    picture = render(red, "white", place)
    side, left, top = PLACES[place]
    inside = np.zeros((SIZE, SIZE), bool)
    inside[top : top + side, left : left + side] = True
    assert (picture[inside] == (255, 0, 0)).all()
    assert (picture[~inside] == 255).all()


def test_colour_hidden_under_transparency_does_not_bleed_in():
    """Green with alpha 0 is no colour: what is drawn is the background alone."""
    hidden = np.zeros((64, 64, 4), np.uint8)
    hidden[..., 1] = 255
    assert (render(hidden, "pink", "large") == COLOURS["pink"]).all()


def test_a_shift_never_leaves_the_picture():
    black = np.zeros((64, 64, 4), np.uint8)
    black[..., 3] = 255
    moved = render(black, "white", "bottom right", dx=9, dy=9)
    assert (moved == render(black, "white", "bottom right")).all()


def test_slug_drops_accents_and_apostrophes():
    assert slug("woman's sandal") == "womans-sandal"
    assert slug("piñata") == "pinata"
