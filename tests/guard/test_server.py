"""The server as its clients see it: the official client, refusals, limits, faults. Detectors and generator are a test's own."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import io
import json
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import openai
import pytest
from guards import detector, policy_of
from PIL import Image
from serving_cases import Running, crew_of, painted, running

from scotoma.errors import LogError, UsageError
from scotoma.guard.decide import Guard, load_guard
from scotoma.guard.decision import Unavailable
from scotoma.guard.eyes import make_eye
from scotoma.guard.log import AuditLog, open_log, read_log
from scotoma.guard.server_door import Key, Limits, read_keys
from scotoma.guard.server_work import Settings
from scotoma.guard.serving import _listen

LOOKS = "{detector: constant, options: {score: 0}, categories: {anything: violent}}"
POLICY = f"""
    categories: {{violent: {{what: weapons}}, political: }}
    prompts:
      rules:
        - {{detector: word-list, words: {{violent: [bomb]}}}}
        - {{detector: word-list, words: {{political: [crown]}}, on_hit: rewrite, instead: {{political: balloon}}}}
    pictures: {{detectors: [{LOOKS}]}}
    limits: {{pictures: 3, prompt_characters: 100, picture_pixels: 200, deadline_seconds: 10}}
"""


def redness(picture: np.ndarray) -> float:
    return float(picture[..., 0].mean() / 255)


def guard_of(text: str = POLICY, *, log: AuditLog | None = None, sees=redness) -> Guard:
    """The detector of pictures is `sees`."""
    guard = load_guard(policy_of(text), log=False)
    (look,) = guard.policy.pictures.detectors
    eye = make_eye(detector("image", sees, "anything"), look, guard.policy, "image", "a test")
    return dataclasses.replace(guard, picture_eyes=(eye,), log=log)


def opened(tmp_path: Path, guard: Guard) -> Guard:
    told = policy_of(f"log: {{path: '{tmp_path / 'log.jsonl'}', prompts: plain}}").log
    return guard_of(log=open_log(told, guard.identity, {}))


@pytest.fixture(scope="module")
def served():
    with running(crew_of(guard_of())) as server:
        yield server


def client(server: Running, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0)


def png(picture: np.ndarray, kind: str = "PNG", **options: object) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


# ------------------------------------------------------------------------------------------------- the official client


def test_the_official_client_sees_pictures_and_refusals(tmp_path: Path) -> None:
    """What is sent is what was judged: the pixels of the PNG have the hash that the log has."""
    guard = opened(tmp_path, guard_of())
    with running(crew_of(guard)) as server, client(server) as ask:
        made = ask.images.generate(prompt="an apple", model="made", n=2, extra_body={"seed": 7})
        pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(d.b64_json)))) for d in made.data]
        assert [(p == painted("an apple", 7 + i)).all() for i, p in enumerate(pictures)] == [True, True]
        assert made.data[0].model_extra["sha256"] == hashlib.sha256(pictures[0].tobytes()).hexdigest()
        assert made.model_extra["credits"] == ["drawn by a test"] and made.data[0].revised_prompt is None
        assert ask.images.generate(prompt="a crown").data[0].revised_prompt == "a balloon"
        for prompt, stage in (("a bomb", "prompt"), ("a red apple", "picture")):
            with pytest.raises(openai.BadRequestError) as no:
                ask.images.generate(prompt=prompt)
            assert no.value.code == "content_policy_violation" and no.value.body["stage"] == stage
            assert "weapons" in no.value.body["message"] and "bomb" not in no.value.body["message"]
        with pytest.raises(openai.NotFoundError):
            ask.images.generate(prompt="an apple", model="dall-e-3")
        assert [m.id for m in ask.models.list()] == ["made"]
    rows = [r for r in read_log(tmp_path / "log.jsonl") if "stage" in r]
    assert [r["outcome"] for r in rows] == ["", "returned", "", "returned", "", "returned", "refused", "", "refused"]
    assert rows[1]["picture"] == hashlib.sha256(pictures[0].tobytes()).hexdigest()
    assert rows[6]["picture"] == "" and len(rows[8]["picture"]) == 64  # what was drawn and not shown as well
    assert len({r["request"] for r in rows}) == 4 and rows[4]["drawn"] == "a balloon"


def test_the_official_client_moderates(served: Running) -> None:
    with client(served) as ask:
        one, two = ask.moderations.create(input=["an apple", "a b-o-m-b"]).results
        assert (one.flagged, two.flagged) == (False, True)
        assert two.categories.model_extra == {"violent": True, "political": False}
        assert two.category_scores.model_extra["violent"] == 1.0
        red, gray = np.full((8, 12, 3), (255, 0, 0), np.uint8), np.full((8, 12, 3), 90, np.uint8)
        for text, picture, kinds, flagged in (
            ("an apple", red, ["text", "image"], True),
            ("an apple", gray, ["text", "image"], False),
            ("a bomb", gray, ["text", "image"], True),
        ):
            parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": png(picture)}}]
            (found,) = ask.moderations.create(input=parts).results
            assert found.flagged is flagged and found.categories.model_extra["violent"] is flagged
            assert found.category_applied_input_types.model_extra["violent"] == kinds


PICTURE_TRICKS = {
    "alpha": lambda red: png(np.dstack([red, np.full(red.shape[:2], 255, np.uint8)])),
    "transparent": lambda red: png(np.dstack([red, np.zeros(red.shape[:2], np.uint8)])),
    "EXIF": lambda red: png(red, "JPEG", exif=_turned(), quality=95),
    "several frames": lambda red: png(
        np.full_like(red, 90), "GIF", save_all=True, append_images=[Image.fromarray(red)]
    ),
    "tiny": lambda red: png(red[:1, :1]),
    "huge": lambda red: png(np.zeros((30, 30, 3), np.uint8)),
    "CMYK": lambda red: _cmyk(red),
    "called otherwise": lambda red: png(red).replace("image/png", "image/jpeg"),
    "no picture": lambda red: "data:image/png;base64," + base64.b64encode(b"<svg/>").decode(),
    "no base64": lambda red: "data:image/png;base64,%%%",
    "empty": lambda red: "data:image/png;base64,",
}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _cmyk(red: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(red).convert("CMYK").save(out, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize("trick", PICTURE_TRICKS)
def test_tricks_with_pictures_are_flagged(served: Running, trick: str) -> None:
    """What is transparent is seen on white, which is clear to this detector; everything else is red or not decided."""
    url = PICTURE_TRICKS[trick](np.full((8, 12, 3), (255, 0, 0), np.uint8))
    with client(served) as ask:
        (found,) = ask.moderations.create(input=[{"type": "image_url", "image_url": {"url": url}}]).results
    assert found.flagged
    unsure = trick in ("several frames", "huge", "no picture", "no base64", "empty")
    assert bool(found.model_extra["undecided"]) == unsure


# -------------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    "path, body, status, code, param",
    [
        ("images/generations", {"prompt": "a", "n": 4}, 400, "limit_exceeded", "n"),
        ("images/generations", {"prompt": "a", "n": 0}, 400, "invalid_value", "n"),
        ("images/generations", {"prompt": "a", "size": "64x64"}, 400, "invalid_value", "size"),
        ("images/generations", {"prompt": "a" * 101}, 400, "limit_exceeded", None),
        ("images/generations", {"prompt": ""}, 400, "invalid_value", "prompt"),
        ("images/generations", {"prompt": "\ud800"}, 400, "invalid_value", "prompt"),
        ("images/generations", {"prompt": "a", "seed": -1}, 400, "invalid_value", "seed"),
        ("images/generations", {"prompt": "a", "seed": "1"}, 400, "invalid_value", "seed"),
        ("images/generations", {"prompt": "a", "response_format": "url"}, 400, "invalid_value", "response_format"),
        ("images/generations", {"prompt": "a", "moderation": "low"}, 400, "invalid_value", "moderation"),
        ("images/generations", {"prompt": "a", "tools": []}, 400, "invalid_value", "tools"),
        ("images/generations", {}, 400, "invalid_value", "prompt"),
        ("images/generations", [], 400, "invalid_value", None),
        ("moderations", {"input": []}, 400, "invalid_value", None),
        ("moderations", {"input": ["a"] * 33}, 400, "invalid_value", None),
        (
            "moderations",
            {"input": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]},
            400,
            "invalid_value",
            "input",
        ),
        ("moderations", {"input": "a naked child"}, 200, None, None),
        ("nothing", {}, 404, "not_found", None),
    ],
)
def test_what_does_not_fit(served: Running, path: str, body: object, status: int, code: str, param: str) -> None:
    got, headers, told = served.ask(f"/v1/{path}", body)
    assert got == status
    if code is None:
        assert told["results"][0]["flagged"] and told["results"][0]["categories"]["bounds"]
        return
    assert told["error"]["code"] == code
    assert param is None or told["error"]["param"] == param
    assert headers["x-request-id"] and headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"input": NaN}', b'{"input": 1' + b"0" * 10_000 + b"}"]
)
def test_bodies_that_are_no_request(served: Running, raw: bytes) -> None:
    status, _, told = served.ask("/v1/moderations", raw=raw)
    assert status == 400 and told["error"]["type"] == "invalid_request_error"


def test_other_types_and_methods(served: Running) -> None:
    assert served.ask("/v1/moderations", raw=b"{}", content_type="text/plain")[0] == 415
    status, headers, _ = served.ask("/v1/moderations", method="DELETE")
    assert status == 405 and headers["allow"] == "POST"


def test_some_pictures_of_a_request_may_be_refused() -> None:
    """Seed 8 draws a red one."""
    crew = crew_of(guard_of(), drawing=lambda texts, seeds: [painted("red" if s == 8 else "", s) for s in seeds])
    with running(crew) as server:
        status, _, told = server.picture(n=3)
        assert status == 200 and [d["seed"] for d in told["data"]] == [7, 9]
        (no,) = told["refused"]
        assert (no["index"], no["seed"], no["stage"], no["category"]) == (1, 8, "picture", "violent")


def test_a_blurred_picture_says_so() -> None:
    with running(crew_of(guard_of(POLICY.replace("]}\n    limits", "], on_hit: blur}\n    limits")))) as server:
        status, _, told = server.picture("a red apple")
        assert status == 200 and told["data"][0]["action"] == "blurred"
        assert told["data"][0]["sentence"].startswith("The picture is shown blurred")


def test_a_picture_of_one_colour_is_not_sent() -> None:
    with running(
        crew_of(guard_of(), drawing=lambda texts, seeds: [np.zeros((8, 12, 3), np.uint8) for _ in texts])
    ) as server:
        status, _, told = server.picture()
        assert (status, told["error"]["code"]) == (400, "nothing_drawn")


# -------------------------------------------------------------------------------------------------------------- the door


def test_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# whose\nalice 0123456789abcdef\nbob   fedcba9876543210 # his\n")
    with running(crew_of(guard_of()), keys=read_keys(tmp_path / "keys"), limits=Limits(per_minute=2)) as server:
        assert server.ask("/v1/policy")[0] == 401
        assert server.ask("/v1/policy", authorization="Bearer 0123456789abcde")[0] == 401
        assert server.ask("/v1/policy", authorization="0123456789abcdef")[0] == 401
        assert server.ask("/metrics")[0] == 401
        for path in ("/", "/page.js", "/docs", "/healthz", "/readyz"):
            assert server.ask(path)[0] == 200
        for _ in range(2):
            status, headers, _ = server.ask("/v1/policy", authorization="Bearer fedcba9876543210")
            assert status == 200 and headers["x-request-id"].startswith("bob:")
        status, headers, told = server.ask("/v1/policy", authorization="Bearer fedcba9876543210")
        assert (status, told["error"]["code"]) == (429, "rate_limit_exceeded") and 1 <= int(
            headers["retry-after"]
        ) <= 31
        assert server.ask("/v1/policy", authorization="Bearer 0123456789abcdef")[0] == 200
        described = server.ask("/openapi.json")[2]
        assert described["paths"]["/v1/moderations"]["post"]["security"] == [{"key": []}]


@pytest.mark.parametrize(
    "text, told",
    [
        ("alice short", "at least 16 characters"),
        ("alice", "line 1 is not NAME KEY"),
        ("a 0123456789abcdef\na 0123456789abcdeg", "has a key already"),
        ("# nobody", "holds no key"),
        ("a 0123456789abcd\u00e9f", "in ASCII"),
    ],
)
def test_key_files_that_do_not_fit(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match=told):
        read_keys(tmp_path / "keys")


def test_a_key_is_kept_nowhere(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice 0123456789abcdef")
    assert "0123456789abcdef" not in repr(read_keys(tmp_path / "keys")) and "digest" not in repr(Key("a", b"x"))


def test_without_keys_it_answers_to_names_of_this_machine_only(served: Running) -> None:
    for host, status in (("127.0.0.1", 200), ("localhost:1", 200), ("[::1]:1", 200), ("evil.example", 421), ("", 421)):
        assert served.ask("/healthz", host=host)[0] == status


def test_no_other_origin_is_let_in(served: Running) -> None:
    _, headers, _ = served.ask("/healthz", origin="https://evil.example")
    assert not [h for h in headers if h.startswith("access-control")]


def test_bodies_that_are_too_large() -> None:
    with running(crew_of(guard_of()), limits=Limits(body=1000, held=1500)) as server:
        assert server.ask("/v1/moderations", {"input": "a " * 600})[0] == 413
        padded = b'{"input": "a"}' + b" " * 700
        slow = socket.create_connection((server.host, server.port))
        slow.sendall(b"POST /v1/moderations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 999\r\n\r\n" + b" " * 900)
        _until(lambda: server.ask("/v1/moderations", raw=padded)[0] == 429)
        slow.close()
        _until(lambda: server.ask("/v1/moderations", raw=padded)[0] == 200)


def test_whoever_has_no_key_takes_no_room(tmp_path: Path) -> None:
    """Half a body to the page, which reads none: it is answered, and the common room is free."""
    (tmp_path / "keys").write_text("alice 0123456789abcdef")
    with (
        running(crew_of(guard_of()), keys=read_keys(tmp_path / "keys"), limits=Limits(held=1000)) as server,
        socket.create_connection((server.host, server.port), timeout=10) as held,
    ):
        held.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n" + b" " * 900)
        assert held.recv(100).startswith(b"HTTP/1.1 405")
        padded = b'{"input": "a"}' + b" " * 700
        assert server.ask("/v1/moderations", raw=padded, authorization="Bearer 0123456789abcdef")[0] == 200


def _until(true) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------- batches and overload


class Gate:
    """A generator that waits until it is let."""

    def __init__(self) -> None:
        self.open, self.reached = threading.Event(), threading.Event()

    def __call__(self, texts: list[str], seeds: list[int]) -> list[np.ndarray]:
        self.reached.set()
        assert self.open.wait(20)
        return [painted(t, s) for t, s in zip(texts, seeds, strict=True)]


def asked_at_once(server: Running, prompts: list[str]) -> list[threading.Thread]:
    answers: dict[str, tuple] = {}
    threads = [threading.Thread(target=lambda p=p: answers.update({p: server.picture(p)})) for p in prompts]
    for t in threads:
        t.start()
        t.answers = answers  # type: ignore[attr-defined]
    return threads


def test_prompts_that_wait_are_drawn_together_and_what_has_no_room_is_told_so() -> None:
    """The first is drawn alone; four of the next six wait and are one batch; two have no room."""
    gate = Gate()
    crew = crew_of(guard_of(), drawing=gate)
    with running(crew, settings=Settings("made", waiting=4)) as server:
        first = asked_at_once(server, ["first"])
        assert gate.reached.wait(10)
        others = asked_at_once(server, [f"other {i}" for i in range(6)])
        _until(lambda: len(others[0].answers) == 2)  # type: ignore[attr-defined]
        for status, headers, told in others[0].answers.values():  # type: ignore[attr-defined]
            assert (status, told["error"]["code"], headers["retry-after"]) == (429, "overloaded", "1")
        gate.open.set()
        for t in [*first, *others]:
            t.join(10)
        answers = first[0].answers | others[0].answers  # type: ignore[attr-defined]
        assert sorted(a[0] for a in answers.values()) == [200] * 5 + [429] * 2
        for prompt, (status, _, told) in answers.items():
            if status == 200:
                shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"]))))
                assert (shown == painted(prompt, 7)).all()
    assert [len(b) for b in crew.drawn] == [1, 4]


def test_a_client_that_has_gone_is_not_drawn_for() -> None:
    gate = Gate()
    crew = crew_of(guard_of(), drawing=gate)
    with running(crew) as server:
        first = asked_at_once(server, ["first"])
        assert gate.reached.wait(10)
        gone = socket.create_connection((server.host, server.port))
        body = json.dumps({"prompt": "for nobody"}).encode()
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        gone.sendall(head.encode() + body)
        _until(lambda: 'scotoma_waiting_items{line="drawing"} 1.0' in server.ask("/metrics")[2])
        gone.close()
        _until(lambda: 'scotoma_waiting_items{line="drawing"} 0.0' in server.ask("/metrics")[2])
        gate.open.set()
        first[0].join(10)
        assert server.picture("last")[0] == 200
    assert [p for batch in crew.drawn for p, _ in batch] == ["first", "last"]


def test_a_deadline_ends_what_is_drawn_and_what_waits() -> None:
    """What waits is overload, what is worked on is not: the one is 429, the other 503."""
    gate = Gate()
    with running(crew_of(guard_of(POLICY.replace("seconds: 10", "seconds: 0.5")), drawing=gate)) as server:
        begun = time.monotonic()
        first = asked_at_once(server, ["first"])
        assert gate.reached.wait(10)
        (second,) = asked_at_once(server, ["second"])
        for t in (*first, second):
            t.join(10)
        assert time.monotonic() - begun < 5
        status, headers, told = first[0].answers["first"]  # type: ignore[attr-defined]
        assert (status, told["error"]["code"], headers["retry-after"]) == (503, "deadline", "1")
        assert second.answers["second"][0] == 429  # type: ignore[attr-defined]
        gate.open.set()


# ----------------------------------------------------------------------------------------------------- nobody is there


def raising(error: Exception):
    def of(*_: object):
        raise error

    return of


GONE = Unavailable("the detectors of pictures have died")


@pytest.mark.parametrize(
    "crew, code",
    [
        (lambda: crew_of(guard_of(), drawing=raising(GONE)), "unavailable"),
        (lambda: crew_of(guard_of(), drawing=raising(MemoryError())), "unavailable"),
        (lambda: crew_of(guard_of(sees=raising(GONE))), "unavailable"),
        (lambda: crew_of(guard_of(log=AuditLog(Full(), "none"))), "unavailable"),
    ],
)
def test_where_somebody_is_missing_it_is_503_with_the_time_to_come_back(crew, code: str) -> None:
    with running(crew()) as server:
        status, headers, told = server.picture()
        assert (status, told["error"]["code"], headers["retry-after"]) == (503, code, "1")
        assert "again" in told["error"]["message"]


class Full:
    def append(self, lines: object) -> None:
        raise LogError("no room")

    def close(self) -> None: ...


def test_a_policy_may_let_pass_what_a_detector_failed_on() -> None:
    text = POLICY.replace("]}\n    limits", "], on_failure: review}\n    limits")
    with running(crew_of(guard_of(text, sees=raising(GONE)))) as server:
        assert server.picture()[0] == 200
        part = [{"type": "image_url", "image_url": {"url": png(np.full((2, 2, 3), 9, np.uint8))}}]
        (found,) = server.ask("/v1/moderations", {"input": part})[2]["results"]
        assert found["flagged"] and found["undecided"] == ["violent"] and found["action"] == "review"


def test_moderation_of_what_nobody_can_read_is_no_result() -> None:
    class Gone(type(crew_of(guard_of()))):  # type: ignore[misc]
        def read(self, data: bytes):
            raise GONE

    crew = crew_of(guard_of())
    with running(Gone(crew.guard, {}, crew.served)) as server:
        part = [{"type": "image_url", "image_url": {"url": png(np.full((2, 2, 3), 9, np.uint8))}}]
        status, headers, told = server.ask("/v1/moderations", {"input": part})
        assert status == 503 and headers["retry-after"] == "1" and "have died" in told["error"]["message"]


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_headers() -> None:
    """Connections of the socket that `serve` listens at have Nagle's algorithm off."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = _listen("127.0.0.1", 0)
        async with await asyncio.start_server(look, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            nodelay = await found
            writer.close()
        return nodelay

    assert asyncio.run(accepted()) == 1


def test_metrics_count_decisions_and_answers(served: Running) -> None:
    served.picture("a bomb")
    text = served.ask("/metrics")[2]
    assert 'scotoma_requests_total{path="/v1/images/generations",status="400"}' in text
    assert 'scotoma_decisions_total{action="refuse",category="violent",stage="prompt",state="hit"}' in text
    assert "bomb" not in text


# -------------------------------------------------------------------------------------------------------------- the page


def test_the_page_takes_nothing_from_elsewhere(served: Running) -> None:
    for path in ("/", "/page.css", "/page.js", "/docs"):
        status, headers, text = served.ask(path)
        assert status == 200 and "http:" not in text and "https:" not in text and "url(" not in text
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    page = served.ask("/")[2]
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", page)
    assert all(f'for="{i}"' in page for i in ("prompt", "seed", "key")) and 'aria-live="polite"' in page


def test_the_policy_in_force(served: Running) -> None:
    told = served.ask("/v1/policy")[2]
    assert (told["name"], told["model"], told["size"], told["chat"]) == ("a test", "made", "12x8", False)
    assert any("weapons" in line for line in told["says"]) and told["says"].count("log: none") == 1
    assert len(told["identity"]) == 64
    assert told["credits"] == ["drawn by a test"]
