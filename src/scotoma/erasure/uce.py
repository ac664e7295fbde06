"""Unified Concept Editing: cross-attention keys and values edited in closed form.

Gandikota, Orgad, Belinkov, Materzynska, Bau: "Unified Concept Editing in Diffusion Models", WACV 2024
(arXiv 2308.14761). Followed for defaults and token rules: github.com/rohitgandikota/unified-concept-editing at 4502388,
trainscripts/uce_sd_erase.py ("last") and at 18287f6, train-scripts/train_erase.py ("all").

Notation: d width of the text states that enter cross-attention, n columns in all, e of them edited, W (out, d) a key or
value projection. C (d, n) holds text states c_i as columns, G (d, n) what each should act like, s (n,) their scales.

    min over W'   sum_i s_i |W' c_i - W g_i|^2 + lam |W' - W|^2                                          (paper, Eq. 7)

Setting the gradient to zero gives  W' (C S C^T + lam I) = W (G S C^T + lam I),  and with W (C S C^T + lam I) taken from
both sides

    W' = W + W (G - C) X,     X = S C^T (C S C^T + lam I)^-1                                              (1)
                                = (C^T C + lam S^-1)^-1 C^T                                               (2)

since  C^T (C S C^T + lam I) = S^-1 S (C^T C + lam S^-1) S C^T.  X is the same for every layer, (2) needs an n x n
system only (Woodbury), and where G = C (preserved concepts) a column of G - C is zero, so that only the e edited rows
of X remain: the edit is exactly of rank e. With X^T = Q R the stored factors are

    right = Q^T (e, d), orthonormal rows,      left = W M (out, e),   M = (G - C) R^T (d, e)              (3)

in which nothing cancels when they are multiplied, so that single precision is enough for left and right.

Departures: debiasing takes its weights as given and does not iterate on measured ratios; scales apply per column, so
several templates weigh more than one unless they are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from scotoma.bounds import check_concepts, check_text
from scotoma.erasure.edit import Edit
from scotoma.errors import ModelError, UsageError
from scotoma.models.layers import select
from scotoma.models.model import Model
from scotoma.records import Concept

ENCODE_BATCH = 32
FIELD = "{}"  # where a template takes the concept


@dataclass(frozen=True)
class UCEConfig:
    """What `run` may be told. Every field has its help in its metadata."""

    templates: tuple[str, ...] = field(
        default=(FIELD,),  # the published script edits the bare phrase
        metadata={"help": "prompts in which the concept is edited, each with {} for the concept"},
    )
    average: bool = field(
        default=False, metadata={"help": "average a concept's states over the templates instead of editing each"}
    )
    tokens: Literal["last", "all"] = field(
        default="last",  # uce_sd_erase.py; "all" is train_erase.py
        metadata={
            "help": "last: the last token of the concept's phrase; all: that token and every position after it, end "
            "and padding included"
        },
    )
    preserve: tuple[str, ...] = field(default=(), metadata={"help": "concepts whose keys and values stay as they are"})
    erase_scale: float = field(
        default=1.0,  # uce_sd_erase.py --erase_scale
        metadata={"help": "weight of every edited column, above 0"},
    )
    preserve_scale: float = field(
        default=1.0,  # uce_sd_erase.py --preserve_scale
        metadata={"help": "weight of every preserved column, 0 or more"},
    )
    lam: float = field(
        default=0.5,  # uce_sd_erase.py --lamb
        metadata={"help": "weight of staying near the old weights, above 0; larger changes less"},
    )
    debias: tuple[str, ...] = field(
        default=(), metadata={"help": "phrases that are mixed into every concept instead of replacing it"}
    )
    debias_weights: tuple[float, ...] = field(
        default=(), metadata={"help": "weight of each phrase of debias; empty: equal weights that sum to 1"}
    )
    debias_keep: float = field(
        default=1.0,  # uce_sd_debias.py starts its target from the concept itself
        metadata={"help": "how much of the concept itself stays in the mixture of debias; 0: the phrases alone"},
    )

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, need: str) -> None:
            if not condition:
                raise UsageError(f"uce: {name} must be {need}, got {getattr(self, name)!r}")

        require(
            len(self.templates) > 0 and all(t.count(FIELD) == 1 for t in self.templates),
            "templates",
            "texts with one {} each",
        )
        require(self.tokens in ("last", "all"), "tokens", "'last' or 'all'")
        require(0 < self.erase_scale < float("inf"), "erase_scale", "above 0")
        require(0 <= self.preserve_scale < float("inf"), "preserve_scale", "0 or more")
        require(0 < self.lam < float("inf"), "lam", "above 0")
        for name in ("preserve", "debias"):
            require(all(phrase.strip() for phrase in getattr(self, name)), name, "phrases that are not empty")
        require(
            len(self.debias_weights) in (0, len(self.debias))
            and all(abs(w) < float("inf") for w in self.debias_weights),
            "debias_weights",
            "one number for each phrase of debias",
        )
        require(0 <= self.debias_keep < float("inf"), "debias_keep", "0 or more")


class Columns(NamedTuple):
    """Edited columns: `concept` C and `target` G, (d, e) each, and preserved ones `kept`, (d, n - e); float64."""

    concept: Tensor
    target: Tensor
    kept: Tensor


class Factors(NamedTuple):
    """`right` (r, d) with orthonormal rows and `inner` M (d, r), r = min(e, d); float64. dW = W M right."""

    inner: Tensor
    right: Tensor


def shared_factors(columns: Columns, *, erase_scale: float, preserve_scale: float, lam: float) -> Factors:
    """M and right of (3), the same for every layer, in float64.

    Solves (2), of size n, where n <= d, and (1), of size d, where there are more columns than that.
    """
    concept, target, kept = (part.double() for part in columns)
    d, e = concept.shape
    if preserve_scale == 0:
        kept = kept[:, :0]
    c = torch.cat([concept, kept], dim=1)  # (d, n)
    scales = torch.full((c.shape[1],), float(erase_scale), dtype=torch.float64, device=c.device)
    scales[e:] = preserve_scale
    if c.shape[1] <= d:
        system = c.T @ c  # (n, n)
        system.diagonal().add_(lam / scales)
        unit = torch.eye(c.shape[1], e, dtype=torch.float64, device=c.device)
        x = (c @ torch.cholesky_solve(unit, torch.linalg.cholesky(system))).T  # (e, d), the edited rows of (2)
    else:
        system = (c * scales) @ c.T  # (d, d)
        system.diagonal().add_(lam)
        x = torch.cholesky_solve(concept * erase_scale, torch.linalg.cholesky(system)).T  # (e, d), those of (1)
    q, r = torch.linalg.qr(x.T)  # (d, r), (r, e)
    return Factors((target - concept) @ r.T, q.T.contiguous())


def left_factor(weight: Tensor, factors: Factors) -> Tensor:
    """left = W M (out, r), in the floating type of W, at least float32."""
    weight = weight.detach()
    dtype = weight.dtype if weight.dtype in (torch.float32, torch.float64) else torch.float32
    return weight.to(dtype) @ factors.inner.to(weight.device, dtype)


# ---------------------------------------------------------------------------------------------- from phrases to columns


class Spot(NamedTuple):
    """A text and the position of the last token of the phrase in it; None: taken from the text it stands in for."""

    text: str
    position: int | None


def last_token(model: Model, text: str, end: int) -> int:
    """Position in the encoded text of the token that ends at character `end` of `text`, begin mark counted.

    Raises UsageError where the phrase is cut off or a token runs over its end, ModelError where tokenizers disagree.
    """
    places = set()
    for tokenizer in model.tokenizers:
        whole = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
        before = tokenizer(text[:end]).input_ids
        if before and before[-1] == tokenizer.eos_token_id:
            before = before[:-1]
        if not before or whole[: len(before)] != before:
            raise UsageError(
                f"{text[:end]!r} does not end at a token of {text!r}, or is longer than the model reads; put a space "
                f"after the concept in the template, or shorten it"
            )
        places.add(len(before) - 1)
    if len(places) != 1:
        raise ModelError(f"the tokenizers of {model.name} cut {text!r} differently; UCE needs them to agree")
    return places.pop()


def spot(model: Model, template: str, phrase: str) -> Spot:
    """Where `phrase` ends in `template`; the empty phrase is the empty prompt, at the position it stands in for."""
    phrase = phrase.strip()
    if not phrase:
        return Spot("", None)
    start = template.index(FIELD)
    text = template.replace(FIELD, phrase)
    return Spot(text, last_token(model, text, start + len(phrase)))


def gather(model: Model, concepts: Sequence[str], instead: Sequence[str], config: UCEConfig) -> Columns:
    """Text states as columns, by the token rule of `config`.

    "last" takes the last token of the phrase. "all" also takes every later position, concept and target aligned at the
    last tokens of their phrases and both cut to the shorter: in a causal text encoder these are the positions that have
    seen the phrase. For SDXL a state is that of both encoders, joined, so both are covered.
    """
    texts = {""}
    wanted: list[tuple[Spot, list[tuple[float, Spot]]]] = []  # the concept, and its target as a weighted sum
    weights = config.debias_weights or (1 / max(1, len(config.debias)),) * len(config.debias)
    pairs = [(concept, replacement) for concept, replacement in zip(concepts, instead, strict=True)]
    edited_per_concept = len(config.templates)
    for concept, replacement in pairs:
        for template in config.templates:
            here = spot(model, template, concept)
            if config.debias:
                mixture = [(w, spot(model, template, p)) for w, p in zip(weights, config.debias, strict=True)]
                target = [(config.debias_keep, here), *mixture]
            else:
                target = [(1.0, spot(model, template, replacement))]
            wanted.append((here, target))
    kept_spots = [spot(model, template, phrase) for phrase in config.preserve for template in config.templates]
    for here, target in wanted:
        texts |= {here.text} | {s.text for _, s in target}
    states = _encode(model, sorted(texts | {s.text for s in kept_spots}))
    length = next(iter(states.values())).shape[0]

    def rows(place: Spot, at: int, count: int) -> Tensor:
        start = at if place.position is None else place.position
        return states[place.text][start : start + count]

    def span(places: Sequence[Spot], at: int) -> int:
        if config.tokens == "last":
            return 1
        return length - max(at if p.position is None else p.position for p in places)

    edited: list[tuple[Tensor, Tensor]] = []  # (positions, d) each
    for here, target in wanted:
        at = here.position or 0
        count = span([here, *(s for _, s in target)], at)
        goal = torch.stack([weight * rows(s, at, count) for weight, s in target]).sum(0)
        edited.append((rows(here, at, count), goal))
    kept = [rows(s, s.position or 0, span([s], s.position or 0)) for s in kept_spots]
    if config.average:
        edited = [
            (_mean([c for c, _ in group]), _mean([g for _, g in group]))
            for group in _groups(edited, edited_per_concept)
        ]
        kept = [_mean(group) for group in _groups(kept, edited_per_concept)]
    empty = edited[0][0][:0]
    return Columns(
        torch.cat([c for c, _ in edited]).T, torch.cat([g for _, g in edited]).T, torch.cat([empty, *kept]).T
    )


def _groups(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _mean(rows: Sequence[Tensor]) -> Tensor:
    """Over templates, which may leave different numbers of positions: the first of each, as many as all have."""
    count = min(len(r) for r in rows)
    return torch.stack([r[:count] for r in rows]).mean(0)


def _encode(model: Model, texts: Sequence[str]) -> dict[str, Tensor]:
    """Text to its states (L, d), float64, as they enter cross-attention."""
    states: dict[str, Tensor] = {}
    for i in range(0, len(texts), ENCODE_BATCH):
        batch = list(texts[i : i + ENCODE_BATCH])
        encoded = model.encode(batch).text
        if encoded is None:
            raise UsageError(f"{model.name} takes no text, and UCE edits where text enters; choose another method")
        states.update(zip(batch, encoded.double(), strict=True))
    return states


# -------------------------------------------------------------------------------------------------------------- the run


def run(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: UCEConfig,
    *,
    seed: int = 0,
    observe: Callable[[int, Model], Mapping[str, float]] | None = None,
    folder: Path | None = None,
) -> Edit:
    """The Edit that maps each concept to its alternative ("" is the empty prompt). `model` is not changed.

    Nothing is random: `seed` is recorded. `observe` is called once, at step 1, with an edited copy; `folder` is not
    needed, since there is nothing to resume. Preserved phrases that are also erased would cancel the edit and are
    refused. Raises UsageError, BoundsError, EmptyLayerGroupError for a model without cross-attention, and what
    Edit.create raises.
    """
    names = [c.name.strip() for c in concepts]
    if not names or not all(names):
        raise UsageError("uce: name at least one concept to erase")
    if len(instead) not in (1, len(names)):
        raise UsageError(f"uce: give one alternative, or one for each of {len(names)} concepts, not {len(instead)}")
    alternatives = [a.strip() for a in (instead if len(instead) == len(names) else list(instead) * len(names))]
    if config.debias and any(alternatives):
        raise UsageError("uce: debias mixes phrases into the concept and takes no alternative; leave one of them out")
    both = {p.strip().casefold() for p in config.preserve} & {n.casefold() for n in names}
    if both:
        raise UsageError(f"uce: {', '.join(sorted(both))} is both erased and preserved; take it out of one list")
    for what, phrases in {
        "concept": names,
        "alternative": alternatives,
        "preserve": config.preserve,
        "debias": config.debias,
    }.items():
        for phrase in phrases:
            for template in config.templates:
                check_text(template.replace(FIELD, phrase), what=f"uce {what} {phrase!r}")

    check_concepts(concepts, alternatives)
    for concept in concepts:
        for name in (concept.name, *concept.synonyms):
            check_text(" ".join((name, *config.debias)), what=f"uce concept {name!r} mixed with {config.debias}")

    projections = select(model.unet, "xattn-kv")
    columns = gather(model, names, alternatives, config)
    if torch.equal(columns.concept, columns.target):
        raise UsageError(
            "uce: concept and alternative have the same text states, so nothing would change; choose another"
        )
    factors = shared_factors(
        columns, erase_scale=config.erase_scale, preserve_scale=config.preserve_scale, lam=config.lam
    )
    right = factors.right.float()
    edit = Edit.create(
        model,
        method="uce",
        config=config,
        concepts=concepts,
        instead=alternatives,
        seed=seed,
        lowrank={f"unet.{name}": (left_factor(w, factors).float(), right) for name, w in projections.items()},
    )
    if observe is not None:
        figures: Mapping[str, Any] = observe(1, edit.apply(model))
        edit = edit.with_figures({"curve": [{"step": 1, **figures}]})
    return edit
