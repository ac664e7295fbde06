"""The demonstration from end to end on a few dialogues: who is asked what, on whom figures are, and when a student is trained."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from scotoma.dialogue.annotators.classical import word_patterns
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.demo import run as demo
from scotoma.dialogue.demo.generator import generate, traced
from scotoma.dialogue.demo.gold import CONTEXT, against_gold, difference, fresh, raters, read_gold, spread
from scotoma.dialogue.demo.run import demonstrate, kept_if_same
from scotoma.dialogue.distil import figures
from scotoma.dialogue.distil.ngrams import NgramsConfig
from scotoma.dialogue.distil.training import DistilConfig
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.schema import Answer, Label, Labelled
from scotoma.dialogue.views import items
from scotoma.records import sha256_text

GUIDELINE = load_guideline("commitments")
GOLD = read_gold()
TRUTH = {g.item.id: g.label for g in GOLD}
TRUTH |= {i.id: i.given for i in items(generate(150, 0), context_turns=CONTEXT) if i.given}


def knowing(name: str, asked: Counter[str], errs: bool = False) -> Annotator:
    """One that knows the labels, and counts what it was asked; where it `errs`, wrong about one item in five."""

    def annotate(given, guideline):
        asked.update(i.id for i in given)
        return [answer(i.id, guideline) for i in given]

    def answer(name, guideline):
        right = TRUTH.get(name, guideline.negative)
        wrong = errs and int(sha256_text(name), 16) % 5 == 0
        return Answer("label", guideline.labels[right == guideline.positive] if wrong else right)

    return Annotator(name, "knows", "scripted", annotate)


def test_every_annotator_is_compared_and_nothing_is_done_twice(tmp_path, monkeypatch):
    """`costly` answers 40 items of dialogues and 40 of gold; `spare`, a reserve that did not vote, is the best of all."""
    costly, spare = Counter[str](), Counter[str]()
    trained: list[str] = []
    distil = demo.distil
    monkeypatch.setattr(figures.Draws.__init__, "__defaults__", (20,))  # resamples
    config = DistilConfig(noise="off", ngrams=NgramsConfig(bits=12, strengths=(30.0,)))
    monkeypatch.setattr(demo, "settings", lambda route: config)
    monkeypatch.setattr(demo, "distil", lambda *given, **told: trained.append(told["route"]) or distil(*given, **told))

    def once():
        cast = [word_patterns("commitments"), knowing("costly", costly, errs=True)]
        return demonstrate(
            tmp_path, cast, [knowing("spare", spare)], subsets={"costly": 40}, dialogues=150, routes=["ngrams"]
        )

    made = once()
    on_gold = [g.item.id for g in GOLD if g.item.id in costly]
    assert on_gold and set(on_gold) == {i.id for i in spread([g.item for g in GOLD])[:40]} and costly.total() == 80
    assert spare == Counter(g.item.id for g in GOLD)
    assert json.loads((tmp_path / "gold.json").read_text())["best"] == "spare"
    against = {k: f for k, f in made.figures["ngrams"].items() if k.startswith("F1, minus ")}
    assert set(against) == {f"F1, minus {name}" for name in ("patterns", "costly", "spare", "vote", "equal vote")}
    assert {k: f.n for k, f in against.items() if f.n != len(GOLD)} == {"F1, minus costly": 40}
    assert made.figures["spare"]["F1 of commitment"].value == 1 and made.figures["costly"]["accuracy"].n == 40
    again = once()
    assert again.figures == made.figures and costly.total() == 80 and spare.total() == len(GOLD)
    assert trained == ["ngrams"]
    monkeypatch.setattr(demo, "settings", lambda route: dataclasses.replace(config, class_weights=False))
    once()
    assert trained == ["ngrams", "ngrams"]


def test_a_student_of_other_labels_goes(tmp_path):
    """And a folder that holds none is left alone."""
    labelled = [Labelled(i, Label(i.id, i.given, "vote"), "train") for i in items(generate(20, 0)) if i.given]
    folder, config = tmp_path / "ngrams", DistilConfig()
    folder.mkdir()
    (folder / "mine.txt").write_text("not a student's")
    assert not kept_if_same(folder, labelled, config, 0) and (folder / "mine.txt").exists()
    (folder / "student.json").write_text("{}")
    assert kept_if_same(folder, labelled, config, 0)
    other = [dataclasses.replace(labelled[0], label=Label(labelled[0].item.id, "", "vote")), *labelled[1:]]
    for changed in ((other, config, 0), (labelled, dataclasses.replace(config, soft=False), 0), (labelled, config, 1)):
        assert not kept_if_same(folder, *changed) and not folder.exists()
        folder.mkdir()
        (folder / "student.json").write_text("{}")
        assert kept_if_same(folder, *changed)


def test_gold_is_what_its_templates_make():
    """The file's items and the templates that it names are those of the generator."""
    made = list(traced(220, 0, "gold"))
    of = {(d.id, turn): template for d, told in made for turn, template in told.items()}
    known = {i.id: i for i in items([d for d, _ in made], context_turns=CONTEXT)}
    assert all(known[g.item.id].exchange == g.item.exchange and known[g.item.id].given == g.template for g in GOLD)
    assert all(of[g.item.dialogue, g.item.turn] == g.made_of for g in GOLD)
    assert len({g.made_of for g in GOLD}) == 72 and len({g.made_of for g in fresh()}) > 40


def test_items_of_a_template_are_one_case():
    """Whoever is wrong on all items of a template is wrong once: its figures are as sure as 72 cases allow, not 574."""
    wrong = max(Counter(g.made_of for g in GOLD).items(), key=lambda kv: kv[1])[0]
    flagged = {g.item.id: (g.label == GUIDELINE.positive) != (g.made_of == wrong) for g in GOLD}
    found = against_gold(GOLD, flagged, GUIDELINE)
    accuracy = found["accuracy"]
    assert accuracy.n == len(GOLD) and accuracy.interval == "clopper-pearson over templates 95%"
    assert accuracy.high - accuracy.low > 0.1
    assert found["F1 of commitment"].interval == "bootstrap over templates 95%"
    right = {g.item.id: g.label == GUIDELINE.positive for g in GOLD}
    lost = difference(GOLD, right, flagged, GUIDELINE)
    assert (
        lost.value == pytest.approx(1 - (found["F1 of commitment"].value or 0)) and lost.low == 0
    )  # not drawn: no loss
    assert lost.interval.endswith("over templates 95%")
    assert raters(GOLD)["kappa first second"].low < 0.95
