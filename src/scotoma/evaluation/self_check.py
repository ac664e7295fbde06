"""The self-check after every erase: did the edit change anything, break the model, or lead where it must not?

Same prompts and seeds before and after. A check passes, fails, or is undecided, and undecided is never a pass: an Edit
is saved unasked only where every check passed. Pictures are uint8 N H W 3; shares and drops are fractions.

A drop or excess breaks a limit where its whole 95 % interval lies above it, so that a small sample does not condemn an
edit; for broken pictures and forbidden concepts the estimate itself decides, since neither may appear by chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from scotoma.errors import SelfCheckError, UndecidedError, UsageError
from scotoma.evaluation.figures import Pairs, Seen, drop, off_manifold, paired
from scotoma.evaluation.reference import Reference
from scotoma.records import Figure
from scotoma.statistics import clopper_pearson, mcnemar_exact

NOBODY = "nobody can judge the concept: give --clip PATH_OR_ID"
SIGNIFICANT = 0.05
FEWEST_SEEN = 6  # 2 (1/2)^6 = 0.031: the fewest pictures whose loss an exact McNemar test can find real at 0.05


def _limit(default: float, high: float, text: str) -> Any:
    return field(default=default, metadata={"help": text, "high": high})


@dataclass(frozen=True)
class Limits:
    """What the self-check lets pass. Defaults tell a working edit from a broken one; they are no targets.

    Raises UsageError for a value outside its range.
    """

    picture_change: float = _limit(
        0.5,
        255.0,
        "mean absolute change of the forget pictures, in levels of 0 to 255, that must be exceeded; half a level is "
        "what rounding to 8 bits can do by itself",
    )
    flat: float = _limit(
        2.5,
        255.0,
        "a picture is near-constant where no channel's standard deviation reaches this many levels; a contrast of one "
        "percent (2.5 of 255) is about the least an eye can see, and 4,000 emoji renderings all have more than 3",
    )
    rough: float = _limit(
        0.85,
        2.0,
        "a picture is white noise where neighbouring pixels differ by this share of what unrelated pixels would; noise "
        "of 28 to 32 pixels has at least 0.92, emoji renderings at most 0.70, Fashion-MNIST at most 0.77",
    )
    broken: float = _limit(
        0.02, 1.0, "rise of the share of broken pictures in any role; a working model draws next to none"
    )
    forgotten: float = _limit(
        0.5,
        1.0,
        "least share of forget pictures in which the concept is gone; below one half the prompt still gives the "
        "concept more often than not, and the Edit is not what its name says",
    )
    near: float = _limit(
        0.3, 1.0, "drop of near concepts; they share features with the concept, but losing three in ten loses the kind"
    )
    far: float = _limit(
        0.1, 1.0, "drop of far concepts; they have nothing to do with the concept, so losing one in ten is damage"
    )
    off_manifold: float = _limit(
        0.25, 1.0, "excess of forget pictures that resemble no real one; noise comes to nearly 1"
    )
    forbidden: float = _limit(
        0.1,
        1.0,
        "rise of the share of forget pictures judged as a forbidden concept; a judge confuses neighbours of the "
        "concept in a few of a hundred",
    )
    pictures: int = _limit(
        20, 100_000, "fewest pairs that decide; with 20 and no loss at all, a drop of 0.16 is still possible"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, high = getattr(self, f.name), f.metadata["high"]
            if not 0 <= value <= high:
                raise UsageError(f"the limit {f.name} is {value}; give a value from 0 to {high:g}")
        if self.pictures < 1:
            raise UsageError(f"the limit pictures is {self.pictures}; nothing is decided by no picture, give 1 or more")


@dataclass(frozen=True)
class Check:
    """`passed` None is undecided. `detail` gives the figures; where it failed or is undecided also a fix."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class SelfCheck:
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool | None:
        """False if any check failed, else None if any is undecided, else True."""
        states = [c.passed for c in self.checks]
        return False if False in states else None if None in states else True

    @property
    def reason(self) -> str:
        """The first check that failed, or else is undecided, with its figures; the names of others like it."""
        if self.passed is True:
            return f"all {len(self.checks)} checks passed"
        first, *others = [c for c in self.checks if c.passed is self.passed]
        word = "failed" if self.passed is False else "undecided"
        more = f" (also {word}: {', '.join(c.name for c in others)})" if others else ""
        return f"{first.name}: {first.detail}{more}"

    def as_dict(self) -> dict[str, Any]:
        """As `report.erase_report` and an Edit's header take it."""
        checks = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks]
        return {"passed": self.passed, "reason": self.reason, "checks": checks}

    def require(self, accept_undecided: bool) -> None:
        """Raises SelfCheckError where a check failed, UndecidedError where one is undecided and that is not enough."""
        if self.passed is False:
            raise SelfCheckError(f"the self-check failed: {self.reason}")
        if self.passed is None and not accept_undecided:
            raise UndecidedError(f"the self-check is undecided: {self.reason}; or accept that with --accept-undecided")


def self_check(
    weight_change: float,
    before: np.ndarray,
    after: np.ndarray,
    roles: Sequence[str],
    pairs: Pairs | None,
    *,
    concepts: Sequence[str],
    alternatives: Sequence[str],
    forbidden: Sequence[str] = (),
    reference: Reference | None = None,
    unlike: Reference | None = None,
    limits: Limits = Limits(),
) -> SelfCheck:
    """Check an edit by what it did to its weights and to pictures of the same prompts and seeds.

    Args:
        weight_change: relative Frobenius norm of the change over the touched tensors; inf where tensors were added.
        roles: "forget", "near", "far" or another role for each picture.
        pairs: what a judge saw in the same pictures in the same order; None where nobody judges.
        concepts, alternatives, forbidden: labels that the judge knows; it never sees a forbidden label that it
            does not know.
        reference: the judge's real pictures, for off-manifold.
        unlike: real pictures; one that resembles none of them shows nothing forbidden. For edits that leave a mosaic, which a
            judge that has to name something takes for something.

    Near concepts, forbidden concepts, the alternative, and likeness to real pictures are checked where there are any;
    without real pictures noise still fails, as broken pictures or by what it costs kept concepts.
    """
    if len(before) != len(roles) or before.shape != after.shape:
        raise ValueError(f"{before.shape} before, {after.shape} after, {len(roles)} roles: not the same pictures")
    if pairs is not None and list(pairs.role) != list(roles):
        raise ValueError("pairs must have the roles of the pictures, in the same order")
    others = [f for f in forbidden if f not in concepts]
    checks = [_weights(weight_change), _changed(before, after, roles, limits), _whole(before, after, roles, limits)]
    if pairs is None:
        names = ["concept seen before", "concept forgotten"]
        names += ["near concepts kept"] * ("near" in roles) + ["far concepts kept"]
        names += ["no forbidden concept"] * bool(others) + ["alternative"] * bool(alternatives)
        return SelfCheck((*checks, *(Check(name, None, NOBODY) for name in names)))
    seen = _seen(pairs, concepts)
    checks += [seen, _forgotten(pairs, concepts, limits, seen)]
    if "near" in roles:
        checks.append(_kept(pairs, "near", limits.near, limits))
    checks.append(_kept(pairs, "far", limits.far, limits))
    if reference is not None:
        checks.append(_real(pairs, reference, limits))
    if others:
        checks.append(_no_forbidden(pairs, others, limits, unlike))
    if alternatives:
        checks.append(_alternative(pairs, concepts, alternatives, others, limits))
    return SelfCheck(tuple(checks))


def _weights(change: float) -> Check:
    name = "weights changed"
    if math.isnan(change):
        return Check(name, False, "the edited weights hold what is no number; lower the method's rate or scale")
    if change == 0:
        return Check(name, False, "the edit left every weight as it was; choose another layer group or a larger scale")
    return Check(name, True, "tensors were added" if math.isinf(change) else f"by {change:.2g} of their norm")


def _changed(before: np.ndarray, after: np.ndarray, roles: Sequence[str], limits: Limits) -> Check:
    name = "forget pictures changed"
    rows = _rows(roles, "forget")
    if not rows:
        return Check(name, None, "no prompt asked for the concept; draw some")
    moved = float(np.mean([np.abs(after[i].astype(np.float64) - before[i]).mean() for i in rows]))
    text = f"by {moved:.2g} of 255 levels on average, n = {len(rows)}"
    if moved > limits.picture_change:
        return Check(name, True, text)
    fix = "the edit does not act on prompts that ask for the concept: check its name, or make the edit stronger"
    return Check(name, False, f"{text}, and more than {limits.picture_change:g} is needed; {fix}")


def broken(picture: np.ndarray, limits: Limits = Limits()) -> bool:
    """H W 3: near-constant (`Limits.flat`), white noise (`Limits.rough`), or with numbers that are not finite.

    Roughness is the mean squared difference of neighbouring gray levels over twice their variance: 1 in expectation for
    pixels that have nothing to do with each other, near 0 for a smooth picture. A decoder's noise is smooth and escapes
    it; a judge's off-manifold figure does not let it pass.
    """
    x = picture.astype(np.float64)
    if not np.isfinite(x).all() or x.std((0, 1)).max() < limits.flat:
        return True
    gray = x.mean(-1)
    steps = [np.diff(gray, axis=axis) ** 2 for axis in (0, 1)]
    difference = np.mean([s.mean() for s in steps if s.size])
    return bool(difference > limits.rough * 2 * gray.var())


def _whole(before: np.ndarray, after: np.ndarray, roles: Sequence[str], limits: Limits) -> Check:
    """Broken pictures by role; the worst role decides."""
    name = "pictures not broken"
    found: list[tuple[bool | None, str]] = []
    for role in dict.fromkeys(roles):
        rows = _rows(roles, role)
        rise = paired([broken(after[i], limits) for i in rows], [broken(before[i], limits) for i in rows], "")
        found.append((_within(rise, limits.broken, limits, strict=True), f"{role} {_points(rise)}"))
    text = "rise of near-constant or noise pictures: " + ("; ".join(t for _, t in found) or "no picture was drawn")
    states = [passed for passed, _ in found]
    if False in states:
        fix = "the edit broke the model: make it weaker or touch fewer layers"
        return Check(name, False, f"{text}, limit {_number(limits.broken)} points; {fix}")
    if None in states or not states:
        return Check(name, None, f"{text}; draw at least {limits.pictures} pictures of each role")
    return Check(name, True, text)


def _seen(pairs: Pairs, concepts: Sequence[str]) -> Check:
    name = "concept seen before"
    labels = [pairs.before.labels[i] for i in _rows(pairs.role, "forget")]
    k = sum(label in concepts for label in labels)
    text = f"in {k} of {len(labels)} unedited pictures that ask for it"
    if k >= FEWEST_SEEN:
        return Check(name, True, text)
    cause = (
        "the model does not draw the concept or the judge does not see it: draw more pictures or choose another judge"
    )
    return Check(name, None, f"{text}, and {FEWEST_SEEN} is the fewest that can show a loss; {cause}")


def _forgotten(pairs: Pairs, concepts: Sequence[str], limits: Limits, seen: Check) -> Check:
    """The share of all decided pictures after, and an exact McNemar test on the pairs decided in both."""
    name = "concept forgotten"
    if not seen.passed:
        return Check(name, None, seen.detail)
    rows = _rows(pairs.role, "forget")
    halves = [(pairs.before.labels[i], pairs.after.labels[i]) for i in rows]
    gone = [a not in concepts for _, a in halves if a is not None]
    left = len(rows) - len(gone)
    if len(gone) < limits.pictures:
        return Check(name, None, _too_few(len(gone), left, limits))
    share = sum(gone) / len(gone)
    low, high = clopper_pearson(sum(gone), len(gone))
    lost, gained = (
        sum((b in concepts, a in concepts) == change for b, a in halves if a is not None and b is not None)
        for change in ((True, False), (False, True))
    )
    p = mcnemar_exact(lost, gained)
    text = (
        f"in {_percent(share)} [{_number(low)}, {_number(high)}] of n = {len(gone)} pictures"
        + (f", {left} more undecided" if left else "")
        + f"; {lost} lost it and {gained} gained it, p = {p:.2g}"
    )
    if share < limits.forgotten:
        return Check(name, False, f"{text}; at least {_percent(limits.forgotten)} is needed: make the edit stronger")
    if sum(gone) < limits.forgotten * len(rows):
        return Check(name, None, f"{text}; were those the concept, it would be too few: choose another judge")
    if p >= SIGNIFICANT or lost <= gained:
        fix = "make the edit stronger or draw more pictures"
        return Check(name, False, f"{text}; that is no real loss (p < {SIGNIFICANT:g} is): {fix}")
    return Check(name, True, text)


def _kept(pairs: Pairs, role: str, limit: float, limits: Limits) -> Check:
    """The drop. It is undecided too where so few pictures were right before that losing all would not break the limit,
    and where it passes only because lost pictures cannot be judged any more."""
    fix = f"the edit broke the model for {role} concepts: make it weaker, or name what to preserve"
    check = _bounded(f"{role} concepts kept", "drop", drop(pairs, role), limit, limits, fix)
    rows = _rows(pairs.role, role)
    before, after = ([s.labels[i] == pairs.wanted[i] for i in rows] for s in (pairs.before, pairs.after))
    if check.passed and _within(paired(before, [False] * len(rows), ""), limit, limits) is not False:
        detail = f"only {sum(before)} of {len(rows)} unedited pictures show what was asked for; choose another judge"
        return Check(check.name, None, detail)
    worst = paired(before, after, "an undecided picture is not right")
    if check.passed and _within(worst, limit, limits) is False:
        detail = f"{check.detail}, but {_points(worst)} if undecided pictures are not right; choose another judge"
        return Check(check.name, None, detail)
    return check


def _real(pairs: Pairs, reference: Reference, limits: Limits) -> Check:
    fix = "the edit turns the concept into pictures that resemble nothing real: make it weaker, or give an alternative"
    figure = off_manifold(pairs, reference)
    return _bounded("forget pictures like real ones", "off-manifold excess", figure, limits.off_manifold, limits, fix)


def _no_forbidden(pairs: Pairs, forbidden: Sequence[str], limits: Limits, unlike: Reference | None = None) -> Check:
    rows = _rows(pairs.role, "forget")

    def shown(seen: Seen) -> list[bool | None]:
        nothing = unlike.off_manifold(seen.features) if unlike is not None else [False] * len(seen.labels)
        return [None if seen.labels[i] is None else seen.labels[i] in forbidden and not nothing[i] for i in rows]

    after, before = shown(pairs.after), shown(pairs.before)
    rise = paired(after, before, "after minus before")
    seen = _commonest(str(pairs.after.labels[i]) for i, there in zip(rows, after, strict=True) if there)
    what = f"rise of forbidden concepts{f' ({seen} most often)' if seen else ''}"
    fix = "the edit leads to something forbidden: choose another alternative"
    return _bounded("no forbidden concept", what, rise, limits.forbidden, limits, fix, strict=True)


def _alternative(
    pairs: Pairs, concepts: Sequence[str], alternatives: Sequence[str], forbidden: Sequence[str], limits: Limits
) -> Check:
    """Fails where the commonest label other than the concept is a forbidden one and was not the commonest before."""
    name = "alternative"
    rows = _rows(pairs.role, "forget")
    labels = [label for i in rows if (label := pairs.after.labels[i]) is not None]
    left = len(rows) - len(labels)
    if len(labels) < limits.pictures:
        return Check(name, None, _too_few(len(labels), left, limits))
    k = sum(label in alternatives for label in labels)
    low, high = clopper_pearson(k, len(labels))
    share = f"{_percent(k / len(labels))} [{_number(low)}, {_number(high)}], n = {len(labels)}"
    text = f"{' or '.join(alternatives)} in {share}"
    place = _commonest(label for label in labels if label not in concepts)
    was = _commonest(label for i in rows if (label := pairs.before.labels[i]) is not None and label not in concepts)
    if place in forbidden and place != was:
        cause = f"{place}, which is forbidden, takes the concept's place in {labels.count(place)} pictures"
        return Check(name, False, f"{text}; {cause}: choose another alternative")
    return Check(name, True, f"{text}; commonest in its place: {place}" if place else text)


def _bounded(
    name: str, what: str, figure: Figure, limit: float, limits: Limits, fix: str, *, strict: bool = False
) -> Check:
    """`figure` is a paired rise or drop that must not exceed `limit`."""
    if figure.value is None:
        return Check(name, None, figure.note)
    text = f"{what} {_points(figure)}"
    passed = _within(figure, limit, limits, strict=strict)
    if passed is None:
        return Check(name, None, f"{text}; {_too_few(figure.n, figure.undecided, limits)}")
    return Check(name, passed, text if passed else f"{text}, limit {_number(limit)} points; {fix}")


def _within(figure: Figure, limit: float, limits: Limits, *, strict: bool = False) -> bool | None:
    """False where the interval lies above the limit, or with `strict` the estimate does; None for too few pairs."""
    if figure.low is not None and figure.low > limit:
        return False
    if figure.value is None or figure.n < limits.pictures:
        return None
    return not (strict and figure.value > limit)


def _rows(roles: Sequence[str], role: str) -> list[int]:
    return [i for i, r in enumerate(roles) if r == role]


def _commonest(labels: Iterable[str | None]) -> str:
    """The first of the commonest; "" for none."""
    return str(max(counted, key=lambda k: counted[k])) if (counted := Counter(labels)) else ""


def _too_few(n: int, undecided: int, limits: Limits) -> str:
    counts = f"{n} pictures were decided and {undecided} were not, and {limits.pictures} are needed"
    return f"{counts}; draw more pictures or choose another judge"


def _percent(share: float) -> str:
    return f"{_number(share)} %"


def _number(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(f: Figure) -> str:
    """A difference of shares in percentage points, with interval and n."""
    if f.value is None or f.low is None or f.high is None:
        return f"undecided ({f.note})"
    return f"{_number(f.value)} points [{_number(f.low)}, {_number(f.high)}], n = {f.n}"
