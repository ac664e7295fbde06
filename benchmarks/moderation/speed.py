"""How fast the students are, in one run beside the plain transformers pipeline; needs a quiet machine.

    python benchmarks/moderation/speed.py            # after run.py, whose students it takes
    python benchmarks/moderation/speed.py --smoke    # few texts, on any machine, written to a temporary folder

Texts are the demonstration's with as much context as the students had, one thread for everything, tokenizers included. Students are those of run.py; the encoder is the sentence encoder's network with a head of
its own, and the pipeline runs a network of the same shape (speed does not depend on weights). int8 and float32 are compared on
gold. Words of the texts and flags of the processor are written beside the speeds.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread is one; read when a tokenizer is first used

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import recording
from material import GUIDELINE, HERE, parser, results_of
from run import FOLDER

from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.text import encoder
from scotoma.detectors.text.runs import padded, torch_run
from scotoma.detectors.text.segments import segments
from scotoma.detectors.text.student import load_student, read, weights_of
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.demo.gold import CONTEXT, difference, read_gold
from scotoma.dialogue.demo.run import by_student
from scotoma.dialogue.distil.export import export
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.packages import minilm
from scotoma.dialogue.views import items
from scotoma.records import Exchange, Figure

TEXTS, REPEATS, SMALL = 1024, 3, 96
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")  # that decide on speed
STUDENTS = ("encoder", "embedded")
Call = Callable[[Sequence[Exchange]], object]


def rate(call: Call, exchanges: Sequence[Exchange], repeats: int) -> float:
    """Texts a second, the best of a few."""
    call(exchanges[:64])
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call(exchanges)
        best = min(best, time.perf_counter() - start)
    return len(exchanges) / best


def processor() -> str:
    """Those of FLAGS that the processor has, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "flags unknown"
    told = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return " ".join(flag for flag in FLAGS if flag in told) or "none of the flags"


def plain(batch_size: int) -> Call:
    """transformers' own text-classification pipeline on pairs of context and response, texts in the order they come."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

    config = AutoConfig.from_pretrained(minilm(), num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(minilm()))

    def call(part: Sequence[Exchange]) -> object:
        pairs = [{"text": " ".join(t.text for t in e.context), "text_pair": e.response.text} for e in part]
        with torch.inference_mode():
            return classify(pairs, batch_size=batch_size, truncation=True)

    return call


def in_order(folder: Path) -> Call:
    """The student of route encoder by torch in batches of 32 as they come: what batches of like length spare."""
    student, _ = read(folder)
    cut = segments(encoder.load_tokenizer(folder / "encoder"), int(student.settings["longest"]))
    network = encoder.from_config(folder / "encoder")
    encoder.fill(network, weights_of(folder, student), str(folder))
    run = torch_run(network, 1)

    def call(part: Sequence[Exchange]) -> object:
        rows = cut(part)
        return [run(*padded(rows[i : i + 32], cut.pad)) for i in range(0, len(rows), 32)]

    return call


def export_both(folder: Path) -> None:
    for name in STUDENTS:
        if not (folder / name / "onnx.json").exists():
            export(folder / name)


def speeds(folder: Path, texts: int, repeats: int) -> dict[str, Figure]:
    exchanges = [i.exchange for i in items(generate(texts, 7), context_turns=CONTEXT, others=False)][:texts]
    words = [sum(len(t.text.split()) for t in (*e.context, e.response)) for e in exchanges]
    found: dict[str, float] = {
        "words_median": statistics.median(words),
        "words_p95": float(np.quantile(words, 0.95)),
    }

    def measure(name: str, call: Call, many: int = 1) -> None:
        found[f"{name}_texts_per_s"] = rate(call, exchanges * many, repeats)

    for batch in (1, 32):
        measure(f"plain_batch_{batch}", plain(batch))
    measure("encoder_in_order", in_order(folder / "encoder"))
    for name in STUDENTS:
        ways: dict[str, dict[str, Any]] = {"torch": {}, "onnx": {"onnx": True}, "int8": {"int8": True}}
        for how, options in ways.items():
            measure(f"{name}_{how}", load_student(folder / name, **options))
    measure("ngram", load_student(folder / "ngrams"), 16)
    fastest = max(found[f"plain_batch_{batch}_texts_per_s"] for batch in (1, 32))
    found["speedup_over_plain"] = found["encoder_int8_texts_per_s"] / fastest
    found["speedup_onnx_over_plain"] = found["encoder_onnx_texts_per_s"] / fastest
    found["embedded_texts_per_s"] = max(found[f"embedded_{how}_texts_per_s"] for how in ("torch", "onnx", "int8"))
    note = f"one thread, {processor()}"
    return {name: dataclasses.replace(recording.number(value), note=note) for name, value in found.items()}


def int8_loss(folder: Path) -> dict[str, Figure]:
    """F1 on gold by torch minus that of the int8 file, for both students, and the upper end of the interval as a figure of its
    own; the bare name is the encoder's."""
    guideline, gold = load_guideline(GUIDELINE), read_gold()
    out = {}
    for name in STUDENTS:
        seen = load_student(folder / name, int8=True)([g.item.exchange for g in gold])[guideline.positive]
        quantised = {g.item.id: v.label == FLAGGED for g, v in zip(gold, seen, strict=True)}
        lost = difference(gold, by_student(gold, folder / name, guideline), quantised, guideline)
        title = "f1_loss" if name == "encoder" else f"f1_loss_{name}"
        out |= {
            title: lost,
            f"{title}_high": Figure(lost.high, lost.n, interval="none", note="upper end of the interval"),
        }
    return out


def main() -> None:
    args = parser(__doc__).parse_args()
    begun, results = recording.begin(HERE, f"{os.cpu_count()} cores"), results_of(args.smoke)
    folder = FOLDER / "demo"
    if not (folder / "ngrams/student.json").exists():
        sys.exit(f"{folder} has no students yet; run benchmarks/moderation/run.py first")
    if not args.smoke:
        recording.require_quiet()
    export_both(folder)
    torch.set_num_threads(1)
    figures = speeds(folder, SMALL if args.smoke else TEXTS, 1 if args.smoke else REPEATS)
    recording.write(results, begun, figures | int8_loss(folder), keep=True)


if __name__ == "__main__":
    main()
