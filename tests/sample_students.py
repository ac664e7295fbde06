"""Small students and what they learn from: a tiny BERT over the words of a harmless demonstration, and labelled exchanges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scotoma.detectors.card import Card, Category
from scotoma.detectors.text import student as students
from scotoma.detectors.text.calibration import Platt
from scotoma.detectors.text.ngrams import HASH
from scotoma.detectors.text.student import Student
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item, Label, Labelled
from scotoma.records import Exchange, Turn

GUIDELINE = Guideline(
    "tea", 1, "tea", "other", "Is it about tea?", (), {"tea": ("tea",), "other": ("x",)}, (), "0" * 64
)
TEA = ("tea", "pot", "cup", "leaf", "mint")
OTHER = ("car", "road", "tyre", "map", "fuel")
REST = ("the", "is", "a", "we", "have", "yes", "no", "here", "what", "about")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]")
SIGNS = (
    "[",
    "]",
    "?",
    ".",
    "user",
    "bot",
    "chat",
    "##bot",
    "sep",
    "cls",
    "assistant",
    "speaker",
    "unused",
    "##1",
    "##2",
)


def write_bert(folder: Path, *, seed: int = 0, positions: int = 64) -> Path:
    """A random BERT of width 32 with a pooler, in the layout of the hub, over the words above; lower case."""
    from transformers import BertConfig, BertModel, BertTokenizer

    from scotoma.weights.folders import quiet

    folder.mkdir(parents=True, exist_ok=True)
    words = [*SPECIAL, *SIGNS, *TEA, *OTHER, *REST]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def labelled(n: int, *, seed: int = 0, wrong: float = 0.0) -> list[Labelled]:
    """n exchanges of which half are about tea: the response names it, or says "yes" to a question that does. A share `wrong` of
    the labels in the training split is turned round."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        there = bool(rng.integers(2))
        word = str(rng.choice(TEA if there else OTHER))
        filler = " ".join(rng.choice(REST, rng.integers(1, 4)))
        level = "context" if rng.random() < 0.5 else "utterance"
        if level == "context":
            exchange = Exchange(Turn("assistant", "yes"), (Turn("user", f"{filler} {word} ?"),))
        else:
            exchange = Exchange(Turn("assistant", f"{filler} {word}"))
        split = ("train", "train", "validation", "test")[rng.integers(4)]
        told = there != (split == "train" and rng.random() < wrong)
        ident = f"d{i}/1/{level}"
        item = Item(ident, f"d{i}", 1, level, exchange)
        out.append(Labelled(item, Label(ident, "tea" if told else "other", "vote"), split))
    return out


def write_student(folder: Path, *, threshold: float = 0.5) -> Path:
    """A student of n-grams with random weights, which needs no training."""
    bits = 10
    rng = np.random.default_rng(0)
    tensors = {
        "response": torch.from_numpy(rng.normal(size=1 << bits).astype(np.float32)),
        "context": torch.from_numpy(rng.normal(size=1 << bits).astype(np.float32)),
        "bias": torch.tensor(0.25),
    }
    student = Student(
        route="ngrams",
        positive="tea",
        negative="other",
        guideline=GUIDELINE.identity,
        thresholds={"best F1": threshold},
        chosen="best F1",
        calibration=Platt(2.0, -0.5),
        settings={"hash": HASH, "bits": bits, "shortest": 2, "longest": 3},
        weights="",
        version="0",
    )
    category = Category("tea", "about tea", threshold)
    card = Card("student tea", "text", "made in a test", "the user's", "", (category,), "It knows nothing.")
    students.save(folder, student, tensors, card)
    return folder
