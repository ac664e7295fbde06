"""What an evaluation asks for: counts, roles, seeds, and the frozen near and far sets."""

from __future__ import annotations

import pytest

from scotoma.errors import BoundsError, UsageError
from scotoma.evaluation.task import EVERYDAY, Size, text_task
from scotoma.evaluation.zoo_task import compose, expand, frozen, label_of, near_and_far, zoo_task


def roles(task):
    return [a.role for a in task.asks]


def test_text_task_counts_and_seeds():
    task = text_task({"cat": "dog"}, near=["lion"], size=Size(4, 2, 6), first_seed=100)
    assert roles(task) == ["forget"] * 4 + ["near"] * 2 + ["far"] * 6
    assert [a.seed for a in task.asks] == list(range(100, 112))
    assert {a.wanted for a in task.asks if a.role == "forget"} == {"cat"}
    assert all("cat" in a.prompt for a in task.asks if a.role == "forget")
    assert "cat" not in {a.wanted for a in task.asks if a.role == "far"}


def test_text_task_keeps_concept_and_alternative_out_of_the_far_ones():
    task = text_task({"horse": "dog"}, size=Size(1, 1, 200))
    assert {a.wanted for a in task.asks if a.role == "far"} == set(EVERYDAY) - {"horse", "dog"}
    assert "near" not in roles(task)  # none was named


def test_a_concept_in_another_case_or_with_an_article_is_not_kept():
    task = text_task({"A Cat": "dog"}, near=["a cat", "lion"], size=Size(1, 9, 200))
    assert {a.wanted for a in task.asks if a.role == "near"} == {"lion"}
    assert "cat" not in {a.wanted for a in task.asks if a.role == "far"}


def test_a_forget_prompt_carries_the_alternative_of_its_own_concept():
    task = text_task({"cat": "dog", "car": ""}, size=Size(4, 1, 1))
    assert {(a.wanted, a.becomes) for a in task.asks if a.role == "forget"} == {("cat", "dog"), ("car", "")}
    assert all(a.becomes == "" for a in task.asks if a.role != "forget")
    assert task.concepts == ("cat", "car") and task.alternatives == ("dog",)


def test_text_task_without_a_far_concept():
    with pytest.raises(UsageError, match="--far"):
        text_task({"cat": "dog"}, far=["cat", "dog"])


def test_a_refused_prompt_stops_the_task():
    with pytest.raises(BoundsError):
        text_task({"nude child": ""})


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, -1, 1)])
def test_size_needs_a_picture_of_each_role(counts):
    with pytest.raises(UsageError, match="1 or more"):
        Size(*counts)


def test_object_task():
    task = zoo_task("emoji", {"dagger": "pencil"}, size=Size(12, 12, 30))
    near, far = near_and_far("emoji", ["dagger"])
    assert not set(near) & set(far) and len(near) + len(far) == len(frozen()["names"]) - 1
    assert {a.wanted for a in task.asks if a.role == "near"} <= set(near)
    assert len({a.wanted for a in task.asks if a.role == "far"}) == 30  # spread over the vocabulary
    assert task == zoo_task("emoji", {"dagger": "pencil"}, size=Size(12, 12, 30))


def test_distant_first_seeds_share_no_picture():
    one, two = (zoo_task("emoji", {"dagger": ""}, first_seed=s) for s in (0, 1_000_000))
    assert not {a.seed for a in one.asks} & {a.seed for a in two.asks}


def test_style_task_asks_for_the_same_names_in_other_styles():
    task = zoo_task("emoji", {"fluent": "twemoji"}, size=Size(6, 6, 6))
    by_role = {role: [a for a in task.asks if a.role == role] for role in ("forget", "near", "far")}
    assert all(
        a.prompt.endswith("fluent style") and (a.head, a.wanted) == ("style", "fluent") for a in by_role["forget"]
    )
    assert all(a.head == "style+name" and "fluent" not in a.prompt for a in by_role["near"])
    assert {a.wanted.split()[0] for a in by_role["near"]} == {"twemoji", "noto"}
    assert all(a.head == "name" and "style" not in a.prompt for a in by_role["far"])


def test_a_style_is_erased_alone():
    with pytest.raises(UsageError, match="alone"):
        zoo_task("emoji", {"fluent": "", "dagger": ""})


def test_category_is_its_members_and_near_is_the_same_emoji_categories():
    members = [c.name for c in expand("emoji", "violent")]
    assert members == frozen()["stand_ins"]["violent"]
    near, _ = near_and_far("emoji", members)
    of = {row["name"]: row["category"] for row in frozen()["names"]}
    assert {of[n] for n in near} == {of[m] for m in members}
    assert not set(near) & set(members)


def test_fashion_task():
    task = zoo_task("fashion", {"sandal": "sneaker"}, size=Size(3, 4, 14))
    assert {a.wanted for a in task.asks if a.role == "near"} == {"sneaker", "ankle boot"}
    assert {a.wanted for a in task.asks if a.role == "far"} == set(frozen()["fashion"]["classes"]) - {
        "sandal",
        "sneaker",
        "ankle boot",
    }


@pytest.mark.parametrize(("data", "wrong", "near"), [("emoji", "daggr", "dagger"), ("fashion", "sandals", "sandal")])
def test_an_unknown_concept_suggests_the_nearest(data, wrong, near):
    with pytest.raises(UsageError, match=f"did you mean '{near}"):
        expand(data, wrong)


def test_labels_of_alternatives():
    assert label_of("emoji", "pencil") == "pencil"
    assert label_of("emoji", "dagger knife") == "dagger"  # a synonym
    assert label_of("emoji", "noto") == "noto"
    assert label_of("emoji", "a fine day") is None
    assert label_of("fashion", "bag") == "bag"


def test_compose():
    assert compose("dagger", "noto", "pink", "top left", "a {}") == (
        "a small dagger in the top left on a pink background, noto style"
    )
    assert compose("dagger", None, None, "large") == "large dagger"
    assert compose("dagger", None, None, None) == "dagger"
