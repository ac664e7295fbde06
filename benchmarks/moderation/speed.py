"""How fast the students are, in one run beside the plain transformers pipeline; needs a quiet machine.

    python benchmarks/moderation/speed.py

Texts are the demonstration's, one thread. The encoder is the sentence encoder's network with a head of its own, fine-tuned on the
demonstration's labels for an epoch; the pipeline runs a network of the same shape (speed does not depend on weights). int8 and
float32 are compared on gold.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recording
from run import FOLDER, GUIDELINE

from scotoma.detectors.text.student import load_student
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.demo.gold import difference, read_gold
from scotoma.dialogue.demo.run import by_student
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.export import export
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.packages import minilm
from scotoma.dialogue.run import read_run
from scotoma.dialogue.views import items
from scotoma.records import Exchange, Figure

HERE = Path(__file__).parent
TEXTS, REPEATS = 1024, 3


def rate(call: Callable[[Sequence[Exchange]], object], exchanges: Sequence[Exchange]) -> float:
    """Texts a second, the best of a few."""
    call(exchanges[:64])
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        call(exchanges)
        best = min(best, time.perf_counter() - start)
    return len(exchanges) / best


def plain(exchanges: Sequence[Exchange], batch_size: int) -> float:
    """transformers' own text-classification pipeline on pairs of context and response."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

    config = AutoConfig.from_pretrained(minilm(), num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(minilm()))

    def call(part: Sequence[Exchange]) -> object:
        pairs = [{"text": " ".join(t.text for t in e.context), "text_pair": e.response.text} for e in part]
        return classify(pairs, batch_size=batch_size, truncation=True)

    with torch.inference_mode():
        return rate(call, exchanges)


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    recording.require_quiet()
    torch.set_num_threads(1)
    guideline, gold = load_guideline(GUIDELINE), read_gold()
    labelled = read_run(FOLDER / "demo/labels").labelled()
    folder = FOLDER / "encoder"
    if not (folder / "onnx.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        torch.set_num_threads(os.cpu_count() or 1)
        config = DistilConfig(encoder=EncoderConfig(encoder=str(minilm()), epochs=2, lr=5e-5))
        distil(labelled, folder, guideline=guideline, route="encoder", config=config)
        torch.set_num_threads(1)
        export(folder)
    if not (FOLDER / "demo/embedded/onnx.json").exists():
        export(FOLDER / "demo/embedded")
    exchanges = [i.exchange for i in items(generate(1000, 7))][:TEXTS]
    words = [len(e.response.text.split()) for e in exchanges]
    figures: dict[str, Figure] = {
        "words_median": recording.number(statistics.median(words)),
        "words_p95": recording.number(float(np.quantile(words, 0.95))),
    }
    for batch in (1, 32):
        figures[f"plain_batch_{batch}_texts_per_s"] = recording.number(plain(exchanges, batch))
    for name, place in (("encoder", folder), ("embedded", FOLDER / "demo/embedded")):
        for how, options in (("torch", {}), ("onnx", {"onnx": True}), ("int8", {"int8": True})):
            found = rate(load_student(place, **options), exchanges)  # type: ignore[arg-type]
            figures[f"{name}_{how}_texts_per_s"] = recording.number(found)
    many = exchanges * 16
    figures["ngram_texts_per_s"] = recording.number(rate(load_student(FOLDER / "demo/ngrams"), many))
    of = {k: f.value or 0.0 for k, f in figures.items()}
    fastest = max(of["plain_batch_1_texts_per_s"], of["plain_batch_32_texts_per_s"])
    figures["speedup_over_plain"] = recording.number(of["encoder_int8_texts_per_s"] / fastest)
    figures["embedded_texts_per_s"] = recording.number(
        max(of[f"embedded_{how}_texts_per_s"] for how in ("torch", "onnx", "int8"))
    )
    fp32 = by_student(gold, folder, guideline)
    seen = load_student(folder, int8=True)([g.item.exchange for g in gold])[guideline.positive]
    figures["f1_loss"] = difference(gold, fp32, np.array([v.label == "flagged" for v in seen]), guideline)
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
