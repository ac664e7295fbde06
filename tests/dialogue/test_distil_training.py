"""Training of students: what is learnt, which labels are suspect, what is refused, and resuming after a cut."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from sample_students import GUIDELINE, labelled
from scotoma.detectors.text.student import load_student, read
from scotoma.dialogue.distil import noise
from scotoma.dialogue.distil.ngrams import NgramsConfig, learner, matrix
from scotoma.dialogue.distil.parts import Problem, samples
from scotoma.dialogue.distil.training import DistilConfig, class_weights, distil
from scotoma.dialogue.schema import Label
from scotoma.errors import DataError, MissingExtraError, UsageError
from scotoma.records import Exchange, Turn

SMALL = NgramsConfig(bits=12, strengths=(1.0, 30.0, 300.0))
CONFIG = DistilConfig(noise="off", ngrams=SMALL)


def run(items, out, config=CONFIG, **options):
    return distil(items, out, guideline=GUIDELINE, route="ngrams", config=config, **options)


def test_ngrams_learn_words_of_response_and_of_context(tmp_path):
    """What is about tea stands in the response or in the question before it: both have to be read."""
    done = run(labelled(400), tmp_path / "s")
    assert done.figures["F1 of tea | context"].value > 0.95 and done.figures["F1 of tea | utterance"].value > 0.95
    detector = load_student(tmp_path / "s")
    yes = Turn("assistant", "yes")
    questions = [Exchange(yes, (Turn("user", f"what about the {word} ?"),)) for word in ("mint", "fuel")]
    assert [v.label for v in detector(questions)["tea"]] == ["flagged", "clear"]
    # The figures are those of the detector that was saved.
    test = samples(labelled(400), "test", GUIDELINE)
    flagged = np.array([v.label == "flagged" for v in detector(test.exchanges)["tea"]])
    assert done.figures["accuracy"].value == (flagged == (test.truth == 1)).mean()
    assert json.loads((tmp_path / "s/figures.json").read_text())["counts"] == done.counts


def test_the_same_seed_gives_the_same_student(tmp_path):
    first, second = (run(labelled(200), tmp_path / name, seed=3) for name in "ab")
    assert first.student == second.student and first.card == second.card


def test_the_aim_sets_the_threshold_of_the_card(tmp_path):
    config = dataclasses.replace(CONFIG, aim="recall", level=0.9)
    done = run(labelled(200), tmp_path / "s", config)
    student, card = read(tmp_path / "s")
    assert student.chosen == "recall 0.9" and card.categories[0].threshold == student.thresholds["recall 0.9"]
    assert done.student.thresholds == student.thresholds


def test_confident_learning_finds_labels_that_were_turned_round(tmp_path):
    """A fifth of the training labels are wrong. Most of what is called suspect is, and most of what is wrong is found; the
    student that never saw it is better than the one that learnt all of it."""
    items = labelled(600, wrong=0.2)
    right = {one.item.id: one.label.label for one in labelled(600)}
    train, validation = samples(items, "train", GUIDELINE), samples(items, "validation", GUIDELINE)
    one = learner(SMALL)
    x, seen = one.prepare(train.exchanges), one.prepare(validation.exchanges)
    p = noise.out_of_fold(lambda q: one.fit(q, 0, None, None), x, train, seen, validation.truth, 5, 0)
    suspect = noise.suspects(train.truth, p)
    wrong = np.array([right[i] != ("tea" if y else "other") for i, y in zip(train.ids, train.truth, strict=True)])
    assert (suspect & wrong).sum() / suspect.sum() > 0.8 and (suspect & wrong).sum() / wrong.sum() > 0.8
    done = run(items, tmp_path / "s", dataclasses.replace(CONFIG, noise="drop"))
    assert sum(done.counts["suspect"].values()) == suspect.sum()
    weighed = run(items, tmp_path / "w", dataclasses.replace(CONFIG, noise="weigh", suspect_weight=0.0))
    assert weighed.figures["macro F1"].value == pytest.approx(done.figures["macro F1"].value, abs=0.05)
    assert done.figures["average precision of tea"].value > 0.95


def test_no_dialogue_is_on_both_sides_of_a_fold():
    """An out-of-fold probability of an item whose dialogue was seen would know its twin: here twins are the only evidence."""
    items = [
        dataclasses.replace(one, item=dataclasses.replace(one.item, dialogue=f"d{i // 2}"))
        for i, one in enumerate(labelled(80))
    ]
    train = samples(items, "train", GUIDELINE)
    seen_groups = []

    def fit(problem: Problem):
        seen_groups.append({train.groups[i] for i in problem.train[:, 0].astype(int)})
        held = [i for i in range(len(train)) if train.groups[i] in seen_groups[-1] and i not in problem.train[:, 0]]
        assert held == []
        return type("F", (), {"logits": staticmethod(lambda rows: np.zeros(len(rows)))})

    p = noise.out_of_fold(fit, np.arange(len(train), dtype=float)[:, None], train, None, np.array([0, 1]), 4, 0)
    assert len(seen_groups) == 4 and (p == 0.5).all()


def test_class_weights_by_hand():
    """Three of four are positive: weights 4 / (2 x 3) and 4 / (2 x 1), which sum to 2 for both."""
    np.testing.assert_allclose(class_weights(np.array([1, 1, 1, 0])), [2 / 3, 2 / 3, 2 / 3, 2])


def test_soft_labels_count_unless_they_are_older_than_the_label():
    items = [one for one in labelled(60) if one.split == "train"]
    told = {"tea": 0.8, "other": 0.3}
    soft = [
        dataclasses.replace(one, label=dataclasses.replace(one.label, probability=told[one.label.label]))
        for one in items
    ]
    soft[0] = dataclasses.replace(
        soft[0], label=dataclasses.replace(soft[0].label, probability=1 - told[soft[0].label.label])
    )
    found = samples(soft, "train", GUIDELINE)
    assert found.targets[0] == found.truth[0]
    np.testing.assert_allclose(found.targets[1:], np.where(found.truth[1:] == 1, 0.8, 0.3))
    assert (samples(soft, "train", GUIDELINE, soft=False).targets == found.truth).all()


def test_a_soft_label_of_one_half_teaches_nothing():
    """The weight of a target t goes as t to one label and 1 - t to the other."""
    given = [Exchange(Turn("assistant", word)) for word in ("tea", "car", "map")]
    x = matrix(given, SMALL)
    one = learner(dataclasses.replace(SMALL, strengths=(100.0,)))
    fitted = one.fit(Problem(x, np.array([1.0, 0.0, 0.5]), np.ones(3), x, np.array([1, 0, 0])), 0, None, None)
    z = fitted.logits(x)
    assert z[0] > 1 and z[1] < -1 and abs(z[2]) < 0.2


def test_rows_of_the_matrix_have_norm_one_in_each_space():
    x = matrix(
        [Exchange(Turn("assistant", "a cup of tea"), (Turn("user", "tea?"),)), Exchange(Turn("assistant", "cup"))],
        SMALL,
    )
    half = 1 << SMALL.bits
    squares = x.multiply(x)
    np.testing.assert_allclose(squares[:, :half].sum(1).ravel(), [[1, 1]])
    np.testing.assert_allclose(squares[:, half:].sum(1).ravel(), [[1, 0]])


def test_undecided_items_are_left_out_and_counted(tmp_path):
    """Two of the test: the card and figures.json say on how many of how many they rest."""
    items = labelled(200)
    open_ = {next(one.item.id for one in items if one.split == "train")}
    open_ |= {one.item.id for one in [one for one in items if one.split == "test"][:2]}
    gaps = [
        dataclasses.replace(one, label=Label(one.item.id, "", "vote", reason="tie")) if one.item.id in open_ else one
        for one in items
    ]
    done = run(gaps, tmp_path / "s")
    assert done.counts["items"]["train"]["undecided"] == 1 and done.counts["items"]["test"]["undecided"] == 2
    n = sum(one.split == "test" for one in items)
    told = json.loads((tmp_path / "s/figures.json").read_text())["counts"]["decided"]
    assert told["test"] == f"{n - 2} decided of {n}" and told["validation"].split()[0] == told["validation"].split()[-1]
    assert done.card.categories[0].measured_on.startswith(f"{n - 2} decided of {n} items of the test split")
    assert done.figures["accuracy"].n == n - 2


def test_an_undecided_item_teaches_by_its_soft_label_in_training_alone():
    """Truth, by which classes are weighed, is the likelier side, of a tie the negative one; without soft labels the item is left
    out."""
    items = labelled(60)

    def gap(one, p):
        return dataclasses.replace(one, label=Label(one.item.id, "", "vote", p, "tie"))

    for split, more in (("train", 3), ("validation", 0)):
        own = [one for one in items if one.split == split]
        with_gaps = [gap(own[0], 0.5), gap(own[1], 0.3), gap(own[2], 0.7), gap(own[3], None), *own[4:]]
        found = samples(with_gaps, split, GUIDELINE)
        assert len(found) == len(own) - 4 + more
        assert len(samples(with_gaps, split, GUIDELINE, soft=False)) == len(own) - 4
        if more:
            assert found.truth[:3].tolist() == [0, 0, 1] and found.targets[:3].tolist() == [0.5, 0.3, 0.7]


def test_what_is_refused(tmp_path, monkeypatch):
    items = labelled(200)
    run(items, tmp_path / "s")
    with pytest.raises(UsageError, match="already holds a student"):
        run(items, tmp_path / "s")
    with pytest.raises(UsageError, match="unknown route 'ngram'; did you mean 'ngrams'"):
        distil(items, tmp_path / "x", guideline=GUIDELINE, route="ngram")
    with pytest.raises(DataError, match="no item of the test split is labelled 'tea'"):
        run([one for one in items if one.split != "test" or one.label.label == "other"], tmp_path / "x")
    strange = dataclasses.replace(items[0], label=dataclasses.replace(items[0].label, label="coffee"))
    with pytest.raises(DataError, match=f"item {strange.item.id} has the label 'coffee'"):
        run([strange, *items[1:]], tmp_path / "x")
    with pytest.raises(DataError, match="items of the split 'dev'"):
        run([dataclasses.replace(items[0], split="dev"), *items[1:]], tmp_path / "x")
    few = [one for one in items if one.split != "train"] + [one for one in items if one.split == "train"][:6]
    with pytest.raises(DataError, match="confident learning in 5 folds needs 5 dialogues"):
        run(few, tmp_path / "x", dataclasses.replace(CONFIG, noise="drop"))
    for bad in ({"noise": "maybe"}, {"folds": 1}, {"suspect_weight": 2}):
        with pytest.raises(UsageError):
            DistilConfig(**bad)
    with pytest.raises(UsageError, match="8 to 24 bits"):
        NgramsConfig(bits=30)
    assert not (tmp_path / "x").exists()
    monkeypatch.setitem(__import__("sys").modules, "cleanlab.filter", None)
    with pytest.raises(MissingExtraError, match=r"confident learning needs cleanlab.*scotoma\[dialogue\]"):
        noise.suspects(np.array([0, 1]), np.array([0.1, 0.9]))
