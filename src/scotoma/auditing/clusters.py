"""Which pictures of a run look alike: k-means on CLIP features, with the pictures nearest each centroid to be looked at.

So Unsafe Diffusion found its categories: clusters of generated pictures, their number read off an elbow, thematic coding of
what is nearest each centroid by three people. Here it leaves, in RUN/typology/:

    clusters.jsonl     a header, then for each picture its cluster, its distance from the centroid, and its place in the cluster
    inertia.json       the curve that the number of clusters was read off
    clusters.html      the pictures nearest each centroid, blurred
    coding_sheet.csv   the same pictures, to be coded by several raters; coding.py reads it

The rule for the number: of k from 2 to `largest`, both axes of the curve of inertia scaled to [0, 1], the k whose point lies
farthest below the straight line from the first to the last; of several, the least. It depends on `largest`, and where the curve
has no bend it means little: look at the curve, and give `number` where you know better.

Notation: N pictures, D features, K clusters, numbered from 1 by their size.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from scotoma.auditing.run import Run
from scotoma.auditing.score import AT_ONCE, pictures_hash
from scotoma.auditing.typology import TYPOLOGY, Typology
from scotoma.bounds import check_text
from scotoma.detectors.card import Card
from scotoma.detectors.contract import FLAGGED, Features
from scotoma.detectors.image.reading import read_whole
from scotoma.errors import DataError, MissingExtraError, UsageError, unknown_name
from scotoma.records import Generation, RunHeader, read_jsonl, write_jsonl, write_text
from scotoma.report import write_report
from scotoma.report.page import visible
from scotoma.report.typology import Group, Shown, typology_report

FOLDER = "typology"
RATERS = ("rater_1", "rater_2", "rater_3")
COLUMNS = ("cluster", "place", "picture", "prompt")  # of a coding sheet, before the raters'
RESTARTS = 10  # of k-means for each k, of which the one with the least inertia is taken
# What a spreadsheet would run instead of showing: at the start of a cell, or behind what some locales take for a separator.
FORMULA = re.compile(r"(^|[,;|])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


@dataclass(frozen=True)
class Placed:
    """A picture: its cluster, from 1; its distance from the centroid, in the units of the features; its place in the cluster,
    1 the nearest, 0 where one with the same pixels has a place: nobody is asked twice, as of two models that draw the same."""

    model: str
    set: str
    prompt: str  # Prompt.id
    seed: int
    cluster: int
    distance: float
    place: int


@dataclass(frozen=True)
class Clusters:
    """`placed` in the order of the run's pictures, `inertia` by number of clusters. `header.resolved` has the settings."""

    header: RunHeader
    placed: tuple[Placed, ...]
    inertia: Mapping[int, float]

    @property
    def sizes(self) -> list[int]:
        """Pictures in cluster 1, 2, ... K."""
        return np.bincount([p.cluster for p in self.placed])[1:].tolist()

    @property
    def nearest(self) -> list[Placed]:
        """Those to be looked at: the first `per_cluster` of each cluster."""
        some = [p for p in self.placed if 1 <= p.place <= self.header.resolved["per_cluster"]]
        return sorted(some, key=lambda p: (p.cluster, p.place))

    @property
    def sha256(self) -> str:
        """Of what is where: a sheet made of other clusters is another sheet."""
        rows = [dataclasses.astuple(p)[:5] for p in self.placed]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def cluster(
    run: Run,
    features: Features,
    *,
    detector: str | None = None,
    everything: bool = False,
    number: int | None = None,
    largest: int = 24,
    per_cluster: int = 12,
    seed: int = 0,
    clip: str = "",
) -> Clusters:
    """Cluster the pictures that a detector of the run flagged in any category (None: that any did which looked at pictures), or
    all with `everything`. The same arguments give the same clusters.

    `features` gives N D; of norm 1, near means a high cosine. `clip` is the sha256 of what they come from. `number` takes the
    place of the rule above. Raises MissingExtraError without scikit-learn; UsageError for settings that do not fit, an unknown
    detector or a run that none has looked at; DataError for fewer than three pictures that differ, or one that cannot be read;
    BoundsError where what came with a picture is refused by bounds.py.
    """
    if find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn", "audit", "clustering pictures")
    if largest < 2 or per_cluster < 1:
        raise UsageError(f"largest must be 2 or more and per_cluster 1 or more, got {largest} and {per_cluster}")
    if everything and detector is not None:
        raise UsageError(f"either everything or what {detector} flagged can be clustered; leave one of them out")
    by = [] if everything else _detectors(run, detector)
    chosen = _chosen(run, by, everything)
    texts = {(p.set, p.id): p.text for p in run.prompts}
    for key in dict.fromkeys((g.set, g.prompt) for g in chosen):
        check_text(texts[key], what=f"what came with the pictures of prompt {key[1]} of {key[0]}")
    x = _features(run, chosen, features)
    distinct = len(np.unique(x, axis=0))
    if distinct < 3:
        what = "of the run" if everything else f"flagged by {' or '.join(by)}"
        raise DataError(f"{distinct} pictures {what} differ from each other, and clusters need three; take more")
    most = min(largest, distinct - 1)
    if number is not None and not 2 <= number <= most:
        raise UsageError(f"{number} clusters of {distinct} different pictures: give 2 to {most}, or a larger `largest`")
    fits = {k: _k_means(x, k, seed) for k in range(2, most + 1)}
    inertia = {k: fit[2] for k, fit in fits.items()}
    taken = elbow(inertia)[0] if number is None else number
    settings = {"detectors": by, "everything": everything, "largest": largest, "per_cluster": per_cluster, "seed": seed}
    settings |= {"number": number, "taken": taken, "pictures": len(chosen)}
    header = run.header_for("typology", {"pictures": pictures_hash(chosen)} | ({"clip": clip} if clip else {}))
    header = dataclasses.replace(header, resolved={**header.resolved, **settings})
    return Clusters(header, _placed(chosen, x, *fits[taken][:2]), inertia)


def elbow(inertia: Mapping[int, float]) -> tuple[int, float]:
    """The k of the rule above, and how far its point lies below the chord, in [0, 0.71] of scaled axes: 0 is no bend."""
    ks = sorted(inertia)
    y = np.array([inertia[k] for k in ks])
    if len(ks) < 3 or y[0] <= y[-1]:
        return ks[0], 0.0
    x = (np.array(ks) - ks[0]) / (ks[-1] - ks[0])
    below = np.round((1 - x - (y - y[-1]) / (y[0] - y[-1])) / np.sqrt(2), 12)  # rounded, so that a tie is one
    best = int(below.argmax())
    return ks[best], max(0.0, float(below[best]))


def write(
    run: Run,
    clusters: Clusters,
    *,
    raters: Sequence[str] = RATERS,
    typology: Typology = TYPOLOGY,
    command: str = "scotoma.auditing.clusters.write",
    credits: Sequence[str] = (),
) -> Path:
    """Write the four files, and give their folder. `typology` is shown to those who code, `credits` under the pictures.

    Each rater fills in a copy of the sheet, and their columns are put into one afterwards, so that nobody sees what another
    wrote.
    Raises UsageError for fewer than two raters or two of one name; DataError where a sheet is there that may be filled in.
    """
    names = [*COLUMNS, *raters]
    if len(raters) < 2 or len({*names}) < len(names) or not all(re.fullmatch(r"\w[\w -]*", r) for r in raters):
        raise UsageError(f"agreement needs two or more raters with names of their own, got {', '.join(raters)}")
    folder = run.folder / FOLDER
    header = dataclasses.replace(clusters.header, resolved={**clusters.header.resolved, "raters": list(raters)})
    sheet, path = _sheet(run, clusters, raters), folder / "coding_sheet.csv"
    if path.exists() and path.read_text(encoding="utf-8") != sheet:
        raise DataError(f"{path} is there and may hold codes; move it away before another is written")
    write_jsonl(folder / "clusters.jsonl", header, (dataclasses.asdict(p) for p in clusters.placed))
    k, depth = elbow(clusters.inertia)
    curve = {"taken": header.resolved["taken"], "elbow": k, "below_chord": depth, "inertia": dict(clusters.inertia)}
    write_text(folder / "inertia.json", json.dumps(curve, indent=1) + "\n")
    write_text(path, sheet)
    html = typology_report(
        header,
        _groups(run, clusters),
        taken=header.resolved["taken"],
        inertia=clusters.inertia,
        elbow=(k, depth),
        definitions=typology,
        command=command,
        credits=credits,
    )
    write_report(folder / "clusters.html", html)
    return folder


def read_clusters(run: Run) -> Clusters:
    """What `write` wrote. Raises DataError where nothing is there, or of another run."""
    path = run.folder / FOLDER / "clusters.jsonl"
    header, rows = read_jsonl(path)
    if header.resolved.get("audit") != run.header.hashes["audit"]:
        raise DataError(f"{path} is of another run; cluster the pictures of this one")
    try:
        told = json.loads((run.folder / FOLDER / "inertia.json").read_text(encoding="utf-8"))
        inertia = {int(k): float(v) for k, v in told["inertia"].items()}
        return Clusters(header, tuple(Placed(**row) for row in rows), inertia)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path} or the curve beside it cannot be read ({e}); cluster the pictures again") from e


def picture_path(run: Run, p: Placed) -> Path:
    return run.picture(Generation(p.model, p.set, p.prompt, p.seed, "picture"))


def in_run(run: Run, p: Placed) -> str:
    """The path as a coding sheet has it: from the folder of the run on."""
    return picture_path(run, p).relative_to(run.folder).as_posix()


def _detectors(run: Run, detector: str | None) -> list[str]:
    scored = run.scored_by()
    if not scored:
        raise UsageError(f"no detector has looked at {run.folder}; score it first, or cluster everything")
    if detector is not None and detector not in scored:
        raise unknown_name("detector of this run", detector, scored)
    if detector is not None:
        return [detector]
    looking = [name for name in scored if Card.load(run.card_file(name)).kind == "image"]
    if not looking:
        raise UsageError(f"only {', '.join(scored)} looked, at prompts and not at pictures; name the one that is meant")
    return looking


def _chosen(run: Run, detectors: Sequence[str], everything: bool) -> list[Generation]:
    """Pictures in the order of targets; what a detector could not decide was not flagged."""
    flagged = set()
    for name in detectors:
        for row in read_jsonl(run.verdicts_file(name))[1]:
            if any(v.get("label") == FLAGGED for v in row["verdicts"].values()):
                flagged.add((row["model"], row["set"], row["prompt"], row["seed"]))
    made = [g for t in run.targets for g in run.generations(t["name"]) if g.outcome == "picture"]
    return [g for g in made if everything or g.key in flagged]


def _features(run: Run, chosen: Sequence[Generation], features: Features) -> np.ndarray:
    """N D, float64."""
    rows = []
    for start in range(0, len(chosen), AT_ONCE):
        pictures = [read_whole(run.picture(g)) for g in chosen[start : start + AT_ONCE]]
        found = np.asarray(features(pictures), dtype=np.float64)
        if found.ndim != 2 or len(found) != len(pictures):
            raise ValueError(f"features of shape {found.shape} for {len(pictures)} pictures; expected a row for each")
        rows.append(found)
    x = np.concatenate(rows) if rows else np.zeros((0, 1))
    if not np.isfinite(x).all():
        raise DataError("features hold numbers that are not finite; compute them again")
    return x


def _k_means(x: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels N, centroids k D, and the sum of squared distances; on one thread, as several add up in another order."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        fit = KMeans(k, n_init=RESTARTS, random_state=seed, algorithm="lloyd").fit(x)
    return fit.labels_, fit.cluster_centers_, float(fit.inertia_)


def _placed(
    chosen: Sequence[Generation], x: np.ndarray, labels: np.ndarray, centroids: np.ndarray
) -> tuple[Placed, ...]:
    distance = np.linalg.norm(x - centroids[labels], axis=1)
    members = [np.flatnonzero(labels == k) for k in range(len(centroids))]
    members = sorted((m for m in members if len(m)), key=lambda m: (-len(m), m[0]))
    out: dict[int, Placed] = {}
    for number, rows in enumerate(members, 1):
        shown = set[str]()
        for i in rows[np.argsort(distance[rows], kind="stable")].tolist():
            g = chosen[i]
            place = 0 if g.sha256 in shown else len(shown) + 1
            shown.add(g.sha256)
            out[i] = Placed(g.model, g.set, g.prompt, g.seed, number, round(float(distance[i]), 6), place)
    return tuple(out[i] for i in range(len(chosen)))


def _sheet(run: Run, clusters: Clusters, raters: Sequence[str]) -> str:
    """One row for each picture nearest a centroid; opens with the mark by which spreadsheets know UTF-8."""
    texts = {(p.set, p.id): p.text for p in run.prompts}
    out = io.StringIO()
    sheet = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    sheet.writerow([*COLUMNS, *raters])
    for p in clusters.nearest:
        sheet.writerow([p.cluster, p.place, in_run(run, p), plain_cell(texts[p.set, p.prompt]), *[""] * len(raters)])
    return "\ufeff" + out.getvalue()


def plain_cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run: an apostrophe before what would open a formula."""
    return FORMULA.sub(r"\1\2'", visible(" ".join(text.split())))


def _groups(run: Run, clusters: Clusters) -> list[Group]:
    texts = {(p.set, p.id): p.text for p in run.prompts}
    shown: dict[int, list[Shown]] = {}
    for p in clusters.nearest:
        picture = Shown(read_whole(picture_path(run, p)), texts[p.set, p.prompt], p.model, p.seed, p.distance)
        shown.setdefault(p.cluster, []).append(picture)
    return [Group(k, size, tuple(shown[k])) for k, size in enumerate(clusters.sizes, 1)]
