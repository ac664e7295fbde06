"""The vote of several annotators: a quorum of them, or Dawid and Skene's model of who errs how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scotoma.dialogue.asking import ballots, positive_share
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item, Label, Vote
from scotoma.errors import UsageError

Tie = Literal["undecided", "positive", "negative"]
Aggregate = Literal["quorum", "dawid-skene"]
_DUST = 1e-9  # weights that add up to a quorum but for rounding are one


def vote(
    items: Sequence[Item],
    votes: Sequence[Vote],
    guideline: Guideline,
    *,
    quorum: int = 3,
    fewer: bool = True,
    tie: Tie = "undecided",
    weights: Mapping[str, float] | None = None,
    soft: bool = True,
    aggregate: Aggregate = "quorum",
) -> list[Label]:
    """One Label for each item, in order, from the votes of stage "vote" (brief, section 2).

    y = positive if #positive >= quorum, negative if #negative >= quorum, else "": an item for `fill`. With `fewer`, an item
    that fewer than 2 quorum - 1 annotators were asked about needs a strict majority of them instead, floor(asked / 2) + 1;
    without, the quorum stands. A refusal, an unparsable answer and a failed call are asked and count for neither label.
    `tie` decides where both labels have the same votes, one at least, and either neither reaches the quorum or both do; what
    nobody labelled is never decided by it. `weights` by annotator count votes, scaled so that those who were asked about an
    item weigh 1 on average (an annotator that is not named weighs 1).

    The soft label is the (weighted) mean over those who gave a label of their probability of the positive one, where an
    annotator knows it, else of 1 or 0: without any probabilities the share of votes. It is kept where the vote is undecided,
    and None where nobody gave a label.

    `aggregate` "dawid-skene" takes the model's posterior instead: positive above 1/2, negative below, `tie` at 1/2. Quorum and
    weights do not enter it, since it finds out itself how much each annotator counts. Raises UsageError for settings that make
    no sense.
    """
    if quorum < 1:
        raise UsageError(f"the quorum must be 1 or more, got {quorum}")
    if tie not in ("undecided", "positive", "negative"):
        raise UsageError(f"tie must be undecided, positive or negative, got {tie!r}")
    if weights and any(not 0 <= w < float("inf") for w in weights.values()):
        raise UsageError("weights must be finite and not below 0")
    told = ballots(votes, guideline)
    if aggregate == "dawid-skene":
        if weights:
            raise UsageError("dawid-skene finds the weight of each annotator itself; give no weights")
        model = dawid_skene({item.id: told.get(item.id, {}) for item in items}, guideline)
        return [_posterior(item.id, told.get(item.id, {}), model, guideline, tie, soft) for item in items]
    if aggregate != "quorum":
        raise UsageError(f"aggregate must be quorum or dawid-skene, got {aggregate!r}")
    return [
        _counted(item.id, told.get(item.id, {}), guideline, quorum, fewer, tie, weights or {}, soft) for item in items
    ]


def _counted(
    item: str,
    answers: Mapping[str, Answer],
    guideline: Guideline,
    quorum: int,
    fewer: bool,
    tie: Tie,
    weights: Mapping[str, float],
    soft: bool,
) -> Label:
    asked = len(answers)
    if not asked:
        return Label(item, "", "vote", reason="nobody was asked")
    total = sum(weights.get(name, 1.0) for name in answers)
    each = {name: weights.get(name, 1.0) * asked / total if total else 0.0 for name in answers}
    weight = {w: sum(each[name] for name, a in answers.items() if a.label == w) for w in guideline.labels}
    votes = {w: sum(a.label == w for a in answers.values()) for w in guideline.labels}
    given = weight[guideline.positive] + weight[guideline.negative]
    probability = None
    if soft and given:
        probability = sum(each[n] * positive_share(a, guideline) for n, a in answers.items() if a.label) / given
    needed = min(quorum, asked // 2 + 1) if fewer else quorum
    reached = [w for w in guideline.labels if weight[w] >= needed - _DUST]
    none = asked - sum(votes.values())
    how = f"{votes[guideline.positive]} to {votes[guideline.negative]}" + (f", {none} gave no label" if none else "")
    if len(reached) == 1:
        return Label(item, reached[0], "vote", probability, how)
    if given and abs(weight[guideline.positive] - weight[guideline.negative]) <= _DUST:
        return Label(item, _by(tie, guideline), "vote", probability, f"tie, {how}")
    if not given:
        return Label(item, "", "vote", probability, f"no label among {asked} answers")
    if reached:  # both, unequal: more than twice the quorum were asked
        return Label(item, max(reached, key=lambda w: weight[w]), "vote", probability, how)
    return Label(item, "", "vote", probability, f"no quorum of {needed}, {how}")


def _by(tie: Tie, guideline: Guideline) -> str:
    return {"undecided": "", "positive": guideline.positive, "negative": guideline.negative}[tie]


@dataclass(frozen=True)
class DawidSkene:
    """`posterior` of the positive label by item, of those with a vote; `confusion` by annotator: [true][given], each row adding
    up to 1, 0 the negative label and 1 the positive one; `prevalence` of the positive one."""

    posterior: Mapping[str, float]
    confusion: Mapping[str, tuple[tuple[float, float], tuple[float, float]]]
    prevalence: float
    rounds: int
    settled: bool


def dawid_skene(
    answers: Mapping[str, Mapping[str, Answer]],
    guideline: Guideline,
    *,
    rounds: int = 200,
    tolerance: float = 1e-6,
    smoothing: float = 0.5,
) -> DawidSkene:
    """Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics 28,
    1979, for two classes. `answers`: item -> annotator -> answer; only labels count.

    E: T_i(j) ~ p_j prod_k pi^k_j,l(k,i) (their 2.5). M: p_j = mean_i T_i(j), pi^k_jl = sum_i T_i(j) n^k_il, rows scaled to 1
    (2.3, 2.4). Begins at the shares of votes, so that the majority is taken to be right more often than not, and draws nothing
    at random. A departure: `smoothing` is added to each count of pi, since with few items an annotator without an error would
    overrule all others for ever; 0 is the paper's. A row of pi that nothing is known of is (1/2, 1/2). Annotators are taken as
    independent given the truth; models of one family are not, and are then believed too much. Ends when no posterior moves
    by more than `tolerance`, or after `rounds`.
    """
    items = [i for i, given in answers.items() if any(a.label for a in given.values())]
    names = sorted({n for i in items for n, a in answers[i].items() if a.label})
    said = np.full((len(items), len(names)), -1)  # I K: the class that was given, -1 for none
    for r, item in enumerate(items):
        for k, name in enumerate(names):
            if name in answers[item] and answers[item][name].label:
                said[r, k] = answers[item][name].label == guideline.positive
    if not items:
        return DawidSkene({}, {}, float("nan"), 0, True)
    n = np.stack([said == 0, said == 1], axis=-1).astype(float)  # I K L
    t = n.sum(1) / n.sum((1, 2))[:, None]  # I J
    p, pi, done, settled = t.mean(0), np.full((len(names), 2, 2), 0.5), 0, False
    while done < rounds and not settled:
        p = t.mean(0)
        counts = np.einsum("ij,ikl->kjl", t, n) + smoothing
        sums = counts.sum(-1, keepdims=True)
        pi = np.divide(counts, sums, out=np.full_like(counts, 0.5), where=sums > 0)
        likely = np.where(n[:, :, None, :] > 0, pi[None], 1.0).prod((1, 3)) * p  # I J
        new = likely / likely.sum(1, keepdims=True)
        done, settled = done + 1, bool(np.abs(new - t).max() <= tolerance)
        t = new
    confusion = {
        name: ((float(m[0, 0]), float(m[0, 1])), (float(m[1, 0]), float(m[1, 1])))
        for name, m in zip(names, pi, strict=True)
    }
    return DawidSkene({i: float(x) for i, x in zip(items, t[:, 1], strict=True)}, confusion, float(p[1]), done, settled)


def _posterior(
    item: str, answers: Mapping[str, Answer], model: DawidSkene, guideline: Guideline, tie: Tie, soft: bool
) -> Label:
    if item not in model.posterior:
        return Label(
            item, "", "vote", reason=f"no label among {len(answers)} answers" if answers else "nobody was asked"
        )
    p = model.posterior[item]
    even = abs(p - 0.5) <= _DUST
    label = _by(tie, guideline) if even else guideline.positive if p > 0.5 else guideline.negative
    return Label(item, label, "vote", p if soft else None, f"dawid-skene {p:.3f}{', tie' if even else ''}")
