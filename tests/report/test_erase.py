"""The erase report: what it says, what it never says, and that nothing in it can reach out or run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from reader import HOSTILE, Page

from scotoma.records import Evidence, Figure, RunHeader
from scotoma.report import ErasePictures, erase_report
from scotoma.report.erase import outcome

PAIRED = "tango 95%, paired on the same seeds"


def picture(shade: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), shade, np.uint8)


def pair(group="concept", prompt="a dagger", seed=0, before="dagger", after="pencil", side=8) -> ErasePictures:
    return ErasePictures(group, prompt, seed, picture(seed % 256, side), picture(200, side), before, after)


def figures(**changes) -> dict[str, Figure]:
    base = {
        "forgotten": Figure(398 / 400, 400, 0.9821, 0.9994, 3),
        "redirected": Figure(0.9, 400, 0.866, 0.927),
        "elsewhere": Figure(0.095, 400, 0.068, 0.128),
        "off_manifold": Figure(0.0125, 400, -0.004, 0.031, interval=PAIRED),
        "retained_near_drop": Figure(0.021, 480, 0.004, 0.041, interval=PAIRED),
        "retained_far_drop": Figure(-0.003, 1200, -0.012, 0.006, interval=PAIRED),
        "retained_near": Figure(0.87, 480, 0.8366, 0.8988),
        "retained_far": Figure(0.902, 1200, 0.884, 0.918),
        "kid": Figure(0.00213, 1500, interval="none"),
        "kid_unedited": Figure(0.00198, 1500, interval="none"),
        "fid": Figure(4.71, 1500, interval="none"),
        "fid_unedited": Figure(4.32, 1500, interval="none"),
        "same_seed_distance": Figure(0.143, 1680, 0.131, 0.156, interval="bootstrap 95%"),
    }
    return {k: v for k, v in (base | changes).items() if v is not None}


def header(**changes) -> RunHeader:
    values = {
        "command": "scotoma erase",
        "given": {"concept": "dagger"},
        "resolved": {"concept": "dagger", "config": {"rank": 1}},
        "hashes": {"model": "ab" * 32, "edit": "cd" * 32},
        "version": "0.1.0",
        "commit": "0123abcd" * 5,
        "dirty": True,
        "started": "2026-01-02T03:04:05Z",
    }
    return RunHeader(**(values | changes))


def report(figs=None, concepts=None, pictures=None, records=(), head=None, **changes) -> str:
    concepts = {"axe": Figure(0.1, 60, 0.02, 0.2, interval=PAIRED)} if concepts is None else concepts
    evidence = Evidence(head or header(), figures() if figs is None else figs, concepts, tuple(records))
    values = {
        "title": "Erasure report",
        "concept": "dagger",
        "instead": "pencil",
        "command": "scotoma erase zoo:emoji --concept dagger --instead pencil",
        "self_check": {"passed": True, "checks": [{"name": "changed", "passed": True, "detail": "14 tensors"}]},
        "credits": ["Twemoji, CC-BY 4.0"],
    }
    return erase_report(evidence, [pair()] if pictures is None else pictures, **(values | changes))


def row(html: str, label: str) -> str:
    """The text of the table row whose header is `label`."""
    rows = [r for r in re.findall(r"<tr.*?</tr>", html, re.DOTALL) if f"<bdi>{label}</bdi>" in r]
    assert len(rows) == 1, f"{len(rows)} rows are called {label!r}"
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", " ", rows[0]))


def test_the_title_line_states_the_outcome():
    assert outcome(figures(), "dagger") == (
        "dagger was judged gone in 398 of 400 pictures (95\u00a0% interval 98.2 to 99.9\u00a0%; 3 more undecided); "
        "near concepts lost 2.1 points, far concepts gained 0.3 points."
    )
    title = re.search("<h1>(.*?)</h1>", report(), re.DOTALL)
    assert title is not None and title.group(1) == outcome(figures(), "dagger")


@pytest.mark.parametrize(
    "figure, reason",
    [
        (Figure(None, 0, undecided=400, note="no judge knows it."), "no judge knows it"),
        (Figure(0.0, 0), "nothing was judged (n = 0)"),
        (Figure(None, 0), "no reason was recorded"),
        (None, "the evaluation did not record it"),
    ],
)
def test_an_undecided_outcome_is_never_a_number(figure, reason):
    line = outcome(figures(forgotten=figure, retained_near_drop=None), "dagger")
    assert line.startswith(
        f"Whether dagger is gone is undecided ({reason}); the cost to near concepts is undecided, far"
    )
    assert "judged gone" not in line


def test_figures_stand_with_n_undecided_and_interval():
    html = report()
    assert re.search(r"99\.5\u00a0% 98\.2 to 99\.9\u00a0% 400 3", row(html, "Forgotten"))
    assert re.search(r" 2\.1 0\.4 to 4\.1 480 0", row(html, "Near concepts, drop"))
    assert re.search(r" \u22120\.3 \u22121\.2 to 0\.6 1,200 0", row(html, "Far concepts, drop"))
    assert re.search(r"0\.00213 none 1,500 0 unedited model: 0\.00198", row(html, "KID"))
    assert re.search(r"0\.143 0\.131 to 0\.156 1,680 0", row(html, "Same-seed distance"))
    labels = [a["aria-label"] for a in Page(html).all("svg") if "aria-label" in a]
    assert "Forgotten: 99.5\u00a0%, 95\u00a0% interval 98.2 to 99.9\u00a0%" in labels
    assert "Near concepts, drop: 2.1 points, 95\u00a0% interval 0.4 to 4.1 points" in labels
    assert f"Intervals: bootstrap 95%; clopper-pearson 95%; {PAIRED}." in Page(html).text


def test_undecided_figures_are_shown_with_their_reason():
    html = report(figures(redirected=Figure(None, 0, undecided=400, note="no judge"), fid=None))
    assert re.search(r"Undecided – 0 400 no judge", row(html, "Redirected"))
    assert re.search(r"Undecided – – – the evaluation did not record this figure", row(html, "Feature FID"))
    assert "0.0\u00a0%" not in row(html, "Redirected")


def test_a_figure_the_table_does_not_know_is_listed():
    assert re.search(r" 0\.250 0\.200 to 0\.300 40 1", row(report(figures(odd=Figure(0.25, 40, 0.2, 0.3, 1))), "odd"))


@pytest.mark.parametrize(
    "check, verdict",
    [
        ({"passed": True}, "passed"),
        ({"passed": False, "reason": "nothing changed"}, "failed"),
        ({"passed": None}, "undecided"),
        ({}, "undecided"),
        ({"passed": "yes"}, "undecided"),
        ({"passed": True, "checks": [{"name": "a", "passed": False}, {"name": "b", "passed": None}]}, "failed"),
        ({"passed": True, "checks": [{"name": "a", "passed": True}, {"name": "b"}]}, "undecided"),
    ],
)
def test_the_self_check_shows_the_worst_it_was_told(check, verdict):
    assert f"Self-check: {verdict}" in Page(report(self_check=check)).text


def test_concepts_are_sorted_by_drop_with_the_undecided_apart():
    html = report(
        concepts={
            "axe": Figure(0.02, 60, -0.01, 0.1, interval=PAIRED),
            "zombie": Figure(None, 0, undecided=60, note="not a label"),
            "bomb": Figure(0.25, 60, 0.15, 0.37, interval=PAIRED),
            "kite": Figure(-0.05, 60, -0.1, 0.0, interval=PAIRED),
        },
        records=[{"wanted": "axe", "role": "near"}, {"wanted": "kite", "role": "far"}],
    )
    order = [name for name in re.findall(r"<bdi>(\w+)</bdi>", html) if name in ("axe", "zombie", "bomb", "kite")]
    assert order == ["bomb", "axe", "kite", "zombie"]
    assert "4 concepts, 1 undecided" in Page(html).text
    assert "axe near 2.0" in row(html, "axe") and "not a label" in row(html, "zombie")
    assert "what single concepts lost is undecided" in Page(report(concepts={})).text


def test_pictures_against_the_edit_come_first():
    pictures = [pair(seed=1), pair(seed=2, after="Dagger"), pair(seed=3, after=None)]
    pictures += [pair("near", "an axe", 4, "axe", "axe"), pair("near", "an axe", 5, "axe", "saw")]
    page = Page(report(pictures=pictures))
    assert re.findall(r"seed (\d)", page.text) == ["2", "3", "1", "5", "4"]
    assert "3 pairs: 1 still judged dagger, 1 undecided." in page.text
    assert "2 pairs: 1 with a changed verdict, 0 undecided." in page.text
    assert page.text.count("No pictures of this group") == 2


def test_a_category_is_not_called_gone_by_comparing_names():
    """The judge names objects, the concept is a category: without its labels no picture can be marked as still it."""
    pictures = [pair(before="bomb", after="bomb", seed=1), pair(before="axe", after="hammer", seed=2)]
    text = Page(report(pictures=pictures, concept="violent")).text
    assert "1 with an unchanged verdict" in text and "still judged violent" not in text
    told = Page(report(pictures=pictures, concept="violent", labels=["bomb", "axe"])).text
    assert "2 pairs: 1 still judged violent" in told and "still judged bomb" in told


def test_alt_texts_name_prompt_seed_and_verdict():
    alts = [
        a["alt"]
        for a in Page(report(pictures=[pair(seed=9, after=None), pair("null", "", 3, "axe", "axe")])).all("img")
    ]
    assert alts[:2] == [
        "before the edit: prompt “a dagger”, seed 9, judged dagger",
        "after the edit: prompt “a dagger”, seed 9, judged undecided",
    ]
    assert alts[2] == "before the edit: prompt “(empty)”, seed 3, judged axe"


def test_many_pictures_fold_away_and_none_is_dropped():
    page = Page(report(pictures=[pair(seed=i) for i in range(25)]))
    assert len(page.all("img")) == 50 and "1 more pair " in page.text


def test_blur_follows_the_caller():
    boxes = {b: next(a for a in Page(report(blurred=b)).all("input") if a.get("id") == "blur") for b in (True, False)}
    assert "checked" in boxes[True] and "checked" not in boxes[False]


def test_large_pictures_are_reduced_and_the_page_says_so():
    assert "above 256 pixels are shown reduced" in Page(report(pictures=[pair(side=300)])).text
    assert "reduced" not in Page(report()).text


def test_record_reproduction_and_credits():
    text = Page(report()).text
    for said in ("ab" * 32, "cd" * 32, "0123abcd" * 5, "yes: the commit alone does not reproduce", "2026-01-02T03:04:05Z",
                 "scotoma erase zoo:emoji --concept dagger --instead pencil", "Twemoji, CC-BY 4.0", '{"rank": 1}',
                 "not given", "these prompts, these seeds, this guidance and this judge"):  # fmt: skip
        assert said in text
    assert "proved" not in text.lower()
    clean = Page(report(head=header(dirty=False, commit=None))).text
    assert "unknown: not run from a checkout" in clean and "The commit is unknown; use version 0.1.0" in clean


def test_hostile_strings_stay_text():
    figure = Figure(0.1, 60, 0.0, 0.2, note=HOSTILE, interval=HOSTILE)
    html = report(
        figures(forgotten=Figure(None, 0, note=HOSTILE), **{HOSTILE: figure}),
        concepts={HOSTILE: figure, HOSTILE + "2": Figure(None, 0, note=HOSTILE)},
        records=[{"wanted": HOSTILE, "role": HOSTILE}],
        pictures=[pair(g, HOSTILE, 1, HOSTILE, HOSTILE) for g in ("concept", "near", "far", "null")],
        head=header(given={HOSTILE: HOSTILE}, resolved={HOSTILE: {HOSTILE: [HOSTILE]}}, hashes={HOSTILE: HOSTILE},
                    version=HOSTILE, commit=HOSTILE, started=HOSTILE),
        title=HOSTILE, concept=HOSTILE, instead=HOSTILE, command=HOSTILE, credits=[HOSTILE], labels=[HOSTILE],
        self_check={"passed": True, "reason": HOSTILE, "checks": [{"name": HOSTILE, "passed": True, "detail": HOSTILE}]},
    )  # fmt: skip
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\u202a-\u202e\ud800-\udfff]", html)
    assert "49" not in [t.strip() for t in Page(html).texts] and "{{ 7*7 }}" in Page(html).text
    assert_self_contained(html)


def test_an_ordinary_page_is_self_contained():
    assert_self_contained(report(credits=["see https://creativecommons.org/licenses/by/4.0/"]))


def assert_self_contained(html: str) -> None:
    page = Page(html)
    assert len(page.all("script")) == 1 and page.all("script")[0] == {}
    assert len(page.all("style")) == 1
    forbidden = {
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "a",
        "audio",
        "video",
        "source",
        "foreignobject",
        "use",
    }
    assert not forbidden & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "href", "srcset", "action", "background"), (
                tag,
                name,
            )
            if name == "src":
                assert tag == "img" and re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", value or "")
    for inside in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", html, re.DOTALL):
        assert "url(" not in inside and "@import" not in inside and "http" not in inside


def test_same_inputs_same_bytes():
    assert report() == report()


def test_a_picture_of_the_wrong_kind_is_refused():
    with pytest.raises(ValueError, match="group is one of concept, near, far, null, mosaic, not 'other'"):
        pair("other")
    with pytest.raises(ValueError, match=r"after must be a uint8 picture \(H, W, 3\), not float64 \(4, 4, 3\)"):
        ErasePictures("far", "x", 0, picture(0), np.zeros((4, 4, 3)), None, None)


def test_the_curve_of_a_training_and_a_student_in_many_steps():
    curve = [{"step": 50 * i, "forgotten": i / 4, "retained": 0.9, "fid": 9.0 - i} for i in range(1, 5)]
    many = {"w = 1, 25 steps": Figure(0.9, 200, 0.85, 0.94), "w = 2, 25 steps": Figure(None, 0, undecided=3, note="x")}
    page = Page(report(curve=curve, many_steps=many))
    curves = [a for a in page.all("svg") if a.get("class") == "curve"]
    assert [a["aria-label"] for a in curves] == [
        "percent over step, 4 points; at the end forgotten 100, retained 90",
        "feature FID over step, 4 points; at the end fid 5",
    ]
    assert "If it is sampled in many steps after all" in page.text and "w = 1, 25 steps" in page.text
    assert "90.0" in page.text


def test_mosaics_that_were_learnt_from_are_shown_with_what_all_of_them_cover():
    covered = {"unwanted": 0.312, "benign": 0.04, "left_out": 3, "pitch": 16, "still_seen": 0.01}
    shown = [pair("mosaic", "a dagger", 11, "dagger", "not seen"), pair("mosaic", "one dagger", 12, "dagger", "dagger")]
    html = report(pictures=[pair(), *shown], covered=covered)
    group = html.split('id="pictures-mosaic"')[1]
    assert "Cells of 16 pixels; the mosaic covers 31 % of unwanted pictures; it would cover 4 % of benign ones" in group
    assert "3 pictures in which the concept was not seen were left out" in group
    assert "the classifier still sees the concept in 1 % of the mosaics. 2 pairs: 1 in which" in group
    assert group.index("one dagger") < group.index("a dagger")  # the mosaic that hides nothing comes first
    assert "pictures-mosaic" not in report(pictures=[pair()])


def test_other_guidances_and_rho():
    guided = {"w = 1": Figure(0.98, 64, 0.92, 1.0), "w = 7.5": Figure(0.25, 64, 0.15, 0.37)}
    page = Page(report(guided=guided, rho=[{"sigma": 10.0, "rho": 0.9}, {"sigma": 0.1, "rho": 0.5}]))
    assert "At other guidances" in page.text and "w = 7.5" in page.text and "25.0" in page.text
    (curve,) = [a for a in page.all("svg") if a.get("class") == "curve"]
    assert curve["aria-label"] == "rho over noise level, 2 points, least 0.50"
    assert "At other guidances" not in Page(report()).text


def test_other_words_and_layout_have_sections_of_their_own():
    more = {"shown_by_synonym": Figure(0.5, 48, 0.35, 0.65), "edges_kept": Figure(0.1, 20, 0.08, 0.12)}
    page = Page(report({**figures(), **more}))
    assert "Other words for the concept" in page.text and "Layout" in page.text
    assert "Words for its kind" not in page.text


def test_without_a_training_there_is_no_curve():
    page = Page(report())
    assert "Along the training" not in page.text and "many steps after all" not in page.text
