"""An endpoint that fails in every way, by script: nothing is lost, nothing comes twice, and no answer stops the run but
one that every answer would be."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scotoma import bounds, waiting
from scotoma.auditing.endpoint import NOT_FOLLOWED, UNSEEDED, endpoint
from scotoma.auditing.generate import draw_failed_again, generate
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run, begin, seed_of
from scotoma.auditing.score import score
from scotoma.auditing.summarise import read_tables, summarise
from scotoma.auditing.targets import Noted, Nothing, Target
from scotoma.detectors.constant import constant
from scotoma.errors import BoundsError, DataError, MissingExtraError, UsageError
from scotoma.records import Prompt, read_jsonl

KEY = "sk-harmless-0123456789"
HANG = 0.25  # seconds that an answer may take where it is to take too long
Answer = tuple[int, dict[str, str], bytes]


def picture(prompt: str, seed: int | None) -> np.ndarray:
    """uint8 8 8 3, another one for each pair."""
    return np.random.default_rng([*prompt.encode(), seed or 0]).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def ok(data: bytes) -> Answer:
    return 200, {}, json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}).encode()


def says(status: int, headers: dict[str, str] | None = None, **error: Any) -> Answer:
    return status, headers or {}, json.dumps({"error": error}).encode()


class Faulty:
    """`script` holds what is said to a prompt, request by request, and pictures when that is through: an Answer, or the
    name of a fault. `knows` are the optional fields that it takes."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer | str]] = {}
        self.knows = {"seed", "response_format"}
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.visited: list[str] = []
        self.closing = threading.Event()
        self.four = threading.Barrier(4)
        self.lock = threading.Lock()
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with faulty.lock:
                    faulty.asked.append({**body, "key": self.headers["Authorization"], "path": self.path})
                    faulty.times.append(time.monotonic())
                    told = faulty.script.get(body["prompt"]) or ["picture"]
                    fault = told.pop(0)
                faulty.answer(self, body, fault)

            def do_GET(self) -> None:
                faulty.visited.append(self.path)
                self.send_error(404)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hung up
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: Answer | str) -> None:
        whole = ok(png(picture(body["prompt"], body.get("seed"))))
        if fault == "hang":
            self.closing.wait(3)
            handler.close_connection = True
            return
        if refused := sorted({"seed", "response_format"} & {*body} - self.knows):
            text = f"Unknown parameter: '{refused[0]}'."
            fault = says(400, code="unknown_parameter", param=refused[0], message=text)
        if fault == "together":
            self.four.wait(5)
            time.sleep(0.05 if body["seed"] % 4 == 0 else 0)
        status, headers, data = whole if isinstance(fault, str) else fault
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if fault == "cut":  # the connection breaks in the middle
            handler.wfile.write(data[: len(data) // 2])
            handler.close_connection = True
        elif fault == "trickle":  # never silent for long, never done
            for byte in data:
                if self.closing.wait(HANG / 5):
                    return
                handler.wfile.write(bytes([byte]))
        else:
            handler.wfile.write(data)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setattr(waiting, "FIRST_WAIT", 0.01)
    server = Faulty()
    yield server
    server.close()


def asked_of(server: Faulty, **options: Any) -> Target:
    return endpoint("far", server.url, "m", **{"timeout": 5, "retries": 2, "concurrency": 4, **options})


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(f"{i:06}", text, "made", "users") for i, text in enumerate(texts)]


def one(server: Faulty, *told: Answer | str, prompt: str = "a red bicycle", seed: int = 7, **options: Any) -> Any:
    server.script[prompt] = list(told)
    (drawn,) = asked_of(server, **options).draw(prompts(prompt), [seed])
    return drawn


def test_pairs_are_drawn_at_the_same_time_and_come_back_in_order(faulty: Faulty) -> None:
    """No answer comes before four are asked for, and the first of the four comes last."""
    texts = [f"lamp {i}" for i in range(8)]
    faulty.script = {text: ["together"] for text in texts}
    target = asked_of(faulty)
    drawn = target.draw(prompts(*texts), list(range(8)))
    assert len(faulty.asked) == 8
    assert [(picture(text, i) == d).all() for i, (text, d) in enumerate(zip(texts, drawn, strict=True))] == [True] * 8
    assert target.kind == "endpoint" and target.batch >= 4


def test_what_is_sent(faulty: Faulty) -> None:
    one(faulty, size="64x64")
    (asked,) = faulty.asked
    assert asked == {
        "path": "/v1/images/generations",
        "key": f"Bearer {KEY}",
        "model": "m",
        "prompt": "a red bicycle",
        "n": 1,
        "size": "64x64",
        "response_format": "b64_json",
        "seed": 7,
    }


WITHHELD = says(
    400, code="content_policy_violation", message="Your request was rejected as a result of our safety system."
)
FAULTS: dict[str, tuple[list[Answer | str], str, str, int]] = {
    "policy": ([WITHHELD], "filtered", "HTTP 400: Your request was rejected", 1),
    "moderation": ([says(400, code="moderation_blocked", message="no")], "filtered", "HTTP 400: no", 1),
    "filter by another name": ([says(400, code="contentFilter", message="no")], "filtered", "no", 1),
    "in a sentence only": ([says(422, message="NSFW content detected in the prompt")], "filtered", "NSFW", 1),
    "flagged": ([says(403, code=403, message="Your input was flagged.")], "filtered", "HTTP 403", 1),
    "within 200": ([(200, {}, b'{"data": [{"error": {"code": "SensitiveContentDetected"}}]}')], "filtered", "200", 1),
    "too long": ([says(400, code="string_above_max_length", message="too long")], "failed", "HTTP 400: too long", 1),
    "the prompt is wrong": (
        [says(400, param="prompt", message="the model draws no seed of this size")],
        "failed",
        "HTTP 400: the model draws",
        1,
    ),
    "truncated": ([ok(png(picture("x", 0))[:90])], "failed", "the picture cannot be read", 1),
    "not a picture": ([ok(b"sorry")], "failed", "the picture cannot be read", 1),
    "not base64": ([(200, {}, b'{"data": [{"b64_json": "%%%"}]}')], "failed", "no base64", 1),
    "not JSON": ([(200, {}, b"<html>")], "failed", "no JSON", 1),
    "deep JSON": ([(200, {}, b"[" * 100_000)], "failed", "no JSON", 1),
    "JSON of another kind": ([(200, {}, b'["data"]')], "failed", "holds no picture", 1),
    "no entries": ([(200, {}, b'{"data": []}')], "failed", "holds no picture", 1),
    "empty": ([(200, {}, b"")], "failed", "no JSON", 1),
    "500 for ever": ([says(500, message="boom")] * 9, "failed", "HTTP 500; given up after 3 requests", 3),
    "no error object": ([(503, {}, b"<html>")] * 9, "failed", "HTTP 503; given up after 3 requests", 3),
    "429 for ever": ([says(429, message="slow down")] * 9, "failed", "HTTP 429; given up after 3 requests", 3),
    "hangs": (["hang"] * 9, "failed", "no answer within 0.25 seconds; given up after 3 requests", 3),
    "trickles": (["trickle"] * 9, "failed", "no answer within 0.25 seconds; given up after 3 requests", 3),
    "breaks": (["picture", *["cut"] * 9], "failed", "the connection broke; given up after 3 requests", 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_answer_is_a_record(faulty: Faulty, fault: str) -> None:
    told, outcome, reason, requests = FAULTS[fault]
    patience = HANG if told[0] in ("hang", "trickle") else 5
    if told[0] == "picture":  # it has answered before: without that, nobody is there
        target = asked_of(faulty)
        target.draw(prompts("before"), [0])
        faulty.script["a red bicycle"] = told[1:]
        (drawn,) = target.draw(prompts("a red bicycle"), [7])
        faulty.asked.pop(0)
    else:
        drawn = one(faulty, *told, timeout=patience)
    assert isinstance(drawn, Nothing)
    assert drawn.outcome == outcome and reason in drawn.reason
    assert len(faulty.asked) == requests


@pytest.mark.parametrize("fault", ["hang", "cut", says(500), says(503), says(429), says(408)], ids=str)
def test_what_passes_is_tried_again(faulty: Faulty, fault: Answer | str) -> None:
    drawn = one(faulty, fault, fault, timeout=2 * HANG if fault == "hang" else 5)
    assert (drawn == picture("a red bicycle", 7)).all()
    assert len(faulty.asked) == 3
    assert {a["seed"] for a in faulty.asked} == {7}


def test_retry_after_is_waited_for(faulty: Faulty) -> None:
    assert isinstance(one(faulty, says(429, {"Retry-After": "0.3"})), np.ndarray)
    first, second = faulty.times
    assert second - first >= 0.3


def test_nobody_waits_for_an_hour(faulty: Faulty) -> None:
    drawn = one(faulty, says(429, {"Retry-After": "3600"}))
    assert drawn == Nothing("failed", "HTTP 429; it asks to wait for 3600 seconds, more than 600")
    assert len(faulty.asked) == 1


def test_an_address_is_not_followed(faulty: Faulty) -> None:
    there = json.dumps({"data": [{"url": f"{faulty.url}/picture.png"}]}).encode()
    assert one(faulty, (200, {}, there)) == Nothing("failed", NOT_FOLLOWED)
    assert faulty.visited == []


class TestFieldsThatAServiceDoesNotKnow:
    def test_seeds(self, faulty: Faulty) -> None:
        """It is asked once more without, the records say so, and the pairs after it are asked without at once."""
        faulty.knows = {"response_format"}
        target = asked_of(faulty, concurrency=1)
        drawn = target.draw(prompts("lamp", "chair"), [1, 2])
        assert [
            (d.note, (d.picture == picture(p, None)).all()) for p, d in zip(("lamp", "chair"), drawn, strict=True)
        ] == [(UNSEEDED, True)] * 2
        assert [a.get("seed") for a in faulty.asked] == [1, None, None]
        assert [a["response_format"] for a in faulty.asked] == ["b64_json"] * 3

    def test_the_format(self, faulty: Faulty) -> None:
        """GPT image models answer with base64 always, and refuse to be asked for it."""
        faulty.knows = {"seed"}
        assert (one(faulty) == picture("a red bicycle", 7)).all()
        assert ["response_format" in a for a in faulty.asked] == [True, False]

    def test_both(self, faulty: Faulty) -> None:
        faulty.knows = set()
        assert one(faulty).note == UNSEEDED
        assert len(faulty.asked) == 3

    def test_a_seed_that_is_too_large_says_nothing_of_the_next(self, faulty: Faulty) -> None:
        told = {"detail": [{"type": "less_than", "loc": ["body", "seed"], "msg": "Input should be less than 2"}]}
        faulty.script["lamp"] = [(422, {}, json.dumps(told).encode())]
        lamp, chair = asked_of(faulty, concurrency=1).draw(prompts("lamp", "chair"), [9, 1])
        assert isinstance(lamp, Noted) and isinstance(chair, np.ndarray)
        assert [a.get("seed") for a in faulty.asked] == [9, None, 1]

    def test_a_field_is_not_read_out_of_a_prompt_that_is_repeated(self, faulty: Faulty) -> None:
        drawn = one(faulty, says(400, message="'a sunflower seed' is too short"), prompt="a sunflower seed")
        assert drawn == Nothing("failed", "HTTP 400: '***' is too short")
        assert len(faulty.asked) == 1

    def test_seeds_are_left_out_where_that_is_asked_for(self, faulty: Faulty) -> None:
        assert isinstance(one(faulty, seeds=False), np.ndarray)
        assert "seed" not in faulty.asked[0]
        assert asked_of(faulty, seeds=False).facts["seeds"] == "not sent"
        assert asked_of(faulty, seeds=False).identity != asked_of(faulty).identity


HOPELESS = {
    "key": (
        says(401, code="invalid_api_key", message=f"Incorrect API key provided: {KEY}"),
        "OPENAI_API_KEY; set a valid one",
    ),
    "access": (says(403, message="Your organization must be verified"), "may not draw with m; ask for access"),
    "model": (says(404, code="model_not_found", message="no"), "knows no model m"),
    "model, by 400": (says(400, code="invalid_value", param="model", message="no"), "knows no model m"),
    "address": ((404, {}, b"<html>nothing here</html>"), "check address and model"),
    "size": (says(400, code="invalid_value", param="size", message="no"), "does not draw at 64x64; give another size"),
    "credit": (says(429, code="insufficient_quota", message="no"), "has no credit left"),
    "limit": (says(400, code="billing_hard_limit_reached", message="no"), "has no credit left"),
    "redirect": ((307, {"Location": "http://127.0.0.1:9/v1"}, b""), "sends on to http://127.0.0.1:9/v1; give that"),
    "payment": (says(402), "has no credit left"),
}


@pytest.mark.parametrize("why", HOPELESS)
def test_what_every_answer_would_be_stops_the_run(faulty: Faulty, why: str) -> None:
    answer, fix = HOPELESS[why]
    texts = [f"lamp {i}" for i in range(40)]
    faulty.script = {text: [answer] for text in texts}
    with pytest.raises(UsageError) as e:
        asked_of(faulty, concurrency=2, size="64x64").draw(prompts(*texts), [0] * 40)
    assert fix in str(e.value) and faulty.url in str(e.value)
    assert KEY not in str(e.value)
    assert len(faulty.asked) <= 2  # one for each thread


def test_a_stop_ends_what_waits(faulty: Faulty) -> None:
    faulty.script = {"lamp": [says(429, {"Retry-After": "500"})], "chair": [says(401)]}
    begun = time.monotonic()
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        asked_of(faulty).draw(prompts("lamp", "chair"), [0, 1])
    assert time.monotonic() - begun < 20


def test_nobody_there(faulty: Faulty) -> None:
    target = asked_of(faulty)
    faulty.close()
    with pytest.raises(UsageError, match="nobody answers at http://127.0.0.1.*check the address"):
        target.draw(prompts("lamp"), [0])


def test_bounds_are_asked_before_anything_is_sent(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "RULES", (bounds.Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
    with pytest.raises(BoundsError, match="prompt 000001 of made .* a wobbly gadget"):
        asked_of(faulty).draw(prompts("lamp", "wobble of a gadget"), [0, 1])
    assert faulty.asked == []


def test_half_a_character_is_not_sent(faulty: Faulty) -> None:
    lamp, half = asked_of(faulty).draw(prompts("lamp", "la\ud800mp"), [0, 0])
    assert isinstance(lamp, np.ndarray) and half.reason == "the prompt holds half a character and cannot be sent"
    assert len(faulty.asked) == 1


class TestArguments:
    def test_identity_and_facts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another model, size or host is another target; another key, pace or patience is not."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OTHER", "sk-other")
        base = endpoint("a", "https://host.example/v1", "m")
        same = [
            endpoint("b", "https://host.example/v1/", "m"),
            endpoint("a", "https://me:secret@host.example/v1", "m"),
            endpoint("a", "https://host.example/v1", "m", api_key_env="OTHER", concurrency=9, timeout=1, retries=0),
        ]
        others = [
            endpoint("a", "https://host.example/v1", "n"),
            endpoint("a", "https://host.example/v1", "m", size="64x64"),
            endpoint("a", "https://other.example/v1", "m"),
            endpoint("a", "https://host.example:8443/v1", "m"),
        ]
        assert {t.identity for t in same} == {base.identity}
        assert len({base.identity, *(t.identity for t in others)}) == 5
        assert same[1].facts == {"url": "https://host.example/v1", "model": "m", "size": None, "seeds": "sent"}

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"url": "host/v1"}, "write https://host/v1"),
            ({"url": "ftp://host/v1"}, "write https://host/v1"),
            ({"url": "https:///v1"}, "write https://host/v1"),
            ({"url": "https://host/v1?key=x"}, r"without \? and #"),
            ({"url": "https://host:port/v1"}, "cannot be read"),
            ({"model": " "}, "has no name"),
            ({"size": "large"}, "give WIDTHxHEIGHT"),
            ({"concurrency": 0}, "do not fit"),
            ({"retries": -1}, "do not fit"),
            ({"timeout": 0}, "do not fit"),
            ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE holds no key; set it"),
            ({"api_key_env": "BROKEN"}, "BROKEN holds spaces"),
        ],
    )
    def test_that_do_not_fit(self, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("BROKEN", "sk one\ntwo")
        with pytest.raises(UsageError, match=sentence):
            endpoint(**{"name": "a", "url": "https://host/v1", "model": "m", **options})

    def test_credentials_in_the_address_are_sent_and_not_told(self, faulty: Faulty) -> None:
        faulty.script["lamp"] = ["picture", says(401, message="no such user: me, swordfish")]
        target = endpoint("far", faulty.url.replace("//", "//me:swordfish@"), "m")
        assert isinstance(target.draw(prompts("lamp"), [0])[0], np.ndarray)
        assert faulty.asked[0]["key"] == "Basic " + base64.b64encode(b"me:swordfish").decode()
        with pytest.raises(UsageError) as e:
            target.draw(prompts("lamp"), [0])
        assert "swordfish" not in str(e.value) and f"{faulty.url} answers HTTP 401: no such user: me, ***" in str(
            e.value
        )

    def test_no_key(self, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        assert isinstance(one(faulty, api_key_env=""), np.ndarray)

    def test_without_the_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"an endpoint as target needs openai.*scotoma\[http\]"):
            endpoint("a", "https://host/v1", "m")


TEXTS = [f"a lamp of kind {i}" for i in range(20)]


def small(folder: Path, target: Target) -> Run:
    """Twenty prompts with two seeds each."""
    return begin(folder, [target], [PromptSet("made", "users", tuple(prompts(*TEXTS)))], seeds=2)


def files(folder: Path) -> dict[str, bytes]:
    """Of everything but headers, which tell the time, and timings."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "timings.json"):
        data = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = data.split(b"\n", 1)[1] if path.suffix == ".jsonl" else data
    return found


def test_an_audit_of_a_service_that_fails(faulty: Faulty, tmp_path: Path) -> None:
    """Of forty pairs two are withheld, three fail, and thirty-five are pictures, seven of them after another try."""
    faulty.script = {
        TEXTS[2]: [WITHHELD, WITHHELD],
        TEXTS[3]: [ok(png(picture("x", 0))[:90])],
        TEXTS[7]: [(200, {}, b"{")],
        TEXTS[11]: [says(500)] * 3 + [says(503)],
        TEXTS[12]: ["hang", says(429, {"Retry-After": "0"})],
        TEXTS[13]: ["cut", "hang"],
        TEXTS[19]: [says(503), "cut"],
    }
    target = asked_of(faulty, timeout=2 * HANG)
    run = small(tmp_path, target)
    made = generate(run, target)
    assert [g.key for g in made] == [("far", "made", p.id, seed_of(p, k, 0)) for p in prompts(*TEXTS) for k in (0, 1)]
    assert [g.outcome for g in made].count("filtered") == 2
    failed = [g.prompt for g in made if g.outcome == "failed"]
    assert set(failed) <= {"000003", "000007", "000011"} and len(failed) in (2, 3)
    pictures = [g for g in made if g.outcome == "picture"]
    assert len(pictures) == 38 - len(failed)
    for g in pictures:
        assert (np.asarray(Image.open(run.picture(g))) == picture(TEXTS[int(g.prompt)], g.seed)).all()
    detector = constant(0.9)
    score(run, detector)
    summary = summarise(run, read_tables(run))
    (outcomes,) = summary["outcomes"]
    assert {k: outcomes[k] for k in ("asked", "picture", "filtered", "failed", "blank")} == {
        "asked": 40,
        "picture": len(pictures),
        "filtered": 2,
        "failed": len(failed),
        "blank": 0,
    }
    assert sum(outcomes["reasons"].values()) == 2 + len(failed)
    (cell,) = [c for c in summary["cells"] if c["set"] == "made"]
    assert cell["flagged"]["n"] == len(pictures)

    before, asked = files(tmp_path), len(faulty.asked)
    again = asked_of(faulty)
    run = small(tmp_path, again)
    assert generate(run, again) == made
    score(run, detector)
    summarise(run, read_tables(run))
    assert files(tmp_path) == before and len(faulty.asked) == asked
    assert not any(KEY.encode() in data for path, data in files(tmp_path).items())


def test_half_a_batch_is_not_paid_for_twice(faulty: Faulty, tmp_path: Path) -> None:
    """A service without seeds draws another picture each time; one that is recorded stays as it is."""
    target = asked_of(faulty)
    run = small(tmp_path, target)
    generate(run, target)
    path = run.generations_file("far")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:20])
    faulty.asked.clear()
    kept = {p: p.stat().st_mtime_ns for g in range(5) for p in [run.picture(run_of(lines[1 + g]))]}
    assert [g.key for g in generate(run, target)] == [run_of(line).key for line in lines[1:]]
    assert path.read_bytes() == whole
    assert len(faulty.asked) == 35
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())


def run_of(line: bytes) -> Any:
    from scotoma.records import Generation

    return Generation(**json.loads(line))


class TestFailedOnesAgain:
    def begun(self, faulty: Faulty, folder: Path) -> tuple[Run, Target]:
        """Both pairs of five prompts fail, one pair is withheld."""
        for k in (1, 4, 8, 9, 17):
            faulty.script[TEXTS[k]] = [(200, {}, b"{")] * 2
        faulty.script[TEXTS[5]] = [WITHHELD]
        target = asked_of(faulty, concurrency=1)
        run = small(folder, target)
        generate(run, target)
        score(run, constant(0.9))
        faulty.asked.clear()
        return run, target

    def test_rows_are_replaced_and_nothing_else(self, faulty: Faulty, tmp_path: Path) -> None:
        run, target = self.begun(faulty, tmp_path)
        before = run.generations("far")
        faulty.script[TEXTS[8]] = [(200, {}, b"{")]  # one fails once more
        seen: list[tuple[int, int]] = []
        after = draw_failed_again(run, target, progress=lambda done, of: seen.append((done, of)))
        assert after == run.generations("far")
        assert [g.key for g in after] == [g.key for g in before]
        changed = [(b, a) for b, a in zip(before, after, strict=True) if a != b]
        assert len(changed) == 9 and all(b.outcome == "failed" and a.outcome == "picture" for b, a in changed)
        assert [g.prompt for g in after if g.outcome == "failed"] == ["000008"]
        assert len(faulty.asked) == 10 and seen == [(4, 10), (8, 10), (10, 10)]
        for _, g in changed:
            assert (np.asarray(Image.open(run.picture(g))) == picture(TEXTS[int(g.prompt)], g.seed)).all()

    def test_verdicts_that_have_not_seen_them_go(self, faulty: Faulty, tmp_path: Path) -> None:
        run, target = self.begun(faulty, tmp_path)
        assert run.scored_by() == ["constant"]
        draw_failed_again(run, target)
        assert run.scored_by() == []
        score(run, constant(0.9))
        assert len(read_jsonl(run.verdicts_file("constant"))[1]) == 39

    def test_verdicts_stay_where_no_picture_came(self, faulty: Faulty, tmp_path: Path) -> None:
        run, target = self.begun(faulty, tmp_path)
        for k in (1, 4, 8, 9, 17):
            faulty.script[TEXTS[k]] = [(200, {}, b"{")] * 2
        before = files(tmp_path)
        draw_failed_again(run, target)
        assert files(tmp_path) == before and run.scored_by() == ["constant"]

    def test_a_stop_keeps_what_came_before_it(self, faulty: Faulty, tmp_path: Path) -> None:
        run, target = self.begun(faulty, tmp_path)
        faulty.script[TEXTS[9]] = [says(401)]
        with pytest.raises(UsageError, match="OPENAI_API_KEY"):
            draw_failed_again(run, target)
        assert [g.outcome for g in run.generations("far")].count("failed") == 6  # four of ten were drawn
        assert draw_failed_again(run, target) == run.generations("far")
        assert [g.outcome for g in run.generations("far")].count("failed") == 0

    def test_nothing_to_do(self, faulty: Faulty, tmp_path: Path) -> None:
        target = asked_of(faulty)
        run = small(tmp_path, target)
        generate(run, target)
        before, asked = files(tmp_path), len(faulty.asked)
        assert draw_failed_again(run, target) == run.generations("far")
        assert files(tmp_path) == before and len(faulty.asked) == asked

    def test_what_was_not_drawn(self, faulty: Faulty, tmp_path: Path) -> None:
        target = asked_of(faulty)
        run = small(tmp_path, target)
        with pytest.raises(DataError, match="far was not drawn yet"):
            draw_failed_again(run, target)
        assert not run.generations_file("far").exists()

    def test_another_target_of_the_name(self, faulty: Faulty, tmp_path: Path) -> None:
        run, _ = self.begun(faulty, tmp_path)
        with pytest.raises(DataError, match="of a run with another target"):
            draw_failed_again(run, asked_of(faulty, size="64x64"))


def test_a_run_that_is_not_drawn_to_its_end_is_not_looked_at(faulty: Faulty, tmp_path: Path) -> None:
    target = asked_of(faulty)
    run = small(tmp_path, target)
    generate(run, target)
    path = run.generations_file("far")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:8]))
    with pytest.raises(DataError, match="far was drawn to 7 of 40 pairs; draw it to the end first"):
        score(run, constant(0.9))
