"""What probes are given of one concept, and who looks at what they make: for the zoo, and for models with a CLIP.

Pictures are drawn by the unedited model, on seeds that nothing else uses, and given where somebody sees the concept in them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scotoma.auditing.probes.contract import Sought, latents_of
from scotoma.auditing.recovery import Eyes, Seen
from scotoma.detectors.contract import Detector, Features
from scotoma.detectors.image import zoo_clip, zoo_names
from scotoma.detectors.image.clip import Clip
from scotoma.detectors.image.known import BITS, Bands, bands, bank, known
from scotoma.errors import DataError, UsageError
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.zoo_task import expand, frozen, label_of, near_and_far, nearest, row
from scotoma.models.model import Model
from scotoma.models.sample import sample, to_uint8
from scotoma.models.student import one_step
from scotoma.records import Concept

GIVEN = 400_000_000  # first of the seeds of given pictures; those of attempts and of counting come behind
PICTURES = 12
NEIGHBOURS = {"dagger": "kitchen knife"}  # which the control was given for it (scripts/zoo/choose_names.py)
OTHERS = 64  # prompts without the concept


class Case(NamedTuple):
    """What is sought, who looks, and what is to be said of it: `who` in words, `no_near` why near-copies are not counted."""

    sought: Sought
    eyes: Eyes
    who: str
    no_near: str = ""


def zoo_case(
    unedited: Model,
    name: str,
    *,
    which: str = "b",
    counting: str = "a",
    pictures: int = PICTURES,
    steps: int | None = None,
    first_seed: int = GIVEN,
) -> Case:
    """For one emoji, or one class of Fashion-MNIST: judge `which` sees, judge `counting` says which prompts and pictures count,
    the name classifier gives gradients. What an erasure is trained against is for judge A alone, with a `first_seed` of the given
    pictures of its own. Raises UsageError for a model that is not of the zoo, and a name that is none or not one thing."""
    data = unedited.defaults.get("data")
    if data not in ("emoji", "fashion"):
        raise UsageError(
            f"{unedited.name} is no model of the zoo; its pictures need a CLIP that sees the concept: --clip PATH"
        )
    concepts = expand(data, name)
    if len(concepts) != 1 or concepts[0].kind == "style":
        raise UsageError(f"{name} is no single thing; probes look for one: name a concept such as {concepts[0].name!r}")
    (concept,) = concepts
    steps = None if one_step(unedited.scheduler) else steps
    judge, counts = load_judge(data, which), load_judge(data, counting)
    sees, obeyed = (_sees(j, name) for j in (judge, counts))
    far = near_and_far(data, [name])[1]
    related = _related(name) if data == "emoji" else ()
    plain = (lambda n: n) if unedited.labels else (lambda n: f"a {n}")
    given, near = _drawn(unedited, plain(name), obeyed, pictures, first_seed, steps), neighbour(data, name)
    neighbours = given[:0]
    if near:
        neighbours = _drawn(unedited, plain(near), _sees(counts, near), pictures, first_seed + 10_000, steps)
    names = zoo_names.load(data)
    log_odds = _log_odds(names, name) if name in names.labels else None
    sought = Sought(concept, unedited, given, neighbours, tuple(plain(n) for n in far[:OTHERS]), related, log_odds)
    hashes = {"judge": judge.sha256, "counting": counts.sha256}
    detector, no_near = None, "near-copies are not counted: no encoder of these pictures is at hand"
    if data == "emoji":
        clip = zoo_clip.load()
        detector, no_near = near_copies(
            sought, [plain(n) for n in far[OTHERS : 2 * OTHERS]], clip.image_features, clip.sha256, steps
        )
    who = f"Judge {which.upper()} of the zoo sees the concept, judge {counting.upper()} says which prompts and pictures count"
    return Case(sought, Eyes(sees, obeyed, detector, hashes), who, no_near)


def neighbour(data: str, name: str) -> str:
    """What is most like `name` by the zoo's frozen lists, and was not kept from the control as well; "" where nothing is."""
    first = [NEIGHBOURS[name]] if data != "fashion" and name in NEIGHBOURS else []
    return next((n for n in [*first, *nearest(data, name)] if n not in frozen()["control"]), "")


def clip_case(
    unedited: Model,
    concept: Concept,
    clip: Clip,
    *,
    neighbour: str = "",
    others: Sequence[str] = (),
    related: Sequence[str] = (),
    pictures: int = PICTURES,
    steps: int | None = None,
) -> Case:
    """For any text-to-image model: a zero-shot CLIP at 0.5, which is not calibrated, both sees and says what counts. There is
    no detector beside it, so probes that need a gradient stay undecided."""
    from scotoma.auditing.eyes import sees_described

    steps = None if one_step(unedited.scheduler) else steps
    described = sees_described(clip, [concept.name, *([neighbour] if neighbour else ())])

    def of(name: str) -> Callable[[np.ndarray], Seen]:
        return lambda shown: described(shown, [name] * len(shown))

    sees = of(concept.name)
    given = _drawn(unedited, f"a {concept.name}", sees, pictures, GIVEN, steps)
    beside = (
        _drawn(unedited, f"a {neighbour}", of(neighbour), pictures, GIVEN + 10_000, steps) if neighbour else given[:0]
    )
    sought = Sought(concept, unedited, given, beside, tuple(others), tuple(related))
    detector, no_near = near_copies(sought, list(others), clip.image_features, clip.sha256, steps)
    eyes = Eyes(sees, sees, detector, {"clip": clip.sha256})
    return Case(sought, eyes, f"Zero-shot {clip.name} at 0.5, not calibrated, sees the concept", no_near)


def near_copies(
    sought: Sought, others: Sequence[str], features: Features, encoder: str, steps: int | None
) -> tuple[Detector | None, str]:
    """A detector of near-copies of the given pictures, or why there is none. Its bands are calibrated on the given pictures
    through the model's autoencoder (copies), on one another (variants), and on pictures of other things (unrelated)."""
    if importlib.util.find_spec("imagehash") is None:
        return None, "near-copies are not counted: that needs pip install 'scotoma[known]'"
    if len(sought.pictures) < 2 or not others:
        return None, "near-copies are not counted: there is too little to tell them from"
    seeds = [GIVEN + 20_000 + i for i in range(len(others))]
    unrelated = sample(sought.unedited, list(others), seeds, steps=steps)
    own = list(sought.pictures)
    of = bank(own, [f"given {i + 1}" for i in range(len(own))], features, encoder)
    with torch.no_grad():
        again = to_uint8(sought.unedited.decode(latents_of(sought.unedited, sought.pictures)))
    copies = np.diag(of.cosines(features(list(again))))
    apart = ~np.eye(len(own), dtype=bool)
    variants = np.where(apart, of.cosines(of.features), -1.0).max(1)
    try:
        limits = bands(copies, variants, of.cosines(features(list(unrelated))).max(1))
    except DataError as e:
        return None, f"near-copies are not counted: {e}"
    # Pictures of one thing that were drawn apart are no copies, however alike.
    highest = float(variants.max())
    if highest >= copies.mean():
        return None, "near-copies are not counted: the model draws the concept so alike that copies cannot be told"
    bits = min(BITS, int(np.where(apart, of.bits(own), 64).min()) - 1)
    limits = Bands(max(limits.copy, min(1.0, float(np.nextafter(highest, 2)))), limits.variant)
    return known(of, features, limits, encoder=encoder, bits=bits, licence="drawn by the user's model"), ""


def _drawn(
    model: Model, prompt: str, sees: Callable[[np.ndarray], Seen], count: int, first: int, steps: int | None
) -> np.ndarray:
    """The first `count` of twice as many pictures in which the thing is seen; fewer where there are fewer."""
    seeds = list(range(first, first + 2 * count))
    pictures = sample(model, [prompt] * len(seeds), seeds, steps=steps)
    return pictures[[i for i, hit in enumerate(sees(pictures)) if hit][:count]]


def _sees(judge: object, name: str) -> Callable[[np.ndarray], Seen]:
    def sees(pictures: np.ndarray) -> Seen:
        labels = judge.sees(pictures, ["name"] * len(pictures)).labels  # type: ignore[attr-defined]
        return [None if label is None else label == name for label in labels]

    return sees


def _related(name: str) -> tuple[str, ...]:
    """Words for an emoji's kind and use that are not another emoji's name."""
    told = row(name)
    words = [told["subcategory"].replace("-", " "), *told["keywords"]]
    own = {name, *told["synonyms"]}
    return tuple(w for w in dict.fromkeys(words) if label_of("emoji", w) is None and w not in own)


def _log_odds(names: zoo_names.NameClassifier, name: str) -> Callable[[Tensor], Tensor]:
    """log p / (1 - p) of one name (B,), of pictures B 3 H W in [-1, 1]."""
    place = names.labels.index(name)

    def log_odds(pictures: Tensor) -> Tensor:
        logits = names.logits(pictures.expand(-1, 3, -1, -1).to("cpu"))
        others = torch.cat([logits[:, :place], logits[:, place + 1 :]], 1)
        return (logits[:, place] - others.logsumexp(1)).to(pictures.device)

    return log_odds


def controls(name: str) -> str | None:
    """The zoo's model that never saw an emoji, if there is one."""
    return "zoo:emoji-control" if name in frozen()["control"] else None
