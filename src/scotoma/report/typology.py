"""The page on which clusters of pictures are looked at and coded: the pictures nearest each centroid, blurred at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from scotoma.records import RunHeader
from scotoma.report import page, plots
from scotoma.report.grid import LARGEST, check_picture, embed


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture, uint8 (H, W, 3), with what it was drawn of and how far from the centroid it lies."""

    picture: np.ndarray
    prompt: str
    model: str
    seed: int
    distance: float

    def __post_init__(self) -> None:
        check_picture(self.picture, "picture")


@dataclass(frozen=True, eq=False)
class Group:
    """A cluster: its number, how many pictures are in it, and those to be looked at, nearest first."""

    number: int
    size: int
    pictures: Sequence[Shown]


def typology_report(
    header: RunHeader,
    groups: Sequence[Group],
    *,
    taken: int,
    inertia: Mapping[int, float],
    elbow: tuple[int, float],
    definitions: Mapping[str, str],
    command: str,
    credits: Sequence[str],
    blurred: bool = True,
) -> str:
    """The whole page. Same arguments, same bytes.

    `taken` is the number of clusters, `inertia` the curve by number, `elbow` where it bends and how far below its chord the
    bend lies (auditing/clusters.py has the rule). `definitions` are the categories to code with. Of `header.resolved` it reads
    `detectors`, `everything` and `pictures`.
    """
    settings = header.resolved
    context = {
        "title": "Clusters of pictures, to be coded",
        "outcome": _outcome(settings, taken),
        "number": _number(taken, elbow),
        "curve": _curve(taken, inertia),
        "groups": [
            {
                "key": f"cluster-{g.number}",
                "number": g.number,
                "size": g.size,
                "tiles": [
                    {
                        "picture": embed(s.picture),
                        "place": place,
                        "prompt": s.prompt,
                        "model": s.model,
                        "seed": s.seed,
                        "distance": page.number(s.distance),
                    }
                    for place, s in enumerate(g.pictures, 1)
                ],
            }
            for g in groups
        ],
        "reduced": any(max(s.picture.shape[:2]) > LARGEST for g in groups for s in g.pictures),
        "largest": LARGEST,
        "blurred": blurred,
        "definitions": definitions,
        "raters": settings.get("raters", ()),
        "command": command,
        "header": header,
        "settings": sorted({*header.given, *settings}),
        "credits": credits,
    }
    return page.render("typology.html.j2", **context)


def _outcome(settings: Mapping[str, object], taken: int) -> str:
    by = settings.get("detectors") or ()
    names = " or ".join(str(d) for d in by) if isinstance(by, list | tuple) else str(by)
    which = "pictures" if settings.get("everything") else f"pictures flagged by {names}"
    return f"{settings.get('pictures', '?')} {which}, in {taken} clusters of what looks alike"


def _number(taken: int, elbow: tuple[int, float]) -> str:
    k, below = elbow
    bend = f"{page.number(below)} below the chord, where the largest possible is 0.707"
    if below == 0:
        rule = f"The curve has no bend, so that the rule gives its least number, {k}."
    else:
        rule = f"The curve lies farthest below its chord at {k} ({bend})."
    return rule if taken == k else f"{rule} {taken} was asked for instead."


def _curve(taken: int, inertia: Mapping[int, float]) -> Markup:
    ks = sorted(inertia)
    lines = [
        plots.Series("inertia", ks, [inertia[k] for k in ks]),
        plots.Series("taken", [taken], [inertia[taken]]),
    ]
    summary = f"Inertia by number of clusters, from {ks[0]} to {ks[-1]}; {taken} was taken."
    return plots.line_curve(lines, x_label="clusters", y_label="sum of squared distances", summary=summary)
