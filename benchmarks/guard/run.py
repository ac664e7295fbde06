"""The guard under load, against its description, on a data set, and what it changes on the zoo.

    python benchmarks/guard/run.py                   # all parts; timings need a quiet machine, and wrk
    python benchmarks/guard/run.py --only effect     # one of text, images, load, contract, curate, effect; repeatable
    python benchmarks/guard/run.py --smoke           # a little of everything, on any machine; writes nowhere

Each part adds its figures to results/latest.json when it is done. README.md says what they mean, and which of them end the run with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import effect
import recording
import screening
from recording import number
from serving import Server, serve, wrk

from scotoma.guard.crew import MOST
from scotoma.records import Figure, write_text

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build/benchmarks/guard"
TIMED = ("text", "images", "load", "curate")
TEXTS = 8192  # in a pass: bounds.py remembers its last 4,096, and here it has to read each anew
# What ends the run with 1, once it is written down.
ZERO = ("curate_lost", "curate_twice", "curate_manifests_differ", "schemathesis_5xx", "load_broken")
MOST_GROWTH_MB = 64.0
LATE_SECONDS = 1.0  # what an answer at its deadline may take to be sent, 200 of them at once
TEXT_POLICY = """
format: 1
name: n-gram student
categories: {{commitment: {{what: a commitment}}}}
dialogue: {{detectors: [{{detector: student, options: {{folder: ./ngrams}}, categories: {{{label}: commitment}}}}]}}
log: {{path: log.jsonl, key: SCOTOMA_LOG_KEY}}
"""


class Size(NamedTuple):
    seconds: int  # of a load
    pictures: int  # of the sampler alone
    steps: int
    clients: int
    examples: int  # of schemathesis, for each operation
    items: int
    seeds: int
    prompts: int | None  # of each set


FULL = Size(60, 256, 25, 200, 150, 5000, 2, None)
SMOKE = Size(4, 8, 4, 24, 4, 200, 1, 6)


# ---------------------------------------------------------------------------------------------------------------- texts


def student() -> tuple[Path, str]:
    """A folder with an n-gram student of the demonstration's template labels, and the name of its positive label."""
    from scotoma.dialogue.demo.generator import generate
    from scotoma.dialogue.demo.run import GUIDELINE
    from scotoma.dialogue.distil.training import distil
    from scotoma.dialogue.guideline import load_guideline
    from scotoma.dialogue.schema import Label, Labelled
    from scotoma.dialogue.split import split
    from scotoma.dialogue.views import items

    guideline = load_guideline(GUIDELINE)
    folder = FOLDER / "text"
    if not (folder / "ngrams/card.json").exists():
        kept = [i for i in items(generate(600, 0)) if i.given in guideline.labels]
        splits = split(kept, seed=0)
        labelled = [Labelled(i, Label(i.id, str(i.given), "human"), splits[i.id]) for i in kept]
        distil(labelled, folder / "ngrams", guideline=guideline, route="ngrams", seed=0)
    return folder, guideline.positive


def text(size: Size) -> dict[str, Figure]:
    """16 connections, each with one request under way; every text is decided, hashed and written to the disk before it is answered."""
    from scotoma.dialogue.demo.generator import generate
    from scotoma.dialogue.views import items

    folder, label = student()
    write_text(folder / "policy.yaml", TEXT_POLICY.format(label=label))
    (folder / "log.jsonl").unlink(missing_ok=True)
    told = [i.exchange.response.text for i in items(generate(400, 7))]
    texts = [f"{told[k % len(told)]} {k}" for k in range(TEXTS)]
    write_text(folder / "bodies", "".join(json.dumps({"input": t}) + "\n" for t in texts))
    with serve(folder, "--policy", "policy.yaml") as server:
        wrk(server, folder / "bodies", "/v1/moderations", connections=16, seconds=max(2, size.seconds // 6))
        found = wrk(server, folder / "bodies", "/v1/moderations", connections=16, seconds=size.seconds)
        waiting = server.metric("scotoma_batch_items_sum", line="texts") / server.metric(
            "scotoma_batch_items_count", line="texts"
        )
    if found.not_2xx or found.errors:
        sys.exit(f"{found.not_2xx} texts were not answered, {found.errors} connections broke")
    words = [len(t.split()) for t in texts]
    return {
        "text_rps": number(found.per_second),
        "text_p50_ms": number(found.p50_ms),
        "text_p99_ms": number(found.p99_ms),
        "text_words_median": number(statistics.median(words)),
        "text_batch": number(waiting),
    }


# ------------------------------------------------------------------------------------------------------------- pictures


def served(steps: int) -> Path:
    """zoo:emoji with the Edit that the shipped policy asks for."""
    folder = FOLDER / "served"
    if not (folder / "scotoma.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        edit = FOLDER / "bomb.safetensors"
        call = [sys.executable, "-m", "scotoma"]
        if not edit.exists():
            words = ["erase", "zoo:emoji", "--concept", "bomb", "--instead", "red apple", "--out", str(edit)]
            subprocess.run([*call, *words], check=True)
        subprocess.run([*call, "apply", "zoo:emoji", str(edit), "--out", str(folder)], check=True)
    return folder


def harmless(file: Path, count: int, path: str = "") -> Path:
    """Requests for pictures of things that are no stand-ins, each with a seed of its own."""
    from scotoma.auditing.zoo_prompts import zoo_prompts

    prompts = [p.text for s in zoo_prompts() if s.role == "control" for p in s.prompts]
    rows = [{"prompt": prompts[i % len(prompts)], "seed": i} for i in range(count)]
    write_text(file, "".join(f"{path}{json.dumps(r)}\n" for r in rows))
    return file


ALONE = """
import json, sys, time
from scotoma.allocator import keep_freed
from scotoma.models.load import load
from scotoma.models.sample import at_once, sample
keep_freed()
model, count, steps = load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rows = [json.loads(line) for line in open(sys.argv[4])][:count]
texts, seeds = [r["prompt"] for r in rows], [r["seed"] for r in rows]
sample(model, texts[: at_once(model)], seeds[: at_once(model)], steps=steps)
begun = time.monotonic()
sample(model, texts, seeds, steps=steps)
print(count / (time.monotonic() - begun))
"""


def images(size: Size) -> dict[str, Figure]:
    """Pictures a second of the sampler alone, of the server with 96 clients, and of the sampler again; and of as many samplers as
    the server has, beside each other and alone."""
    folder = served(size.steps)
    file = harmless(FOLDER / "prompts", 4096)

    def alone(processes: int = 1) -> float:
        call = [sys.executable, "-c", ALONE, str(folder), str(size.pictures // processes), str(size.steps), str(file)]
        shared = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))} if processes > 1 else {}
        running = [
            subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env={**os.environ, **shared})
            for _ in range(processes)
        ]
        return sum(float(p.communicate()[0]) for p in running)

    before = alone()
    (FOLDER / "audit.jsonl").unlink(missing_ok=True)
    with serve(FOLDER, str(folder), "--policy", "policy/zoo", "--steps", str(size.steps), "--waiting", "128") as server:
        done: list[tuple[float, float]] = []
        running = _beside(lambda: wrk(server, file, "/v1/images/generations", connections=96, seconds=2 * size.seconds))
        while running():
            # Each picture that was drawn and looked at, and no prompt that was refused: 200s, and 400s of pictures. They come
            # by the batch, so times are taken where one has come.
            looked_at = server.metric("scotoma_decisions_total", stage="picture")
            if not done or looked_at != done[-1][1]:
                done.append((time.monotonic(), looked_at))
            time.sleep(0.5)
        batch = server.metric("scotoma_batch_items_sum", line="drawing") / server.metric(
            "scotoma_batch_items_count", line="drawing"
        )
        statuses = server.statuses()
    after, beside = alone(), alone(min(MOST, os.cpu_count() or 1))
    middle = [d for d in done if d[0] > done[0][0] + size.seconds / 3 and d[0] < done[0][0] + 2 * size.seconds]
    own = (before + after) / 2
    if len(middle) < 2:
        sys.exit("not two batches were done in the time; give it more, or a machine that does nothing else")
    rate = (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
    return {
        "image_throughput_share": number(rate / own),
        "image_throughput_share_of_processes": number(rate / beside),
        "image_per_s": number(rate),
        "sampler_per_s": number(own),
        "sampler_per_s_before": number(before),
        "sampler_per_s_processes": number(beside),
        "image_batch": number(batch),
        "image_refused": recording.rate(statuses.get("400", 0), sum(statuses.get(s, 0) for s in ("200", "400"))),
    }


def _beside(work: Callable[[], object]) -> Callable[[], bool]:
    """Start it on a thread; whether it still runs."""
    import threading

    thread = threading.Thread(target=work)
    thread.start()
    return thread.is_alive


def load(size: Size) -> dict[str, Figure]:
    """200 clients that ask again as soon as they have an answer, whatever it was: pictures, refused prompts and texts in turn."""
    folder = served(size.steps)
    images_, texts = "/v1/images/generations\t", "/v1/moderations\t"
    prompts = harmless(FOLDER / "prompts", 4096).read_text().splitlines()
    mixed = []
    for i, line in enumerate(prompts):
        mixed.append(images_ + line if i % 4 else images_ + json.dumps({"prompt": f"a bomb, number {i}"}))
        mixed.append(texts + json.dumps({"input": json.loads(line)["prompt"]}))
    write_text(FOLDER / "mixed", "".join(f"{m}\n" for m in mixed))
    (FOLDER / "audit.jsonl").unlink(missing_ok=True)
    with serve(FOLDER, str(folder), "--policy", "policy/zoo", "--steps", str(size.steps)) as server:
        wrk(server, FOLDER / "mixed", "/", connections=size.clients, seconds=max(2, size.seconds // 3))
        early, before = server.memory_mb(), server.statuses()
        found = wrk(server, FOLDER / "mixed", "/", connections=size.clients, seconds=size.seconds)
        late, after = server.memory_mb(), server.statuses()
        again = _answers_soon(server)
    answered = {s: n - before.get(s, 0) for s, n in after.items()}
    # A client that wrk ends in the middle of a request is answered 400 into the void, or not at all.
    return {
        "errors_5xx": Figure(
            float(sum(n for s, n in answered.items() if s.startswith("5"))), found.requests, interval="none"
        ),
        "load_clients": number(size.clients),
        "load_rps": number(found.per_second),
        "load_429_share": recording.rate(answered.get("429", 0), max(1, sum(answered.values()))),
        "load_most_seconds": number(found.most_ms / 1e3),
        "load_broken": number(found.errors),
        "load_memory_mb": number(late),
        "load_memory_growth_mb": number(late - early),
        "load_answers_after": number(float(again)),
    }


def _answers_soon(server: Server) -> bool:
    for _ in range(100):
        try:
            server.get("/readyz")
            return True
        except OSError:
            time.sleep(0.1)
    return False


# ----------------------------------------------------------------------------------------------------------------- rest


def contract(size: Size) -> dict[str, Figure]:
    """schemathesis on the server with the zoo behind it; four steps a picture, for most prompts mean nothing."""
    folder = served(size.steps)
    (FOLDER / "audit.jsonl").unlink(missing_ok=True)
    program = Path(sys.executable).with_name("schemathesis")
    with serve(FOLDER, str(folder), "--policy", "policy/zoo", "--steps", "4") as server:
        call = [str(program), "run", f"{server.url}/openapi.json", "--max-examples", str(size.examples), "--seed", "1"]
        # A valid prompt may be refused, which is what this server is for.
        ran = subprocess.run(
            [*call, "--exclude-checks", "positive_data_acceptance", "--no-color", "--request-timeout", "60"],
            capture_output=True,
            text=True,
            check=False,
        )
        statuses = server.statuses()
    sys.stderr.write(ran.stdout[-4000:])
    cases = re.search(r"([\d,]+) generated", ran.stdout)
    if cases is None:
        sys.exit(f"schemathesis did not come to its end: {ran.stderr[-2000:]}")
    failed = re.search(r"generated, (\d+) found", ran.stdout)
    n = int(cases[1].replace(",", ""))
    failures = int(failed[1]) if failed else 0 if ran.returncode == 0 else n
    return {
        "schemathesis_failures": Figure(float(failures), n, interval="none"),
        "schemathesis_5xx": number(float(sum(k for s, k in statuses.items() if s.startswith("5")))),
    }


def curate(size: Size) -> dict[str, Figure]:
    folder = FOLDER / "curate"
    folder.mkdir(parents=True, exist_ok=True)
    few, many = screening.measure(folder, size.items), screening.measure(folder, 10 * size.items)
    return few | {f"{name}_large": f for name, f in many.items()} | screening.killed(folder, size.items)


def effects(size: Size) -> dict[str, Figure]:
    folder = FOLDER / "effect" / f"{size.steps}-{size.seeds}"
    return effect.effect(folder, str(served(size.steps)), seeds=size.seeds, steps=size.steps, most=size.prompts)


PARTS: dict[str, Callable[[Size], dict[str, Figure]]] = {
    "effect": effects,
    "contract": contract,
    "text": text,
    "images": images,
    "load": load,
    "curate": curate,
}


def _settle() -> None:
    """Wait until the load of the part before has gone from the average."""
    for _ in range(120):
        if os.getloadavg()[0] < recording.QUIET:
            return
        time.sleep(5)


def _wrong(figures: Mapping[str, Figure]) -> list[str]:
    """What no run may find, in words."""
    from scotoma.guard.policy import load_policy

    deadline = load_policy("policy/zoo").limits.deadline_seconds + LATE_SECONDS
    most = dict.fromkeys(ZERO, 0.0) | {"load_memory_growth_mb": MOST_GROWTH_MB, "load_most_seconds": deadline}
    found = [(name, figures[name].value, bound) for name, bound in most.items() if name in figures]
    return [f"{name} is {value}, at most {bound:g}" for name, value, bound in found if value is None or value > bound]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; repeatable (default: all)")
    parser.add_argument("--smoke", action="store_true", help="a little of everything; no figure is written down")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    wrong: list[str] = []
    for k, name in enumerate(args.only or PARTS):
        if name in TIMED and not args.smoke:
            if k:
                _settle()
            recording.require_quiet()
        figures = PARTS[name](SMOKE if args.smoke else FULL)
        if args.smoke:
            with tempfile.TemporaryDirectory() as place:
                recording.write(Path(place), begun, figures)
        else:
            recording.write(HERE, begun, figures, keep=True)
        wrong += _wrong(figures)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
