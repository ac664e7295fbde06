"""Ten thousand items through an endpoint that errs one time in five: does it finish, is anything lost, and how long does it take?

    python benchmarks/moderation/faults.py            # needs a quiet machine, for the makespan; about ten minutes
    python benchmarks/moderation/faults.py --busy     # the same without the makespan
    python benchmarks/moderation/faults.py --smoke    # 500 items, written to a temporary folder

Both runs are labelling runs (`dialogue.run.label`) in processes of their own, against a server in its own (fault_server.py). One
is timed from beginning to end. The other is killed by SIGKILL, goes on under a budget that is too small, and then to its end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import recording
from fault_server import LATENCY, label_of, question_of
from ideal import makespan
from material import GUIDELINE, HERE, parser, results_of

from scotoma.dialogue.annotators.budget import Budget
from scotoma.dialogue.annotators.contract import Annotator, Chat, Message, Reply
from scotoma.dialogue.annotators.endpoint import endpoint
from scotoma.dialogue.annotators.llm import llm
from scotoma.dialogue.annotators.registry import LARGE
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.run import LabelConfig, LabelRun, label, read_run
from scotoma.dialogue.schema import Answer, Dialogue, Item
from scotoma.dialogue.texts import exchange_parts
from scotoma.dialogue.views import items as views
from scotoma.records import Figure

ITEMS, SMALL, SEED = 10_000, 500, 30
# At about 4 ms of the client's processor for a request and 0.125 s of latency, 16 at a time keep one core a fifth busy.
CONCURRENCY, TIMEOUT, RETRIES = 16, 2.0, 8
NAME = "endpoint"
KILLED_AT, BUDGET_FOR = 0.3, 0.6  # shares of the items: done when the kill comes; paid for by the first budget
PLENTY = 10**12  # tokens
# Items that are asked about together: in the timed run as many as the product asks (LARGE). A batch ends when its last item has
# its answer, and a slow one of few is all that is waited for: of batches of 32 the makespan has 0.21 of the ideal at most, of
# 4,096 0.90 (ideal.py, this plan of faults).
KILLED_BATCH = 1024
SETTINGS = LabelConfig(levels=("context",), near=None, shares=(0.7, 0.1, 0.2))


def dialogues(n: int) -> list[Dialogue]:
    """`n` dialogues of two turns, of which each asks the endpoint something else and none is a duplicate to `label`."""
    found, known, seed = list[Dialogue](), set[Any](), SEED
    while len(found) < n:
        items = views(generate(n, seed), levels=SETTINGS.levels)
        for item, question in zip(items, questions(items), strict=True):
            new = {question, exchange_parts(item.exchange)}
            if not new & known and len(found) < n:
                known |= new
                turns = (*item.exchange.context, item.exchange.response)
                found.append(Dialogue(f"d{len(found):05d}", turns))
        seed += 1
    return found


def questions(items: Sequence[Item]) -> list[str]:
    """What the server knows each item by: the hash of the conversation that is sent, personal data taken out."""
    seen = list[str]()

    def note(conversations: Sequence[Sequence[Message]], _: Sequence[str]) -> list[Reply]:
        seen.extend(question_of([dict(m) for m in c]) for c in conversations)
        return [Reply(None, "not asked") for _ in conversations]

    llm(Chat("none", note, remote=True), "none").annotate(items, load_guideline(GUIDELINE))
    return seen


def work(told: Mapping[str, Any]) -> None:
    """In a process of its own: label, and print seconds, seconds of the processor, and how much was asked."""
    folder = Path(told["folder"])
    chat = endpoint(
        told["url"], "m", key_variable="", concurrency=CONCURRENCY, timeout=TIMEOUT, retries=RETRIES,
        budget=Budget(tokens=told["tokens"]), cache=folder / "answers", seed=SEED,
    )  # fmt: skip
    annotator, spent = llm(chat, NAME, batch_size=told["batch"]), [0.0, 0.0]

    def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
        start, cpu = time.perf_counter(), time.process_time()
        answers = annotator.annotate(items, guideline)
        spent[0] += time.perf_counter() - start
        spent[1] += time.process_time() - cpu
        return answers

    made = dialogues(told["items"])
    clocked: Annotator = dataclasses.replace(annotator, annotate=annotate)
    start = time.perf_counter()
    label(made, load_guideline(GUIDELINE), [clocked], folder / "run", settings=SETTINGS)
    print(json.dumps({"seconds": time.perf_counter() - start, "asking": spent[0], "cpu": spent[1]}))


@contextmanager
def server(seed: int) -> Iterator[str]:
    """Its address without /v1."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fault_server.py"), str(seed)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def told_by(url: str, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/{what}") as answer:
        return json.loads(answer.read())  # type: ignore[no-any-return]


def worker(url: str, folder: Path, n: int, batch: int, tokens: int = PLENTY) -> subprocess.Popen[str]:
    told = {"url": f"{url}/v1", "folder": str(folder), "items": n, "batch": batch, "tokens": tokens}
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", json.dumps(told)], stdout=subprocess.PIPE, text=True, env=environment
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the labelling run ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]


def checked(run: LabelRun, told: Mapping[str, Any]) -> dict[str, int]:
    """Counts that are to be 0, of a run that is over: items without an answer, with two of them in the log, with the answer to
    another question; answers that the server gave once more; questions that are no item's."""
    asked = dict(zip((item.id for item in run.items), questions(run.items), strict=True))
    whole = [v for v in run.votes if v.answer.outcome != "failed"]
    answers = Counter(v.item for v in whole)
    return {
        "lost": sum(answers[i] == 0 for i in asked),
        "twice": sum(n > 1 for n in answers.values()),
        "of_another": sum(bool(v.answer.label) and v.answer.label != label_of(asked[v.item]) for v in whole),
        "answered_again": sum(n - 1 for n in told["answered"].values()),
        "unknown": len(set(told["answered"]) - set(asked.values())),
    }


def timed(n: int, batch: int) -> dict[str, Figure]:
    with server(SEED) as url, tempfile.TemporaryDirectory() as name:
        spent = finished(worker(url, Path(name), n, batch))
        told, run = told_by(url, "trace"), read_run(Path(name) / "run")
        wrong, clock = checked(run, told), run.summary()["wall"][f"vote/{NAME}"]["seconds"]
    if any(count for what, count in wrong.items() if what != "answered_again"):
        sys.exit(f"the timed run is not whole: {wrong}")
    by = dict[str, list[tuple[str, float]]]()
    for question, fault, latency, *_ in told["trace"]:
        by.setdefault(question, []).append((fault, latency))
    items, requests = list(by.values()), len(told["trace"])
    ideal = makespan(items, CONCURRENCY, TIMEOUT)
    number = recording.number
    return {
        "labelling_share_of_ideal": number(ideal / clock),
        "labelling_share_of_free_ideal": number(makespan(items, CONCURRENCY, TIMEOUT, held=False) / clock),
        "labelling_seconds": number(clock),
        "labelling_ideal_seconds": number(ideal),
        "labelling_run_seconds": number(spent["seconds"]),
        "labelling_batch": number(batch),
        "client_cpu_ms_per_request": number(1e3 * spent["cpu"] / requests),
        "client_cpu_share": number(spent["cpu"] / spent["asking"]),
        "most_at_once": number(told["most"]),
        "answered_again": Figure(float(wrong["answered_again"]), len(run.items), interval="none"),
    }


def killed(n: int, batch: int) -> dict[str, Figure]:
    with server(SEED + 1) as url, tempfile.TemporaryDirectory() as name:
        folder, number = Path(name), recording.number
        first = worker(url, folder, n, batch)
        while told_by(url, "count")["done"] < KILLED_AT * n and first.poll() is None:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        if first.returncode != -signal.SIGKILL:
            sys.exit("the labelling run was over before it was killed")
        trace = told_by(url, "trace")["trace"]
        tokens = int(sum(row[4] for row in trace) * BUDGET_FOR / KILLED_AT)
        finished(worker(url, folder, n, batch, tokens))
        trace = told_by(url, "trace")["trace"]
        charged = sum(row[4] for row in trace)
        open_ = checked(read_run(folder / "run"), told_by(url, "trace"))["lost"]
        finished(worker(url, folder, n, batch))
        told, run = told_by(url, "trace"), read_run(folder / "run")
        wrong, n = checked(run, told), len(run.items)
    faults = sum(row[1] != "answer" for row in told["trace"])
    return {
        "faults_share": recording.rate(faults, len(told["trace"])),
        "faults_requests": number(len(told["trace"])),
        "items_lost": Figure(float(wrong["lost"]), n, interval="none"),
        "items_labelled_twice": Figure(float(wrong["twice"]), n, interval="none"),
        "items_of_another": Figure(float(wrong["of_another"]), n, interval="none"),
        "answered_again_after_kill": Figure(
            float(wrong["answered_again"]), n, interval="none", note=f"{CONCURRENCY} were on their way at most"
        ),
        "budget_charged_share": number(charged / tokens),
        "budget_left_open": Figure(open_ / n, n, interval="none"),
    }


def figures(small: bool = False, busy: bool = False, batch: int = LARGE) -> dict[str, Figure]:
    """`batch`: items asked about together in the timed run."""
    n = SMALL if small else ITEMS
    found = killed(n, KILLED_BATCH // (8 if small else 1))
    return found if busy else found | timed(n, batch)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--busy", action="store_true", help="leave the makespan out, which needs a quiet machine")
    made.add_argument("--batch", type=int, default=LARGE, help=f"items that are asked about together (default {LARGE})")
    made.add_argument("--worker", help="for this program itself")
    args = made.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    begun = recording.begin(HERE, f"{os.cpu_count()} cores, latency {LATENCY[0]} to {LATENCY[1]} s")
    if not args.busy and not args.smoke:
        recording.require_quiet()
    recording.write(results_of(args.smoke), begun, figures(args.smoke, args.busy, args.batch), keep=True)


if __name__ == "__main__":
    main()
