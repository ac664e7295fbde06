"""The labelling run: who is asked what and how often, killed and started again, who leaves the vote, the folder."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from label_cases import GUIDELINE, NO, YES, Script, answer, dialogues, truth

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.annotators.scripted import scripted
from scotoma.dialogue.distil.parts import samples
from scotoma.dialogue.roles import subset, trial
from scotoma.dialogue.run import LabelConfig, judge, label, read_run
from scotoma.dialogue.split import leakage, split
from scotoma.dialogue.views import items as views
from scotoma.errors import DataError, UsageError
from scotoma.records import Turn, read_jsonl

SETTINGS = LabelConfig(near=None, shares=(0.6, 0.2, 0.2), audit=10)
DATA = dialogues(60)
ITEMS = views(DATA)
TRUTH = truth(ITEMS)


def good(name: str, seed: int = 0, sensitivity: float = 0.9, **settings) -> Annotator:
    return scripted(name, TRUTH, sensitivity=sensitivity, specificity=0.9, seed=seed, **settings)


def letters(**changes: str) -> dict[str, str]:
    return {i: "p" if w == YES else "n" for i, w in TRUTH.items()} | changes


def asked_of(run, stage: str) -> dict[str, int]:
    return dict(Counter(v.annotator for v in run.votes if v.stage == stage))


def test_from_dialogues_to_labels(tmp_path):
    """60 dialogues of two turns: 120 utterances and 60 responses in context. Four annotators see each item once; the filler
    sees what the vote left open, the strongest what is held out."""
    cast = [good(n, i, refusal_rate=0.05) for i, n in enumerate("abcd")]
    filler, strongest = good("filler", 9), good("judge", 8, sensitivity=0.97, repairs=0.8)
    run = label(DATA, GUIDELINE, cast, tmp_path, filler=filler, strongest=strongest, settings=SETTINGS)
    held = [i for i in run.items if run.splits[i.id] != "train"]
    assert len(run.items) == 180 and asked_of(run, "vote") == dict.fromkeys("abcd", 180)
    open_ = [i for i, h in run.history.items() if h[0].stage == "vote" and not h[0].label]
    assert asked_of(run, "fill") == {"filler": len(open_)} and open_
    assert asked_of(run, "calibrate") == {"judge": len(held)}
    differ = [i for i, h in run.history.items() if any(x.reason.startswith("differs") for x in h)]
    assert asked_of(run, "criticise") == {"judge": len(differ)} and differ
    assert {run.splits[i] for i in differ} <= {"validation", "test"}
    assert all(x.label for x in run.labels if run.splits[x.item] == "train")
    right = sum(x.label == TRUTH[x.item] for x in run.labels if x.label)
    assert right / 180 > 0.9
    assert [(x.item, x.label, x.split) for x in run.labelled()] == [
        (i, x, run.splits[i.id]) for i, x in zip(run.items, run.labels, strict=True)
    ]
    assert any(not x.label.label for x in run.labelled())  # disputed to the end: they wait for a person


def test_what_the_vote_left_open_reaches_a_student(tmp_path):
    """Two to two, and two to one with a refusal, of training; two to two of the test. The first two teach by their soft labels,
    1/2 and 2/3, as a negative and a positive item; of the test only what has a label counts."""
    first = label(DATA, GUIDELINE, [Script("a", letters()).annotator()], tmp_path / "x", settings=SETTINGS)
    train = [i for i, split in first.splits.items() if split == "train"]
    held = next(i for i, split in first.splits.items() if split == "test")
    says = [{}, {}, {train[0]: "n", train[1]: "n"}, {train[0]: "n", train[1]: "r"}]
    for i, told in enumerate(says):
        told |= {held: "pn"[i % 2]} | ({} if i > 1 else {train[0]: "p", train[1]: "p"})
    cast = [Script(n, letters(**told)).annotator() for n, told in zip("abcd", says, strict=True)]
    run = label(DATA, GUIDELINE, cast, tmp_path / "y", settings=SETTINGS)
    assert {x.item for x in run.labels if not x.label} == {train[0], train[1], held}
    found = samples(run.labelled(), "train", GUIDELINE)
    told = {i: (y, t) for i, y, t in zip(found.ids, found.truth, found.targets, strict=True)}
    assert told[train[0]] == (0, 0.5) and told[train[1]] == (1, pytest.approx(2 / 3)) and len(told) == len(train)
    test = samples(run.labelled(), "test", GUIDELINE)
    assert held not in test.ids and len(test) == list(run.splits.values()).count("test") - 1


def test_the_folder_is_the_run(tmp_path):
    run = label(
        DATA, GUIDELINE, [good(n, i) for i, n in enumerate("abcd")], tmp_path, settings=SETTINGS, given={"x": 1}
    )
    again = read_run(tmp_path)
    assert again == run and again.guideline == GUIDELINE and again.header.given == {"x": 1}
    assert {p.name for p in tmp_path.iterdir()} == {
        "items.jsonl", "guideline.json", "votes.jsonl", "labels.jsonl", "label.json", "timings.json",
    }  # fmt: skip
    summary = run.summary()
    assert (
        summary["header"]["hashes"]["guideline"] == GUIDELINE.sha256 and len(summary["header"]["hashes"]["items"]) == 64
    )
    assert sum(c["n"] for c in summary["counts"]) == 180 and summary["duplicates"]["kept"] == 180
    assert [(r["of"], r["against"], r["n"]) for r in summary["leakage"]] == [
        (of, "train", list(run.splits.values()).count(of)) for of in ("validation", "test")
    ]
    assert all(r["dialogue"] == r["response"] == r["turn"] == 0 and r["near_turn"] is None for r in summary["leakage"])
    assert {"n", "low", "high", "value"} <= set(summary["gold"][0]["accuracy"])
    assert [a["stage"] for a in summary["agreement"]] == ["vote"]
    assert len(run.audit) == 10 == summary["human"]["audit"]
    text = (tmp_path / "label.json").read_text()
    assert not any(t.text in text for d in DATA for t in d.turns)


def test_near_turns_are_on_one_side_of_a_split(tmp_path):
    """30 pairs of dialogues in which the customer says almost the same, and is given another answer: no duplicates, and a student
    would know the one by the other. Splits that tie equal turns alone have some on both sides."""
    data = []
    for i, one in enumerate(dialogues(60)):
        asked = Turn("user", " ".join(f"{i // 2}w{k}" for k in range(40)) + (" please" if i % 2 else ""))
        data.append(dataclasses.replace(one, turns=(asked, one.turns[1])))
    settings = dataclasses.replace(SETTINGS, near=0.9, others=False)
    run = label(data, GUIDELINE, [Script("a", letters()).annotator()], tmp_path, settings=settings)
    assert len(run.items) == 120
    side = {i.dialogue: run.splits[i.id] for i in run.items}
    assert all(side[f"d{2 * i}"] == side[f"d{2 * i + 1}"] for i in range(30))
    assert [r["near_turn"] for r in run.summary()["leakage"]] == [0, 0]
    apart = split(run.items, settings.shares, settings.seed)
    assert leakage(run.items, apart).near_turn > 0
    judge(tmp_path, read=lambda: "p", write=lambda text: None)
    assert read_run(tmp_path).summary()["leakage"] == run.summary()["leakage"]


def test_started_again_nothing_is_asked_twice_but_what_failed(tmp_path):
    """a fails on two items at first. Refusals and labels are not asked again; failures are, once."""
    script = Script("a", letters(**{"d1/1/context": "f", "d2/1/context": "f", "d4/1/context": "r"}))
    others = [Script(n, letters()) for n in "bcd"]
    label(DATA, GUIDELINE, [s.annotator() for s in (script, *others)], tmp_path, settings=SETTINGS)
    assert Counter(script.asked).most_common(1)[0][1] == 1 and len(script.asked) == 180
    again = Script("a", letters(**{"d1/1/context": "f"}))
    run = label(DATA, GUIDELINE, [again.annotator(), *(s.annotator() for s in others)], tmp_path, settings=SETTINGS)
    assert sorted(again.asked) == ["d1/1/context", "d2/1/context"] and all(len(s.asked) == 180 for s in others)
    last = {v.item: v.answer.outcome for v in run.votes if v.annotator == "a"}
    assert last["d1/1/context"] == "failed" and last["d2/1/context"] == "label" and last["d4/1/context"] == "refusal"


def test_another_quorum_in_the_same_folder_asks_nobody(tmp_path):
    scripts = [Script(n, letters(**({"d1/1/context": "p"} if n in "ab" else {}))) for n in "abcd"]
    cast = [s.annotator() for s in scripts]
    first = label(DATA, GUIDELINE, cast, tmp_path, settings=SETTINGS)
    assert {x.item for x in first.labels if not x.label} == {"d1/1/context"}
    again = label(DATA, GUIDELINE, cast, tmp_path, settings=dataclasses.replace(SETTINGS, quorum=2, tie="positive"))
    assert {x.item: x.label for x in again.labels}["d1/1/context"] == YES
    assert all(len(s.asked) == 180 for s in scripts)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from label_cases import GUIDELINE, dialogues
from test_label_run import ITEMS, SETTINGS, DATA, good
import dataclasses
from scotoma.dialogue.run import label

asked = 0
def dying(annotator):
    def annotate(items, guideline):
        global asked
        asked += 1
        if asked == {batch}:
            os.kill(os.getpid(), signal.SIGKILL)
        return annotator.annotate(items, guideline)
    return dataclasses.replace(annotator, annotate=annotate, batch_size=16)

cast = [dying(good(n, i)) for i, n in enumerate("abcd")]
label(DATA, GUIDELINE, cast, Path(sys.argv[1]), settings=SETTINGS)
"""


def test_killed_in_the_middle_it_goes_on_and_loses_one_batch(tmp_path):
    """180 items in batches of 16: SIGKILL in the 20th call, with 19 on the disk. Started again, exactly the others are asked, and
    the labels are those of a run that was left alone."""
    code = textwrap.dedent(KILLED.format(here=str(Path(__file__).parent), batch=20))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "killed")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    _, rows = read_jsonl(tmp_path / "killed" / "votes.jsonl")
    before = [(r["annotator"], r["item"]) for r in rows]
    asked: list[tuple[str, str]] = []

    def counted(annotator: Annotator) -> Annotator:
        def annotate(items, guideline):
            asked.extend((annotator.name, i.id) for i in items)
            return annotator.annotate(items, guideline)

        return dataclasses.replace(annotator, annotate=annotate, batch_size=16)

    cast = [good(n, i) for i, n in enumerate("abcd")]
    run = label(DATA, GUIDELINE, [counted(a) for a in cast], tmp_path / "killed", settings=SETTINGS)
    assert 19 * 16 - 3 * 16 < len(before) <= 19 * 16 and not {*before} & {*asked}
    assert sorted([*before, *asked]) == sorted((n, i.id) for n in "abcd" for i in run.items)
    alone = label(DATA, GUIDELINE, cast, tmp_path / "alone", settings=SETTINGS)
    assert run.labels == alone.labels and len(run.votes) == len(alone.votes) == 720


def test_an_annotator_that_raises_loses_nothing_of_the_others(tmp_path):
    def annotate(items, guideline):
        raise UsageError("the budget is spent; raise it")

    broken = Annotator("d", "model of d", "llm", annotate)
    scripts = [Script(n, letters()) for n in "abc"]
    with pytest.raises(UsageError, match="the budget is spent"):
        label(DATA, GUIDELINE, [*(s.annotator() for s in scripts), broken], tmp_path, settings=SETTINGS)
    script = Script("d", letters())
    label(DATA, GUIDELINE, [s.annotator() for s in (*scripts, script)], tmp_path, settings=SETTINGS)
    assert all(len(s.asked) == 180 for s in (*scripts, script))


def test_who_is_no_better_than_chance_leaves_the_vote_and_a_reserve_takes_its_place(tmp_path):
    """c says the opposite of the truth: kappa below 0. It stays in the tables, labels what is held out, and does not count; of
    the reserves the first is as bad, the second good, the third is not asked. No test item is in the trial."""
    flipped = {i: "n" if letter == "p" else "p" for i, letter in letters().items()}
    wrong, bad_reserve = Script("c", flipped), Script("r1", flipped)
    reserve, spare = Script("r2", letters()), Script("r3", letters())
    cast = [Script("a", letters()), Script("b", letters()), wrong]
    run = label(
        DATA, GUIDELINE, [s.annotator() for s in cast], tmp_path, settings=dataclasses.replace(SETTINGS, trial=30),
        reserves=[s.annotator() for s in (bad_reserve, reserve, spare)],
    )  # fmt: skip
    told = {a["name"]: (a["role"], a["why"]) for a in run.summary()["annotators"]}
    assert [told[n][0] for n in ("a", "b", "c", "r1", "r2", "r3")] == [
        "voter",
        "voter",
        "left",
        "left",
        "voter",
        "spare",
    ]
    assert told["c"][1].startswith("kappa -") and told["c"][1].endswith("with given labels, under 0.2")
    assert spare.asked == [] and len(reserve.asked) == 180
    held = {i.id for i in run.items if run.splits[i.id] != "train"}
    tried = {i.id for i in trial(run.items, run.splits, GUIDELINE, 30, 0)}
    assert len(tried) == 30 and not {i for i in tried if run.splits[i] == "test"}
    assert {*wrong.asked} == held | tried and len(wrong.asked) == len(held | tried)
    assert all(x.label == TRUTH[x.item] for x in run.labels)  # unanimous without the two that left
    pairs = {(p["first"], p["second"]) for p in run.summary()["agreement"][0]["pairs"]}
    assert ("a", "c") in pairs and ("r1", "gold") in pairs


def test_votes_by_the_trial(tmp_path):
    """a is right in all of the 40 items of the trial and weighs ln(40.5 / 0.5); b and c are wrong together in about a quarter. Scaled
    to three votes a has more than the two that decide. Alike, b and c decide."""
    wrong = {i: "n" if letter == "p" else "p" for n, (i, letter) in enumerate(sorted(letters().items())) if n % 4 == 0}
    cast = [Script("a", letters()), Script("b", letters(**wrong)), Script("c", letters(**wrong))]
    settings = dataclasses.replace(SETTINGS, trial=40)
    alike = label(DATA, GUIDELINE, [s.annotator() for s in cast], tmp_path, settings=settings)
    assert {x.item for x in alike.labels if x.label != TRUTH[x.item]} == wrong.keys()
    weighed = dataclasses.replace(settings, weights="trial")
    run = label(DATA, GUIDELINE, [s.annotator() for s in cast], tmp_path, settings=weighed)
    assert all(x.label == TRUTH[x.item] for x in run.labels) and len(cast[0].asked) == 180  # nobody was asked again
    missed = len({i.id for i in trial(run.items, run.splits, GUIDELINE, 40, 0)} & wrong.keys())
    assert 4 < missed < 16
    told = {a["name"]: a["weight"] for a in run.summary()["annotators"]}
    assert told["a"] == pytest.approx(math.log(40.5 / 0.5))
    assert told["b"] == told["c"] == pytest.approx(math.log((40.5 - missed) / (missed + 0.5)))


def test_nobody_is_judged_without_given_labels_and_where_nobody_is_left_it_says_so(tmp_path):
    bare = dialogues(60, given=False)
    flipped = {i: "n" if letter == "p" else "p" for i, letter in letters().items()}
    run = label(bare, GUIDELINE, [Script("a", flipped).annotator()], tmp_path / "bare", settings=SETTINGS)
    (told,) = run.summary()["annotators"]
    assert (told["role"], told["why"]) == ("voter", "not judged: 0 items outside test have a given label, it takes 20")
    with pytest.raises(UsageError, match=r"no annotator is left in the vote \(a: kappa -.*; b: a label for only 0 of"):
        cast = [Script("a", flipped), Script("b", dict.fromkeys(flipped, "r"))]
        label(DATA, GUIDELINE, [s.annotator() for s in cast], tmp_path / "left", settings=SETTINGS)


def test_a_costly_annotator_labels_a_subset_and_the_vote_counts_who_voted(tmp_path):
    scripts = [Script(n, letters()) for n in "abc"]
    costly = Script("llm", letters())
    settings = dataclasses.replace(SETTINGS, subsets={"llm": 100}, trial=25)
    run = label(DATA, GUIDELINE, [s.annotator() for s in (*scripts, costly)], tmp_path, settings=settings)
    assert len(costly.asked) == len({*costly.asked}) == 100
    held = {i.id for i in run.items if run.splits[i.id] != "train"}
    assert held <= {*costly.asked}
    first = {i: h[0].reason for i, h in run.history.items()}
    seen = {*costly.asked}
    assert all(sum(map(int, r.split(" to "))) == (4 if i in seen else 3) for i, r in first.items())
    few = subset(run.items, run.splits, trial(run.items, run.splits, GUIDELINE, 25, 0), 30, 0)
    assert len(few) == 30 and len([i for i in few if run.splits[i.id] == "test"]) <= 5  # the trial first
    assert [i.id for i in few] == [i.id for i in run.items if i.id in {f.id for f in few}]


def test_a_person_at_the_queue_settles_what_is_open(tmp_path):
    """The strongest insists on the opposite for one held-out item, and so do the others: it waits. A person says p to all that
    is shown, audit sample included; where the sample's label is another, the label stays."""
    first = label(DATA, GUIDELINE, [Script("a", letters()).annotator()], tmp_path / "x", settings=SETTINGS)
    name = next(i.id for i in first.items if first.splits[i.id] == "test" and TRUTH[i.id] == NO)
    strongest = Script("judge", letters(**{name: "p"}), {name: "p"})
    cast = [Script(n, letters(), {name: "n"}) for n in "abc"]
    run = label(
        DATA,
        GUIDELINE,
        [s.annotator() for s in cast],
        tmp_path / "y",
        strongest=strongest.annotator(),
        settings=SETTINGS,
    )
    assert [x.item for x in run.labels if not x.label] == [name] and run.summary()["human"]["waiting"] == 1
    assert all(s.again == [(name, NO)] for s in cast) and strongest.again == [(name, YES)]
    shown = len({*run.audit, name})
    done = judge(tmp_path / "y", read=lambda: "p", write=lambda text: None)
    assert (done.judged, done.waiting) == (shown, 0)
    after = read_run(tmp_path / "y")
    label_of = {x.item: x for x in after.labels}
    assert (label_of[name].label, label_of[name].stage) == (YES, "human")
    assert all(label_of[i].label == TRUTH[i] for i in run.audit if i != name)
    told = after.summary()["human"]
    assert (told["waiting"], told["judged"]) == (0, 1)
    sample = [i for i in run.audit if i != name]
    assert told["audit_agreement"]["value"] == pytest.approx(sum(TRUTH[i] == YES for i in sample) / len(sample))
    # Labelled again, what the person said is kept and nobody is asked again.
    cast = [Script(n, {}, {}) for n in "abc"]
    again = label(
        DATA, GUIDELINE, [s.annotator() for s in cast], tmp_path / "y", strongest=Script("judge", {}, {}).annotator(),
        settings=SETTINGS,
    )  # fmt: skip
    assert again.labels == after.labels


def test_progress_counts_answers_up_to_what_was_asked(tmp_path):
    seen: list[tuple[int, int]] = []
    cast = [Script(n, letters(), batch_size=50).annotator() for n in "ab"]
    label(DATA, GUIDELINE, cast, tmp_path, settings=SETTINGS, tell=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] and all(d <= t for d, t in seen) and seen == sorted(seen)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"dialogues": dialogues(50)}, "holds a labelling run of other dialogues; give another folder"),
        (
            {"settings": dataclasses.replace(SETTINGS, seed=1)},
            "holds a labelling run of another seed; give another folder",
        ),
        ({"guideline": dataclasses.replace(GUIDELINE, sha256="ab" * 32)}, "another resolved|another guideline"),
        ({"model": "other"}, "holds answers of a by model of a, now it is other"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, change, told):
    annotator = Script("a", letters()).annotator()
    label(DATA, GUIDELINE, [annotator], tmp_path, settings=SETTINGS)
    other = dataclasses.replace(annotator, model=change.get("model", annotator.model))
    with pytest.raises(DataError, match=told):
        label(
            change.get("dialogues", DATA), change.get("guideline", GUIDELINE), [other], tmp_path,
            settings=change.get("settings", SETTINGS),
        )  # fmt: skip
    assert read_run(tmp_path).guideline == GUIDELINE


@pytest.mark.parametrize(
    "change, told",
    [
        ({"annotators": []}, "nobody labels"),
        ({"annotators": ["a", "a"]}, "two annotators are called a"),
        ({"annotators": ["gold"]}, "no annotator can be called gold"),
        (
            {"strongest": Script("judge", {}).annotator()},
            "judge cannot criticise its own answers, so it cannot calibrate",
        ),
        ({"settings": LabelConfig(subsets={"x": 3})}, "subsets name x, which label nothing; annotators: a"),
        ({"settings": LabelConfig(subsets={"a": 0})}, "a subset has 1 item or more, which that of a has not"),
    ],
)
def test_annotators_that_make_no_sense(tmp_path, change, told):
    names = change.pop("annotators", ["a"])
    with pytest.raises(UsageError, match=told):
        label(DATA, GUIDELINE, [Script(n, letters()).annotator() for n in names], tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_calibrated_labels_beat_the_vote_with_scripted_annotators(tmp_path):
    """Voters right in 75 of 100, the strongest in 95, both mending half of their errors: of 160 dialogues, over items that have
    a label before calibration and in the end."""
    data = dialogues(160)
    known = truth(views(data))
    cast = [scripted(n, known, sensitivity=0.75, specificity=0.75, repairs=0.5, seed=i) for i, n in enumerate("abcd")]
    strongest = scripted("judge", known, sensitivity=0.95, specificity=0.95, repairs=0.5, seed=7)
    filler = scripted("filler", known, sensitivity=0.8, specificity=0.8, repairs=0.5, seed=8)
    settings = dataclasses.replace(SETTINGS, shares=(0.4, 0.3, 0.3))
    run = label(data, GUIDELINE, cast, tmp_path, filler=filler, strongest=strongest, settings=settings)
    held = [i.id for i in run.items if run.splits[i.id] != "train"]
    voted = [next(h for h in reversed(run.history[i]) if h.stage in ("vote", "fill")) for i in held]
    final = [run.history[i][-1] for i in held]
    both = [(a, b) for a, b in zip(voted, final, strict=True) if a.label and b.label]
    assert len(both) > 0.8 * len(held)
    before, after = (sum(x.label == known[x.item] for x in labels) for labels in zip(*both, strict=True))
    assert (after - before) / len(both) > 0.04
    # The summary says the same of items that have a label before and after, and kappa with the strongest rises, as it must.
    for row in run.summary()["gain"]:
        assert row["gain"]["value"] == pytest.approx((row["after"] - row["before"]) / row["gain"]["n"])
        assert row["gain"]["value"] > 0
    told = {a["stage"]: {(p["first"], p["second"], p["level"]): p["kappa"] for p in a["pairs"]} for a in run.summary()["agreement"]}  # fmt: skip
    apart, after = told["calibrate"]["judge", "label", "all"], told["criticise"]["judge", "label", "all"]
    assert apart["n"] == len(held) >= after["n"] and apart["value"] < after["value"] < 1


def test_a_damaged_folder_is_named(tmp_path):
    label(DATA, GUIDELINE, [Script("a", letters()).annotator()], tmp_path, settings=SETTINGS)
    (tmp_path / "guideline.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match="guideline.json is not the guideline of a labelling run"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="labels.jsonl cannot be read"):
        read_run(tmp_path / "nowhere")


def test_answers_are_checked():
    assert answer("p").label == YES and answer("r").label == ""
