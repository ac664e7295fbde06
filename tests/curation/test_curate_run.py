"""curate: manifests that partition the source, figures by hand, resume after a kill, flat memory."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from samples_curation import by_red, by_word, picture, png, save

from scotoma.curation import contamination
from scotoma.curation.items import Item, Loaded
from scotoma.curation.run import Variants, curate
from scotoma.curation.screen import Rule, Rules
from scotoma.errors import DataError, MissingExtraError, UsageError
from scotoma.records import read_jsonl
from scotoma.statistics import Counted, clopper_pearson, rogan_gladen

ACTIONS = ("keep", "drop", "review")


def manifests(out) -> dict[str, list[dict]]:
    return {a: read_jsonl(out / f"{a}.jsonl")[1] for a in ACTIONS}


def paths(out) -> dict[str, list[str]]:
    return {a: [r["path"] for r in rows] for a, rows in manifests(out).items()}


@pytest.fixture
def source(tmp_path):
    """Twelve files. By hand: 0 to 3 kept; 4 flagged (dropped); 5 undecided; 6 torn; 7 has the pixels of 1; 8 is 2 as a JPEG of
    another size (nearly the same); 9 a caption of storm (dropped); 10 has the pixels of 4; 11 has those of 9 and no caption."""
    from PIL import Image

    folder = tmp_path / "source"
    for i in range(4):
        save(folder / f"{i:02}.png", i, caption=f"a calm sea {i}")
    save(folder / "04.png", 4, red=200)
    save(folder / "05.png", 5, red=255)
    (folder / "06.png").write_bytes(png(picture(6))[:30])
    (folder / "07.webp").write_bytes((folder / "01.png").read_bytes())
    Image.fromarray(picture(2)).resize((48, 48), Image.Resampling.BICUBIC).save(folder / "08.jpg", quality=95)
    save(folder / "09.png", 9, caption="a storm at sea")
    (folder / "10.png").write_bytes((folder / "04.png").read_bytes())
    (folder / "11.png").write_bytes((folder / "09.png").read_bytes())
    return folder


def test_a_source_by_hand(source, tmp_path):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in source.iterdir()}
    out = tmp_path / "out"
    summary = curate(source, out, [by_red(), by_word()], at_once=5)
    found = paths(out)
    assert found["keep"] == ["00.png", "01.png", "02.png", "03.png"]
    assert found["drop"] == ["04.png", "07.webp", "08.jpg", "09.png", "10.png"]
    assert found["review"] == ["05.png", "06.png", "11.png"]
    rows = {r["path"]: r for rs in manifests(out).values() for r in rs}
    assert rows["07.webp"]["reasons"][0] == {"why": "exact duplicate", "of": "01.png"}
    assert rows["08.jpg"]["reasons"][0] == {"why": "near duplicate", "of": "02.png"}
    assert rows["10.png"]["reasons"][0]["why"] == "flagged" and rows["09.png"]["reasons"][0]["category"] == "stormy"
    assert rows["11.png"]["reasons"] == [{"why": "a duplicate of it is dropped"}] and "11.png" in found["review"]
    assert sorted(itertools.chain(*found.values())) == sorted(p.name for p in source.iterdir() if p.suffix != ".txt")
    assert summary["counts"] == {
        "items": 12, "keep": 4, "review": 3, "drop": 5, "readable": 11, "unreadable": 1, "bounds": 0, "damaged": 0
    }  # fmt: skip
    assert {k: summary["duplicates"][k] for k in ("groups", "members", "exact", "near")} == {
        "groups": 4, "members": 8, "exact": 3, "near": 1
    }  # fmt: skip
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in source.iterdir()} == before
    assert {p.name for p in out.iterdir()} == {
        *(f"{a}.jsonl" for a in ACTIONS), "items.jsonl", "duplicates.jsonl", "summary.json", "report.html"
    }  # fmt: skip
    assert not any("sea" in p.read_text() for p in out.iterdir())  # no caption is written anywhere


def test_once_more_looks_at_nothing_and_other_rules_need_no_look(source, tmp_path):
    out = tmp_path / "out"
    curate(source, out, [by_red()])
    files = {p.name: p.read_bytes() for p in out.iterdir()}

    def never(pictures):
        raise AssertionError("it looked again")

    blind = by_red()
    object.__setattr__(blind, "score", never)
    curate(source, out, [blind])
    assert {p.name: p.read_bytes() for p in out.iterdir()} == files
    curate(source, out, [blind], Rules(review=(Rule("reddish", 0.7),)), near=None)
    assert "04.png" in paths(out)["review"] and "08.jpg" in paths(out)["keep"]
    with pytest.raises(DataError, match="another words"):
        curate(source, out, [by_red(), by_word()])


def test_what_is_near_to_a_dropped_picture_is_not_kept(tmp_path, monkeypatch):
    """The hashes of the three are 5 bits apart from one to the next, so that the first and the last are 10: the one in the middle is
    flagged and follows the first; the last stands alone."""
    from scotoma.detectors.image import known

    def bits(pictures):
        ones = {10: 0, 200: 5, 20: 10}
        return [np.arange(64) < ones[int(p[0, 0, 0])] for p in pictures]

    monkeypatch.setattr(known, "hashes", bits)
    for i, red in enumerate((10, 200, 20)):
        save(tmp_path / f"s/{i}.png", 1, red=red)
    curate(tmp_path / "s", tmp_path / "o", [by_red()])
    assert paths(tmp_path / "o") == {"keep": [], "drop": ["1.png"], "review": ["0.png", "2.png"]}


def test_contamination_by_hand(tmp_path):
    """Of 10 pictures 2 are flagged, 1 is undecided, and 3 of the clear ones are the same. Decided: 9, in clusters 1, 1, 3, 1, 1,
    1, 1; worth (9)^2 / (6 * 1 + 9) = 5.4 cases. Corrected with Se 9/10 and Sp 19/20: (2/9 + 0.95 - 1) / 0.85 = 0.2026."""
    folder = tmp_path / "s"
    for i in range(7):
        save(folder / f"{i}.png", i, red=200 if i < 2 else 255 if i == 6 else None)
    for i in (7, 8):
        (folder / f"{i}.png").write_bytes((folder / "5.png").read_bytes())
    save(folder / "9.png", 9)
    red = by_red(sensitivity=Counted(9, 10), specificity=Counted(19, 20))
    (row,) = curate(folder, tmp_path / "o", [red])["contamination"]
    flagged, prevalence = row["flagged"], row["prevalence"]
    assert (flagged["value"], flagged["n"], flagged["undecided"]) == (2 / 9, 9, 1)
    low, high = contamination.beta_interval(2 / 9, 5.4)
    assert (flagged["low"], flagged["high"]) == pytest.approx((low, high))
    assert prevalence["value"] == pytest.approx((2 / 9 - 0.05) / 0.85)
    of_five = rogan_gladen(1, 5, Counted(9, 10), Counted(19, 20))
    assert prevalence["high"] == pytest.approx(of_five.high)


def test_a_rate_without_duplicates_is_clopper_pearson():
    f = contamination.rate(3, 40, np.ones(40))
    assert (f.low, f.high) == pytest.approx(clopper_pearson(3, 40))
    assert contamination.rate(0, 0, np.zeros(0)).value is None
    known = Counted(90, 100), Counted(80, 100)  # a fifth of what has nothing is flagged as well
    assert "false alarms" in contamination.corrected(3, 40, np.ones(40), 0, *known).note
    assert contamination.corrected(20, 40, np.ones(40), 0, *known).note == ""


def test_any_category_is_flagged_clear_undecided_or_not_asked():
    from scotoma.detectors.constant import constant

    of = contamination.columns([constant(0.5, categories=("x", "y")).card])
    assert [c.category for c in of] == ["x", "y", "any"]
    assert contamination.flags({"constant": [0.5, None]}, of) == [1, -1, 1]
    assert contamination.flags({"constant": [0.4, None]}, of) == [0, -1, -1]
    assert contamination.flags({"constant": [0.4, 0.0]}, of) == [0, 0, 0]
    assert contamination.flags({}, of) == [-2, -2, -2]


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[3])
from samples_curation import by_red
from scotoma.curation.run import curate
red = by_red()
fast = red.score
def slow(pictures):
    time.sleep(0.02)
    return fast(pictures)
object.__setattr__(red, "score", slow)
curate(sys.argv[1], sys.argv[2], [red], at_once=4, near=None, progress=lambda what, done: print(what, done, flush=True))
"""


def test_killed_at_any_point_nothing_is_lost_and_nothing_is_there_twice(tmp_path):
    folder, out = tmp_path / "s", tmp_path / "o"
    for i in range(60):
        save(folder / f"{i:02}.png", i % 50, red=200 if i % 7 == 0 else None)
    call = [sys.executable, "-c", SCRIPT, str(folder), str(out), str(Path(__file__).parent)]
    for stop in (2, 7):
        with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(stop):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and not (out / "keep.jsonl").exists()
        with (out / "items.jsonl").open("ab") as file:
            file.write(b'{"path": "cut sh')  # as a kill within a write leaves it
    done = len((out / "items.jsonl").read_text().splitlines()) - 2
    assert 8 <= done < 60
    curate(folder, out, [by_red()], near=None)
    plain = curate(folder, tmp_path / "again", [by_red()], near=None)
    for name in ("items", *ACTIONS, "duplicates"):
        assert read_jsonl(out / f"{name}.jsonl")[1] == read_jsonl(tmp_path / f"again/{name}.jsonl")[1]
    every = list(itertools.chain(*paths(out).values()))
    assert len(every) == len(set(every)) == 60 == plain["counts"]["items"]


def test_one_run_at_a_time(source, tmp_path):
    """A second run into the folder of one that is under way is turned away, and nothing is written twice."""

    def meanwhile(what, done):
        with pytest.raises(DataError, match="another run writes to"):
            curate(source, tmp_path / "o", [by_red()])

    assert curate(source, tmp_path / "o", [by_red()], progress=meanwhile)["counts"]["items"] == 12
    assert curate(source, tmp_path / "o", [by_red()])["counts"]["items"] == 12


def test_a_source_that_changed_is_not_gone_on_with(source, tmp_path):
    curate(source, tmp_path / "o", [by_red()])
    (source / "00.png").rename(source / "000.png")
    with pytest.raises(DataError, match=r"item 0 was '00\.png'"):
        curate(source, tmp_path / "o", [by_red()])
    (source / "000.png").rename(source / "00.png")
    save(source / "zz.png", 77)  # what comes behind is looked at
    assert curate(source, tmp_path / "o", [by_red()])["counts"]["items"] == 13


def test_a_detector_that_fails_stops_the_run_which_goes_on_later(source, tmp_path):
    broken = by_red()

    def fail(pictures):
        raise RuntimeError("out of memory")

    object.__setattr__(broken, "score", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        curate(source, tmp_path / "o", [broken], at_once=4)
    assert not (tmp_path / "o/keep.jsonl").exists()
    assert curate(source, tmp_path / "o", [by_red()], at_once=4)["counts"]["items"] == 12


def test_bounds_no_copy_no_caption_and_no_detector(source, tmp_path, monkeypatch):
    from scotoma import bounds

    monkeypatch.setattr(bounds, "RULES", (bounds.Rule("testing", ("purple",), ("teapot",)),))
    (source / "01.txt").write_text("a purple &#116;eap%6Ft")
    summary = curate(source, tmp_path / "o", [by_red()])
    rows = {r["path"]: (a, r) for a, rs in manifests(tmp_path / "o").items() for r in rs}
    assert rows["01.png"][0] == "drop" and rows["01.png"][1]["reasons"] == [{"why": "bounds"}]
    assert rows["07.webp"][0] == "review"  # the same pixels, without that caption
    assert summary["counts"]["bounds"] == 1 and summary["listed"]["bounds"] == ["01.png"]
    page = (tmp_path / "o/report.html").read_text()
    assert "inhope.org" in page and "CyberTipline" in page and "<img" not in page
    assert not any("purple" in p.read_text() for p in (tmp_path / "o").iterdir())


def test_damaged_parts_are_told_and_the_rest_is_curated(source, tmp_path):
    (source / "zz.tar").write_bytes(b"no tar" * 300)
    summary = curate(source, tmp_path / "o", [by_red()])
    assert [d["path"] for d in summary["damaged"]] == ["zz.tar"] and summary["counts"]["items"] == 12
    assert "zz.tar" in (tmp_path / "o/report.html").read_text()


def test_variants_are_listed_and_not_dropped(source, tmp_path):
    def mean_colour(pictures):
        return np.array([[*p.reshape(-1, 3).mean(0), 1.0] for p in pictures])

    told = Variants(mean_colour, 0.9995, "ab")
    summary = curate(source, tmp_path / "o", [by_red()], near=None, variants=told, at_once=5)
    assert summary["variants"]["members"] >= 8 and summary["duplicates"]["near"] == 0
    assert "08.jpg" in paths(tmp_path / "o")["keep"]
    assert curate(source, tmp_path / "o", [by_red()], near=None, variants=told)["variants"] == summary["variants"]
    assert (tmp_path / "o/features.f16").stat().st_size == 12 * 4 * 2


def test_settings_that_do_not_fit(source, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="lies in"):
        curate(source, source / "out", [by_red()])
    assert not (source / "out").exists()
    with pytest.raises(UsageError, match="0 to 16"):
        curate(source, tmp_path / "o", [by_red()], near=40)
    with pytest.raises(UsageError, match="needs a detector"):
        curate(source, tmp_path / "o", [])
    with pytest.raises(UsageError, match="cosine"):
        Variants(lambda p: p, 3.0, "")
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[known\]"):
        curate(source, tmp_path / "o", [by_red()])
    assert not (tmp_path / "o").exists()


def test_an_empty_source(tmp_path):
    (tmp_path / "s").mkdir()
    summary = curate(tmp_path / "s", tmp_path / "o", [by_red()])
    assert summary["counts"]["items"] == 0 and paths(tmp_path / "o") == {a: [] for a in ACTIONS}


def test_memory_does_not_grow_with_the_items(tmp_path, monkeypatch):
    """2,000 pictures of 110 kB, which are 220 MB: 64 wait at most, and what is looked at; records and summary have less than 1 kB
    an item."""
    from scotoma.curation import sources

    def stream(n):
        data = [png(picture(i, side=192)) for i in range(4)]
        return lambda *args: iter([Item(f"{i}.png", lambda i=i: Loaded(data[i % 4], f"item {i}")) for i in range(n)])

    def peak(n):
        monkeypatch.setattr(sources, "entries", stream(n))
        tracemalloc.start()
        try:
            curate(tmp_path / "none", tmp_path / str(n), [by_red()], near=None, at_once=32)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports, templates
    assert peak(2000) < (64 + 34) * 111e3 + 2000 * 1e3
