"""The published CensorChat classifier, from the user's own copy of `qiuhuachuan/NSFW-detector` (MIT).

Qiu et al., arXiv 2309.09749 (withdrawn) and 2403.13250. A bert-base-cased with dropout and a linear layer to two logits on the
raw last state of [CLS]; label 0 is the unsafe one, label 1 the normal one (brief, sections 5, 7, 8). Two revisions of one file
name, told apart by nothing in it, so that the user says which one it is:

    revision   uploaded       labels                       speakers
    2023       25 Sep 2023    NSFW / SFW, a mixed bag      [user], [bot]
    2024        3 Apr 2024    pornographic / normal        [user], [chatbot]

    [CLS] text [SEP]    or    [CLS] [user] turn [SEP] [bot] response [SEP],    all of segment 0

The speakers' ids are those of [unused1] and [unused2]; the published code renames the words of the vocabulary in memory, and
its README applies the 2023 names to the 2024 weights. Here ids are built from segments, so nobody can type them. Only the turn
before the response is shown, as in training, and as the user's. p(unsafe) = softmax(logits)[0] = sigmoid(logit 0 - logit 1).

Not checked on the real file, which we do not have: that its keys are `bert.*`, `classifier.weight` and `classifier.bias` (they
are what the training code of 2023 saves), that the 2024 file has the same layout, and any score. Departures: beyond 512 tokens
the published code drops the end of the response; here context goes first, then the middle of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.text import encoder
from scotoma.detectors.text.runs import torch_run
from scotoma.detectors.text.segments import LONGEST, Segments, ends, refuse_injection
from scotoma.errors import ModelError, UnsafeFileError, UsageError
from scotoma.records import Exchange, Turn
from scotoma.weights.folders import PICKLES, quiet, read_json
from scotoma.weights.hashing import hash_tensors

UNSAFE, NORMAL = 0, 1  # rows of the published classifier
UNUSED = ("[unused1]", "[unused2]")  # user, chatbot
CLASSIFIER = "classifier"


@dataclass(frozen=True)
class Revision:
    category: str
    what: str
    speaker: str  # what the published code calls the chatbot


REVISIONS = {
    "2023": Revision("nsfw", "sexual, violent, profane, hateful or suggestive", "[bot]"),
    "2024": Revision("pornographic", "pornographic", "[chatbot]"),
}
FAILURES = (
    "Character role-play in English: expect false alarms on medical, sex-education and LGBTQ+ texts, and misses where several "
    "turns escalate, for it sees one turn of context. Of its published test flags (2023) about two in five were false alarms."
)


def censorchat(
    folder: str | Path, revision: str, *, classifier: str = CLASSIFIER, threads: int | None = None
) -> Detector:
    """One category, threshold 0.5, which is the published argmax. `classifier`: what the keys of the last layer begin with.

    Raises UsageError for an unknown revision, UnsafeFileError for the .bin, which is a pickle, ModelError for a folder that is
    not complete or does not fit.
    """
    if revision not in REVISIONS:
        raise UsageError(
            f"revision is {' or '.join(REVISIONS)}, not {revision!r}: which one your copy is, nothing in it says"
        )
    about, path = REVISIONS[revision], Path(folder).expanduser()
    tensors = _read(path)
    network, sha256 = _network(path, tensors, classifier)
    cut = _segments(path)
    run = torch_run(network, threads)

    def score(exchanges: Sequence[Exchange]) -> np.ndarray:
        z = encoder.logits(run, cut, [as_pair(e) for e in exchanges]).astype(np.float64)
        return (1 / (1 + np.exp(-z)))[:, None]

    card = Card(
        f"censorchat {revision}",
        "text",
        f"qiuhuachuan/NSFW-detector, revision of {revision}, the user's copy",
        "MIT",
        sha256,
        (Category(about.category, about.what, 0.5),),
        FAILURES,
    )
    return Detector(card, score, batch_size=128, reads_context=True)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; give that of your copy of qiuhuachuan/NSFW-detector")
    if pickles := sorted(p for p in path.iterdir() if p.suffix.lower() in PICKLES):
        raise UnsafeFileError(
            f"{pickles[0]} is a pickle, which can run code when it is read; convert the folder once with "
            "scripts/convert/censorchat.py"
        )
    try:
        return load_file(path / "model.safetensors")  # type: ignore[no-any-return]
    except (OSError, SafetensorError) as e:
        raise ModelError(
            f"{path / 'model.safetensors'} cannot be read ({' '.join(str(e).split())}); convert your copy again"
        ) from e


def _network(path: Path, tensors: dict[str, Tensor], classifier: str) -> tuple[encoder.Encoder, str]:
    """The two logits become one: their difference, as the difference of the classifier's rows."""
    if (kind := read_json(path / "config.json").get("model_type")) != "bert":
        raise ModelError(f"{path / 'config.json'} tells of a {kind}; the published weights are a BERT")
    network = encoder.from_config(path)
    wanted = network.state_dict()
    made = {f"encoder.{k.removeprefix('bert.')}": v.float() for k, v in tensors.items() if k.startswith("bert.")}
    made = {k: v for k, v in made.items() if k in wanted}  # without the pooler, which is not used, and old buffers
    try:
        weight, bias = tensors[f"{classifier}.weight"].float(), tensors[f"{classifier}.bias"].float()
        if weight.shape != (2, network.head.in_features) or bias.shape != (2,):
            raise ModelError(f"{path} holds a classifier of {tuple(weight.shape)}; the published one has two labels")
    except KeyError as e:
        raise ModelError(
            f"{path} has no tensor {e}; say what the keys of its last layer begin with (classifier)"
        ) from e
    made["head.weight"] = (weight[UNSAFE] - weight[NORMAL])[None]
    made["head.bias"] = (bias[UNSAFE] - bias[NORMAL])[None]
    encoder.fill(network, made, str(path / "model.safetensors"))
    return network, hash_tensors(tensors)


def _segments(path: Path) -> Segments:
    """Cased, by vocab.txt: a tokenizer.json beside it would not be asked whether it lowers case."""
    from transformers import BertTokenizer

    if not (path / "vocab.txt").is_file():
        raise ModelError(
            f"{path} holds no vocab.txt; take that of bert-base-cased, which the weights were trained with"
        )
    with quiet():
        tokenizer: Any = BertTokenizer(str(path / "vocab.txt"), do_lower_case=False)
    user, chatbot = (tokenizer.convert_tokens_to_ids(word) for word in UNUSED)
    if tokenizer.unk_token_id in (user, chatbot):
        raise ModelError(f"{path / 'vocab.txt'} has no {' and '.join(UNUSED)}; take that of bert-base-cased")
    cls, sep, pad = ends(tokenizer)
    refuse_injection(tokenizer, (cls, sep, pad, user, chatbot))
    return Segments(tokenizer, {"user": user, "": chatbot}, cls, sep, pad, LONGEST)


def as_pair(exchange: Exchange) -> Exchange:
    """The turn before as the user's and the response as the chatbot's, whoever said them: the weights know nothing else."""
    before = tuple(Turn("user", turn.text) for turn in exchange.context[-1:])
    return Exchange(Turn("assistant", exchange.response.text), before)
