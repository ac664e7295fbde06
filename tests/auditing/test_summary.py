"""Summary, mitigations, gate and gallery of an audit, on verdicts whose counts are known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from scotoma.auditing import gate, mitigations
from scotoma.auditing.audit import audit, sum_up
from scotoma.auditing.gallery import shown
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import load
from scotoma.auditing.summarise import ALL, ANY, FIRST, SECOND, corrected_together, read_tables, table
from scotoma.auditing.targets import Nothing, Target
from scotoma.cli.report import write
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import DataError, UsageError
from scotoma.records import Prompt
from scotoma.statistics import Counted, clopper_pearson, clustered_rate

SEEDS = 2


def picture(red: int, green: int = 0) -> np.ndarray:
    """Red and green of its first pixel are what the detectors below look at."""
    out = np.zeros((4, 4, 3), np.uint8)
    out[..., 2] = np.arange(4)
    out[0, 0] = (red, green, 9)
    return out


def prompts(name: str, role: str, count: int, category: str = "", cluster: str = "") -> PromptSet:
    rows = tuple(
        Prompt(f"{i:03}", f"{name} {i}", name, role, category, f"{cluster}{i // 2}" if cluster else "")  # type: ignore[arg-type]
        for i in range(count)
    )
    return PromptSet(name, role, rows)


def target(name: str, red: Sequence[int], green: Sequence[int]) -> Target:
    """Draws what `red` and `green` say for the number of a prompt; controls are black but for one pixel."""

    def draw(asked: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray | Nothing]:
        out: list[np.ndarray | Nothing] = []
        for p in asked:
            i = int(p.id)
            if p.role == "control":
                out.append(picture(0))
            elif red[i] < 0:
                out.append(Nothing("filtered", "withheld by the server"))
            else:
                out.append(picture(red[i], green[i]))
        return out

    return Target(name, "model", name, draw, 3)


def detector(name: str, *, rates: bool = False, undecided: int = 7) -> Detector:
    """violent: red of the first pixel above 100, undecided where it is `undecided`; hateful: green above 100."""
    counted = (Counted(9, 10), Counted(19, 20)) if rates else (None, None)
    categories = (
        Category("violent", "red", 0.5, *counted, measured_on="ten and twenty" if rates else ""),
        Category("hateful", "green", 0.5),
    )

    def score(batch: Sequence[np.ndarray]) -> np.ndarray:
        rows = [[x[0, 0, 0] / 200, x[0, 0, 1] / 200] for x in batch]
        return np.array([[np.nan if x[0, 0, 0] == undecided else r[0], r[1]] for x, r in zip(batch, rows, strict=True)])

    return Detector(Card(name, "image", "here", "Apache-2.0", name, categories, "none known"), score)


RED = [200, 200, 0, 0, 7, -1, 200, 0]
GREEN = [200, 0, 200, 0, 0, 0, 0, 0]
AFTER = [0, 0, 0, 0, 0, 0, 200, 200]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    sets = [prompts("asked", "users", 8, "violent", "pair"), prompts("calm", "control", 6)]
    targets = [target("first", RED, GREEN), target("second", AFTER, [0] * 8)]
    return audit(
        folder / "run", targets, sets, [detector("one", rates=True), detector("two", undecided=-1)], seeds=SEEDS
    )


def cell(summary, **what):
    (found,) = [c for c in summary["cells"] if all(c[k] == v for k, v in what.items())]
    return found


def test_a_rate_leaves_out_what_is_undecided_or_withheld(made):
    _, summary = made
    f = cell(summary, detector="one", model="first", set="asked", category="violent")["flagged"]
    # 8 prompts x 2 seeds; one prompt withheld, one undecided: 3 of 6 prompts flagged
    assert (f["value"], f["n"], f["undecided"]) == (0.5, 12, 2)
    clusters = ["0"] * 4 + ["1"] * 4 + ["3"] * 4
    expected = clustered_rate([1] * 4 + [0] * 4 + [1, 1, 0, 0], clusters)
    assert (f["low"], f["high"]) == pytest.approx((expected.low, expected.high))
    outcomes = next(o for o in summary["outcomes"] if (o["model"], o["set"]) == ("first", "asked"))
    assert (outcomes["asked"], outcomes["picture"], outcomes["filtered"]) == (16, 14, 2)
    assert outcomes["reasons"] == {"withheld by the server": 2}


def test_any_is_flagged_in_one_category_and_undecided_only_where_nothing_is_flagged(made):
    run, _ = made
    t = table(run, "one")
    own = t.rows("first", "asked")
    by_prompt = {
        p: int(v) for (_, p, _), v in zip(np.array(t.pair, dtype=object)[own], t.flagged[ANY][own], strict=True)
    }
    assert by_prompt == {"000": 1, "001": 1, "002": 1, "003": 0, "004": -1, "006": 1, "007": 0}


def test_all_prompts_leave_harmless_controls_out(made):
    _, summary = made
    both = [cell(summary, detector="two", model="first", set=s, category="hateful")["flagged"] for s in ("asked", ALL)]
    assert both[0] == both[1]
    control = cell(summary, detector="two", model="first", set="calm", category=ANY)["flagged"]
    assert (control["value"], control["n"]) == (0.0, 12)


def test_rates_are_corrected_only_where_the_card_knows_how_often_it_is_right(made):
    _, summary = made
    corrected = cell(summary, detector="one", model="first", set="asked", category="violent")["prevalence"]
    assert corrected["value"] == pytest.approx((0.5 + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert corrected["low"] <= 0.35 and corrected["high"] >= 0.7  # three clusters of two prompts say little
    # 0 of 6 prompts is fewer than 1 of 20 false alarms, and chance explains it: 0, with a note and a width
    cut_off = cell(summary, detector="one", model="second", set="calm", category="violent")["prevalence"]
    assert cut_off["value"] == 0.0 and cut_off["low"] == 0.0 and cut_off["high"] > 0.3
    assert cut_off["note"].startswith("fewer are flagged than the false alarms")
    assert corrected["note"] == ""
    assert "prevalence" not in cell(summary, detector="one", model="first", set="asked", category="hateful")
    assert "prevalence" not in cell(summary, detector="two", model="first", set="asked", category="violent")


def test_pairs_share_prompt_and_seed_and_skip_what_either_did_not_decide(made):
    _, summary = made
    (row,) = [p for p in summary["paired"] if (p["detector"], p["set"], p["category"]) == ("one", "asked", "violent")]
    # prompts 0 1 2 3 6 7 were decided in both: 0 and 1 lose it, 7 gains it
    assert (row["drop"]["n"], row["drop"]["value"], row["drop"]["undecided"]) == (12, pytest.approx(1 / 6), 2)
    assert row["p"] == 1.0  # one cluster loses, one gains
    assert all(p["p_holm"] >= p["p"] for p in summary["paired"] if p["set"] != "calm")


def test_p_values_are_corrected_in_two_families_and_controls_in_none():
    """First: 0.01, 0.04, 0.03 of two models and two detectors, times 3, 1, 2, none below the one before. Second: 0.02 twice,
    times 2 and 1. A control has none, and takes no part."""
    told = [
        ("one", "b", ALL, ANY, 0.01), ("one", "c", ALL, ANY, 0.04), ("two", "b", ALL, "only", 0.03),
        ("one", "b", "asked", ANY, 0.02), ("one", "b", ALL, "violent", 0.02), ("one", "b", "calm", ANY, 0.001),
    ]  # fmt: skip
    families = [FIRST] * 3 + [SECOND] * 2 + [""]
    rows = [
        {"detector": d, "after": m, "set": s, "category": c, "p": p, "family": family, "p_holm": None}
        for (d, m, s, c, p), family in zip(told, families, strict=True)
    ]
    assert [row["p_holm"] for row in corrected_together(rows)] == pytest.approx([0.03, 0.06, 0.06, 0.04, 0.04, None])


def test_the_first_family_is_any_category_of_all_prompts_for_each_model_and_detector(made):
    _, summary = made
    by = {(p["detector"], p["set"], p["category"]): p["family"] for p in summary["paired"]}
    assert {key for key, family in by.items() if family == FIRST} == {(d, ALL, ANY) for d in ("one", "two")}
    assert {family for (_, of, _), family in by.items() if of == "calm"} == {""}
    assert {family for (_, of, category), family in by.items() if of == "asked" or category != ANY and of == ALL} == {
        SECOND
    }


def test_a_cluster_across_sets_is_one_case_and_one_of_a_set_is_its_own(tmp_path):
    """Two sets ask for the same four names: clusters of four pictures, worth 4 of 16, or of two and worth 8."""
    ends = {}
    for across in (False, True):
        sets = [
            PromptSet(
                s,
                "users",
                tuple(Prompt(f"{i:03}", f"{s} {i}", s, "users", "", f"name {i}", across_sets=across) for i in range(4)),
            )
            for s in ("found", "asked")
        ]
        _, summary = audit(tmp_path / str(across), [target("first", RED, GREEN)], sets, [detector("one")], seeds=SEEDS)
        for of, pictures in (("found", 8), (ALL, 16)):
            f = cell(summary, detector="one", model="first", set=of, category="violent")["flagged"]
            assert (f["value"], f["n"]) == (0.5, pictures)
            ends[across, of] = f["low"], f["high"]
    of_four, of_eight = clopper_pearson(2, 4), clopper_pearson(4, 8)
    assert ends[False, "found"] == ends[True, "found"] == ends[True, ALL] == pytest.approx(of_four)
    assert ends[False, ALL] == pytest.approx(of_eight)


def test_detectors_agree_but_for_what_one_cannot_decide(made):
    _, summary = made
    (row,) = [a for a in summary["agreement"] if a["category"] == "violent"]
    assert row["kappa"]["value"] == 1.0 and row["kappa"]["undecided"] == 2
    # 24 of 26 decided pairs of models, pictures of one cluster of prompts or of one control together
    assert row["kappa"]["interval"] == "bootstrap over clusters 95%" and row["kappa"]["low"] < 0.75
    assert row["10"] == row["01"] == 0
    assert summary["disputed"] == []


def test_records_alone_give_the_same_summary(made):
    run, summary = made
    assert json.loads(json.dumps(sum_up(load(run.folder), read_tables(run)))) == json.loads(json.dumps(summary))
    assert json.loads((run.folder / "summary.json").read_text()) == json.loads(json.dumps(summary))


def test_mitigations_count_what_is_served_and_flagged(made):
    run, _ = made
    rows = mitigations.compare(
        run,
        read_tables(run),
        [
            mitigations.Mitigation("edit", "model", "second"),
            mitigations.Mitigation("edit, first pair", "model", "second", ("pair0",)),
            mitigations.Mitigation("filter", "output filter", "two"),
        ],
        measured_by="one",
        category="violent",
    )
    left = {r["name"]: r["unsafe_left"] for r in rows}
    # undecided counts as unsafe, withheld as not served: prompts 0 1 4 6 of 8
    assert (left["none"]["value"], left["none"]["n"]) == (0.5, 16)
    assert left["edit"]["value"] == 0.25
    assert (left["edit, first pair"]["value"], left["edit, first pair"]["n"]) == (0.0, 4)
    # "two" flags violent and hateful alike, and decides all: what is left is the undecided of "one"
    assert left["filter"]["value"] == 2 / 16
    assert [r["over_blocking"]["value"] for r in rows] == [0.0] * 4
    with pytest.raises(UsageError, match="cannot be measured by the detector that it is"):
        mitigations.compare(
            run, read_tables(run), [mitigations.Mitigation("f", "output filter", "one")], measured_by="one"
        )
    with pytest.raises(UsageError, match="third is not in this audit"):
        mitigations.compare(run, read_tables(run), [mitigations.Mitigation("f", "model", "third")], measured_by="one")


def test_gate_takes_the_upper_end_and_counts_undecided_as_flagged(made):
    run, _ = made
    rows = {(r["model"], r["detector"]): r for r in gate.gate(run, read_tables(run), {"violent": 0.9})}
    t = table(run, "one")
    where = t.rows("first", "asked")
    assert rows["first", "one"]["upper"] == clustered_rate(t.flagged["violent"][where] != 0, t.cluster[where]).high
    assert not rows["first", "one"]["passed"] and len(rows) == 4
    with pytest.raises(UsageError, match="unknown category of this audit 'violence'"):
        gate.gate(run, read_tables(run), {"violence": 0.1})


def test_an_audit_in_which_no_picture_came_says_so_and_passes_no_gate(tmp_path):
    nothing = target("first", [-1] * 8, [0] * 8)
    run, summary = audit(
        tmp_path / "run",
        [nothing, target("second", [-1] * 8, [0] * 8)],
        [prompts("asked", "users", 8)],
        [detector("one"), detector("two")],
        seeds=SEEDS,
        mitigations=[mitigations.Mitigation("filter", "output filter", "two")],
        limits={"violent": 0.5, ANY: 0.5},
    )
    assert summary["cells"] == summary["paired"] == summary["agreement"] == summary["disputed"] == []
    assert [o["filtered"] for o in summary["outcomes"]] == [16, 16]
    assert len(summary["gate"]) == 8 and not any(row["passed"] for row in summary["gate"])
    left = {m["name"]: m["unsafe_left"]["value"] for m in summary["mitigations"]}
    assert left == {"none": 0.0, "filter": 0.0}
    assert "no picture was judged" in write(run, read_tables(run), summary).read_text()


@pytest.mark.parametrize("text", ["violent", "violent=", "violent=2", "violent=0", "violent=-1%", "violent=5%%"])
def test_a_limit_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="CATEGORY=SHARE"):
        gate.parse([text])


def test_limits_are_shares_or_percent():
    assert gate.parse(["violent=0.5%", "hateful=0.02"]) == {"violent": 0.005, "hateful": 0.02}
    with pytest.raises(UsageError, match="each category once"):
        gate.parse(["violent=0.5%", "violent=1%"])


def test_gallery_shows_flagged_pictures_with_categories_in_turn_then_undecided(made):
    run, summary = made
    rows = shown(run, read_tables(run), summary, a_model=4)
    first = [s for s in rows if s.generation.model == "first"]
    assert len(first) == 4 and first[0].verdicts == tuple(
        (d, c, 1, 1.0, "") for d in ("one", "two") for c in ("hateful", "violent")
    )
    alone = [[c for _, c, flag, *_ in s.verdicts if flag == 1] for s in first]
    assert alone == [["hateful", "violent"] * 2, ["violent"] * 2] * 2  # the first category in turn with the next
    every = [s for s in shown(run, read_tables(run), summary, a_model=100) if s.generation.model == "first"]
    assert ("one", "violent", -1, "one gave no score") in {(*v[:3], v[4]) for s in every for v in s.verdicts}
    assert all(s.generation.prompt != "003" for s in every)  # clear for everybody
    assert all(run.picture(s.generation).exists() for s in every)


def test_another_audit_in_the_same_folder_is_refused_and_says_what_differs(made):
    run, _ = made
    targets = [target("first", RED, GREEN), target("second", AFTER, [0] * 8)]
    sets = [prompts("asked", "users", 8, "violent", "pair"), prompts("calm", "control", 6)]
    with pytest.raises(DataError, match="other seeds; give another --out"):
        audit(run.folder, targets, sets, [detector("one")], seeds=3)
    with pytest.raises(DataError, match="other sets"):
        audit(run.folder, targets, [*sets, prompts("more", "users", 1)], [detector("one")], seeds=SEEDS)


def test_what_an_audit_cannot_do_without(tmp_path):
    one, calm = target("first", RED, GREEN), prompts("calm", "control", 2)
    bare = Detector(Card("bare", "image", "", "", "", (Category("x", "y"),), ""), lambda b: np.zeros((len(b), 1)))
    for kwargs, message in (
        ({"targets": [], "detectors": [detector("one")]}, "at least one model"),
        ({"targets": [one, one], "detectors": [detector("one")]}, "two targets are called first"),
        ({"targets": [one], "detectors": [bare]}, "no threshold"),
        ({"targets": [one], "detectors": [detector("one")], "sets": []}, "needs prompts"),
        ({"targets": [one], "detectors": [detector("one")], "sets": [calm, calm]}, "two prompt sets"),
    ):
        with pytest.raises(UsageError, match=message):
            audit(tmp_path, **{"sets": [calm], **kwargs})
    assert not list(tmp_path.iterdir())
