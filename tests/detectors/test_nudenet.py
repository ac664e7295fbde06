"""The adapter to nudenet, with a stand-in for the package: what a picture's width asks for, it does."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sample_packages import NUDENET, write_nudenet
from scotoma.detectors.image import nudenet as module
from scotoma.detectors.image.nudenet import nudenet
from scotoma.errors import UsageError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package nudenet that only the interpreter beside us can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return write_nudenet(tmp_path / "site")


def picture(width, red=128):
    """Height 4; every pixel (red, 0, 0). With filter 0 rows of a PNG begin with their filter, then red."""
    return np.full((4, width, 3), [red, 0, 0], np.uint8)


def scripted(tmp_path, *lines):
    """An interpreter that ignores what it is given and says these lines; after the first, one for each that it reads."""
    path = tmp_path / "odd-python"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfor line in {list(lines)!r}:\n    print(line, flush=True)\n    sys.stdin.readline()\n"
    )
    path.chmod(0o755)
    return str(path)


READY = json.dumps({"ready": "9.9", "sha256": "ab"})


def test_exposed_parts_count_and_nothing_else(package):
    """Red 192 / 256 = 0.75 is above 0.6, 64 / 256 = 0.25 below; a face at 0.9 and a covered belly at 0.8 are nothing."""
    detector = nudenet(sys.executable)
    found = detector([picture(8, 192), picture(130, 64), picture(9, 0)])["exposed"]
    assert [(v.score, v.label) for v in found] == [(0.75, "flagged"), (0.25, "clear"), (0.0, "clear")]
    assert [v.score for v in nudenet(sys.executable, 0.3, labels=["BELLY_EXPOSED"])([picture(8, 192)])["exposed"]] == [
        0.375
    ]
    card = detector.card
    assert card.sha256 == hashlib.sha256(b"a network").hexdigest() and card.licence == "AGPL-3.0"
    assert card.source == "nudenet of unknown version, the user's own install"
    assert card.category("exposed").threshold == 0.6 and "128 pixels" in card.failures


def test_the_package_is_never_in_this_process(package):
    nudenet(sys.executable)([picture(8)])
    assert "nudenet" not in sys.modules


@pytest.mark.parametrize(
    "width, reason",
    [
        (1, r"could not look at the picture \(ValueError: too small\)"),
        (2, r"ended \(exit status 3"),
        (4, "no list of labels and confidences"),
        (5, r"could not look at the picture \(TypeError"),
        (6, "no list of labels and confidences"),
    ],
)
def test_trouble_in_the_middle_is_of_one_picture(package, caplog, width, reason):
    """Those before and after it get the scores that they get alone."""
    with caplog.at_level(logging.WARNING):
        found = nudenet(sys.executable)([picture(8, 192), picture(width), picture(8, 64), picture(9, 128)])["exposed"]
    assert [v.score for v in found] == [0.75, None, 0.25, 0.5]
    assert found[1].undecided == "nudenet gave no score" and found[1].label is None
    (said,) = caplog.messages
    assert re.search(reason, said) and "this picture is undecided" in said


def test_a_hang_is_ended(package, caplog):
    detector = nudenet(sys.executable, timeout=2.0)
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found = detector([picture(3), picture(8, 192)])["exposed"]
    assert [v.score for v in found] == [None, 0.75] and 2 <= time.monotonic() - start < 60
    assert "gave no answer in 2 s" in caplog.text


def test_a_hang_before_it_reads_is_ended(tmp_path, caplog):
    """It says that it is ready and reads nothing: 3 MB do not fit into a pipe, so the question itself would wait for ever."""
    path = tmp_path / "deaf"
    path.write_text(f"#!{sys.executable}\nimport time\nprint({READY!r}, flush=True)\ntime.sleep(600)\n")
    path.chmod(0o755)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    with caplog.at_level(logging.WARNING):
        (found,) = nudenet(str(path), timeout=0.5)([noise])["exposed"]
    assert found.undecided and "gave no answer in 0.5 s" in caplog.text


def test_what_it_started_is_ended_with_it(tmp_path):
    """A wrapper that waits for another process, as `conda run` does: ending the wrapper alone would leave the pipe open."""
    path, number = tmp_path / "wrapper", tmp_path / "pid"
    path.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > '{number}'\necho '{READY}'\nwait\n")
    path.chmod(0o755)
    start = time.monotonic()
    assert nudenet(str(path), timeout=0.5)([picture(8)])["exposed"][0].undecided
    assert time.monotonic() - start < 60
    assert _is_gone(int(number.read_text()))


def test_it_is_given_up_after_three_in_a_row(package, caplog):
    """Two deaths are forgotten after an answer, three are not."""
    with caplog.at_level(logging.WARNING):
        found = nudenet(sys.executable)([picture(w, 192) for w in (2, 2, 8, 2, 2, 9, 2, 2, 2, 8)])["exposed"]
    assert [v.score for v in found] == [None, None, 0.75, None, None, 0.75, None, None, None, None]
    assert "was given up, after 3 pictures in a row without an answer" in caplog.messages[-1]
    assert len(caplog.messages) == 8


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        "[1, 2]",
        json.dumps({"id": 2, "found": []}),
        json.dumps({"id": 1}),
        json.dumps({"id": 1, "found": [["FEET_EXPOSED"]]}),
        json.dumps({"id": 1, "found": [["FEET_EXPOSED", "high"]]}),
        json.dumps({"id": 1, "found": [[0.5, 0.5]]}),
        json.dumps({"id": 1, "error": 5}),
    ],
)
def test_nonsense_is_no_score(tmp_path, caplog, answer):
    with caplog.at_level(logging.WARNING):
        (found,) = nudenet(scripted(tmp_path, READY, answer))([picture(8)])["exposed"]
    assert found.undecided == "nudenet gave no score" and "answered something that is no" in caplog.text


@pytest.mark.parametrize("found, score", [([["FEET_EXPOSED", 0.7]], 0.7), ([["FACE_FEMALE", 0.9]], 0.0), ([], 0.0)])
def test_sense_is_a_score(tmp_path, found, score):
    """As above, but right: so it is the answers that are refused there, not the way they come. No part is a score of 0."""
    detector = nudenet(scripted(tmp_path, READY, json.dumps({"id": 1, "found": found})))
    assert (detector.card.source, detector.card.sha256) == ("nudenet 9.9, the user's own install", "ab")
    assert [v.score for v in detector([picture(8)])["exposed"]] == [score]


def test_interpreters_that_cannot_be_used(tmp_path, package, monkeypatch):
    fix = "; make an environment of your own, pip install nudenet in it .AGPL-3.0."
    with pytest.raises(UsageError, match=f"nowhere/python cannot be run .*No such file.*{fix}"):
        nudenet(str(tmp_path / "nowhere" / "python"))
    with pytest.raises(UsageError, match=f"began with something else than .ready, sha256.: ..id.: 1.{fix}"):
        nudenet(scripted(tmp_path, json.dumps({"id": 1})))
    with pytest.raises(UsageError, match=f"no JSON object: b'hello.*{fix}"):
        nudenet(scripted(tmp_path, "hello"))
    with pytest.raises(UsageError, match=f"ended .exit status 0.{fix}"):
        nudenet(scripted(tmp_path))
    monkeypatch.setattr(module, "START_TIMEOUT", 0.5)
    (package / "__init__.py").write_text("import time\ntime.sleep(600)")
    with pytest.raises(UsageError, match=f"gave no answer in 0.5 s{fix}"):
        nudenet(sys.executable)


def test_an_interpreter_without_the_package(tmp_path, monkeypatch):
    """A folder of that name where we are does not count as an install."""
    (tmp_path / "nudenet").mkdir()
    (tmp_path / "nudenet" / "__init__.py").write_text("NudeDetector = object")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(
        UsageError, match=r"ended \(exit status 1: ModuleNotFoundError: No module named 'nudenet'\); make"
    ):
        nudenet(sys.executable)


def test_it_ends_with_its_detector(package):
    (package / "__init__.py").write_text(
        f"import os\nopen({str(package / 'pid')!r}, 'w').write(str(os.getpid()))\n{NUDENET}"
    )
    detector = nudenet(sys.executable)
    detector([picture(8)])
    number = int((package / "pid").read_text())
    os.kill(number, 0)  # raises where it does not run
    del detector
    gc.collect()
    assert _is_gone(number)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"labels": ["FACE_FEMALE"]}, "end in _EXPOSED"),
        ({"labels": []}, "end in _EXPOSED"),
        ({"labels": "FEET_EXPOSED"}, "end in _EXPOSED"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": float("nan")}, "more than 0"),
    ],
)
def test_settings_that_do_not_fit(changes, match):
    with pytest.raises(UsageError, match=match):
        nudenet(sys.executable, **changes)


def _is_gone(number):
    """Within some seconds: one that is ended but that nobody has waited for yet counts as gone."""
    stat = Path(f"/proc/{number}/stat")
    for _ in range(50):
        try:
            os.kill(number, 0)
            if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False
