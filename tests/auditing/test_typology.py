"""The typology: categories as data, clusters of what looks alike, the coding sheet, and what raters agree on."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sample_runs import features, look, make_run
from scotoma.auditing import clusters as module
from scotoma.auditing.clusters import Clusters, cluster, elbow, plain_cell, read_clusters, write
from scotoma.auditing.coding import decide, read_codes, settled
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run
from scotoma.auditing.typology import TYPOLOGY, read_typology
from scotoma.detectors.crosswalk import CROSSWALK
from scotoma.detectors.image.mhsc import CATEGORIES
from scotoma.errors import BoundsError, DataError, MissingExtraError, UsageError
from scotoma.records import Prompt

NAN = float("nan")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run") / "a")
    look(made)
    return made


def of(run: Run, **settings) -> Clusters:
    return cluster(run, features, **{"largest": 6, "per_cluster": 3, **settings})


# ---- categories ------------------------------------------------------------------------------------------------------


def test_the_five_are_those_of_the_crosswalk_and_of_the_heads():
    assert [*TYPOLOGY] == [*CROSSWALK] == [*CATEGORIES]
    assert all(d.endswith(".") and d.count(".") == 1 for d in TYPOLOGY.values())


def test_own_categories(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("# mine\nno: Not what was asked for.\nlogo: >\n  A sign\n  of a firm.\n", encoding="utf-8")
    assert dict(read_typology(path)) == {"no": "Not what was asked for.", "logo": "A sign of a firm."}


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "holds no categories; write one line"),
        ("- a\n- b\n", "holds no categories; write one line"),
        ("a: b: c", "is not YAML .* write lines of name: definition"),
        ("logo: A sign.\nmark:\n", "line 2: mark has no definition; write one sentence"),
        ("logo: ~\n", "line 1: logo has no definition"),
        ("logo: [a]\n", "line 1: logo has no definition"),
        ("logo: A sign.\nLogo: Another.\n", "line 2: Logo is there twice"),
        ('"a, b": A sign.\n', "line 1: a category is called by letters"),
        ("None: A sign.\n", "line 1: none is the code of pictures in no category"),
    ],
)
def test_what_is_no_typology_is_named(tmp_path, text, told):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_typology(path)


def test_a_typology_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="missing.yaml cannot be read .No such file"):
        read_typology(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"caf\xe9: A place.\n")
    with pytest.raises(DataError, match="is not UTF-8 .*save it as UTF-8"):
        read_typology(tmp_path / "latin.yaml")


# ---- clusters --------------------------------------------------------------------------------------------------------


def test_the_elbow_by_hand():
    """k 2..5 and inertia 10, 4, 3, 2: x = 0, 1/3, 2/3, 1 and y = 1, 1/4, 1/8, 0. At 3 the point lies (1 - 1/3 - 1/4) / sqrt 2
    = 0.2946 below the chord, at 4 (1 - 2/3 - 1/8) / sqrt 2 = 0.1473."""
    k, below = elbow({2: 10.0, 3: 4.0, 4: 3.0, 5: 2.0})
    assert k == 3 and below == pytest.approx(0.41666667 / 2**0.5)


@pytest.mark.parametrize(
    "curve", [{2: 9.0, 3: 6.0, 4: 3.0}, {2: 9.0, 3: 8.5, 4: 3.0}, {2: 1.0, 3: 1.0, 4: 1.0}, {2: 9.0, 3: 1.0}]
)
def test_a_curve_without_a_bend_gives_its_least_number(curve):
    assert elbow(curve) == (2, 0.0)


def test_of_two_equal_bends_the_first_is_taken():
    """x = 0, 1/4, .. 1 and y = 1, 1/2, 1/4, 0.15, 0: both 3 and 4 lie 1/4 / sqrt 2 below."""
    assert elbow({2: 100.0, 3: 50.0, 4: 25.0, 5: 15.0, 6: 0.0})[0] == 3


def test_what_was_flagged_falls_into_its_colours(run):
    """12 poppies, 8 ferns and 4 skies of two models; the grey controls were not flagged."""
    c = of(run)
    assert c.sizes == [12, 8, 4] and c.header.resolved["taken"] == 3
    asked = {(p.set, p.id): p.text for p in run.prompts}
    shown = {k: {asked[p.set, p.prompt] for p in c.placed if p.cluster == k} for k in (1, 2, 3)}
    assert shown == {1: {"a poppy"}, 2: {"a fern"}, 3: {"a sky"}}
    assert c.header.resolved["detectors"] == ["by-colour"] and [*c.inertia] == [2, 3, 4, 5, 6]


def test_distances_are_from_the_centroid_and_places_by_distance(run):
    c = of(run)
    third = [p for p in c.placed if p.cluster == 3]
    x = np.stack([features([module.read_whole(module.picture_path(run, p))])[0] for p in third])
    assert [p.distance for p in third] == pytest.approx(np.linalg.norm(x - x.mean(0), axis=1), abs=1e-6)
    for k in (1, 2, 3):
        own = sorted((p for p in c.placed if p.cluster == k and p.place), key=lambda p: p.place)
        assert [p.place for p in own] == [*range(1, len(own) + 1)]
        assert [p.distance for p in own] == sorted(p.distance for p in own)


def test_pictures_with_the_same_pixels_have_one_place(run):
    """`two` draws what `one` does: of each pair the second has none."""
    c = of(run)
    assert [sum(p.cluster == k and p.place > 0 for p in c.placed) for k in (1, 2, 3)] == [6, 4, 2]
    assert {p.model for p in c.nearest} == {"one"}
    assert [(p.cluster, p.place) for p in c.nearest] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2)]


def test_the_same_arguments_give_the_same_clusters(run):
    a, b = of(run), of(run)
    assert (a.placed, a.inertia, a.sha256) == (b.placed, b.inertia, b.sha256)
    assert a.sha256 != of(run, number=2).sha256


def test_everything_and_a_number(run):
    c = of(run, everything=True, number=4)
    assert sorted(c.sizes) == [4, 8, 12, 12] and c.header.resolved["detectors"] == []


def test_undecided_is_not_flagged(tmp_path):
    """The skies of a detector that cannot see blue are undecided, and so are left out."""
    made = make_run(tmp_path / "a")
    look(made, "colour-blind", blind=True)
    assert sum(of(made).sizes) == 20
    look(made)
    assert sum(of(made).sizes) == 24
    assert sum(of(made, detector="colour-blind").sizes) == 20


def test_settings_that_do_not_fit(run, tmp_path):
    with pytest.raises(UsageError, match="unknown detector of this run 'by-color'; did you mean 'by-colour'"):
        of(run, detector="by-color")
    with pytest.raises(UsageError, match="either everything or what by-colour flagged"):
        of(run, detector="by-colour", everything=True)
    with pytest.raises(UsageError, match="largest must be 2 or more and per_cluster 1 or more, got 1 and 3"):
        of(run, largest=1)
    with pytest.raises(UsageError, match="7 clusters of 12 different pictures: give 2 to 6"):
        of(run, number=7)
    bare = make_run(tmp_path / "a")
    with pytest.raises(UsageError, match="no detector has looked at .* or cluster everything"):
        of(bare)


def test_too_few_pictures_and_features_that_are_none(run):
    with pytest.raises(DataError, match="1 pictures flagged by by-colour differ from each other"):
        cluster(run, lambda pictures: np.ones((len(pictures), 2)))
    with pytest.raises(DataError, match="not finite"):
        cluster(run, lambda pictures: np.full((len(pictures), 2), np.nan))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 24 pictures"):
        cluster(run, lambda pictures: np.ones((1, 2)))


def test_a_picture_that_is_gone_is_named(tmp_path):
    made = make_run(tmp_path / "a")
    look(made)
    gone = made.picture(made.generations("two")[0])
    gone.unlink()
    with pytest.raises(DataError, match=f"{gone.name}: the picture cannot be read .*draw it again"):
        of(made)


def test_what_bounds_refuse_is_not_clustered(run, monkeypatch):
    """With a harmless rule in place of those of bounds.py."""

    def refuse(text: str, *, what: str) -> None:
        if "fern" in text:
            raise BoundsError(f"{what} is refused")

    monkeypatch.setattr(module, "check_text", refuse)
    with pytest.raises(BoundsError, match="what came with the pictures of prompt 003 of asked is refused"):
        of(run)


def test_without_scikit_learn_the_extra_is_named(run, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs scikit-learn.*pip install 'scotoma\[audit\]'"):
        of(run)


# ---- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path) -> tuple[Run, Clusters]:
    made = make_run(tmp_path / "a", apart=True)
    look(made)
    write(made, of(made))
    return made, read_clusters(made)


def cells(run: Run) -> list[dict[str, str]]:
    text = (run.folder / "typology" / "coding_sheet.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def fill(run: Run, code: Callable[[int, dict[str, str]], tuple[str, ...]], delimiter: str = ",") -> Path:
    """The sheet with what `code` says of each row, for each rater, in a file of its own."""
    rows = cells(run)
    for i, row in enumerate(rows):
        row |= dict(zip(("rater_1", "rater_2", "rater_3"), code(i, row), strict=True))
    path = run.folder / "filled.csv"
    with path.open("w", encoding="utf-8", newline="") as f:
        sheet = csv.DictWriter(f, [*rows[0]], delimiter=delimiter)
        sheet.writeheader()
        sheet.writerows(rows)
    return path


def test_what_is_written_is_read_again(written):
    run, c = written
    assert c.placed == of(run).placed and c.inertia == of(run).inertia
    assert c.header.resolved["raters"] == ["rater_1", "rater_2", "rater_3"]
    told = json.loads((run.folder / "typology" / "inertia.json").read_text())
    assert told["taken"] == told["elbow"] == 3 and [*told["inertia"]] == ["2", "3", "4", "5", "6"]
    rows = cells(run)
    assert [*rows[0]] == ["cluster", "place", "picture", "prompt", "rater_1", "rater_2", "rater_3"]
    assert len(rows) == 9 and all((run.folder / row["picture"]).is_file() for row in rows)
    assert [rows[0][k] for k in ("cluster", "place", "prompt", "rater_1", "rater_3")] == ["1", "1", "a poppy", "", ""]
    html = (run.folder / "typology" / "clusters.html").read_text(encoding="utf-8")
    assert "Cluster 3" in html and html.count("<img") == 9


def test_a_sheet_that_may_be_filled_in_is_not_written_over(written):
    run, c = written
    path = run.folder / "typology" / "coding_sheet.csv"
    write(run, c)  # the same, still empty
    path.write_text(path.read_text(encoding="utf-8").replace('""', '"violent"', 1), encoding="utf-8")
    with pytest.raises(DataError, match="coding_sheet.csv is there and may hold codes; move it away"):
        write(run, c)
    assert '"violent"' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("raters", [("ada",), ("ada", "ada"), ("ada", "prompt"), ("ada", "=1+1")])
def test_raters_need_names_of_their_own(run, raters):
    with pytest.raises(UsageError, match="two or more raters with names of their own"):
        write(run, of(run), raters=raters)


@pytest.mark.parametrize(
    "text, cell",
    [
        ("a poppy", "a poppy"),
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t =1", "'=1"),
        ("a;=1", "a;'=1"),  # where the separator is a semicolon, a cell begins here
        ("a, -b", "a, '-b"),
        ("\uff1d1", "'\uff1d1"),
        ("a-b = c", "a-b = c"),
        ("a\r\n=1", "a =1"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert plain_cell(text) == cell


def test_a_prompt_that_is_a_formula_comes_out_as_text(tmp_path):
    asked = tuple(Prompt(str(i), f'=cmd|"{s}"', "asked", "users") for i, s in enumerate(("poppy", "fern", "sky")))
    run = make_run(tmp_path / "a", sets=[PromptSet("asked", "users", asked)])
    write(run, of(run, everything=True))
    assert {row["prompt"] for row in cells(run)} == {f'\'=cmd|"{s}"' for s in ("poppy", "fern", "sky")}


def test_clusters_of_another_run(written, tmp_path):
    run, _ = written
    other = make_run(tmp_path / "b", instead={"sky": "stone"})
    with pytest.raises(DataError, match="clusters.jsonl cannot be read"):
        read_clusters(other)
    with pytest.raises(DataError, match="clusters.jsonl is of another run"):
        read_clusters(
            dataclasses.replace(run, header=dataclasses.replace(other.header, hashes={"audit": "something else"}))
        )


# ---- coding ----------------------------------------------------------------------------------------------------------


def test_a_majority_of_all_raters_or_nothing():
    """Of three: 2 yes, 2 no, 1 and 1 and a gap, 1 and two gaps, 2 yes and a gap. Of four: a tie is neither."""
    three = np.array([[1, 1, 0], [0, 1, 0], [1, 0, NAN], [1, NAN, NAN], [1, 1, NAN]])[:, None]
    assert settled(three)[:, 0] == pytest.approx([1, 0, NAN, NAN, 1], nan_ok=True)
    four = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, NAN, NAN]])[:, None]
    assert settled(four)[:, 0] == pytest.approx([NAN, 1, 0, NAN], nan_ok=True)


def test_categories_of_clusters_and_pictures(written):
    """Cluster 1: all say violent, the third of one picture also disturbing. Cluster 2: on each picture two of three say
    disturbing. Cluster 3: one picture political, one not, one with a vote each way and a gap: the cluster is undecided."""
    run, c = written

    third = [("political",) * 3, ("none", "none", "political"), ("political", "none", "")]
    said = [("violent", "Violent ", "violent, disturbing" if i == 0 else "violent") for i in range(3)]
    said += [("disturbing", "none", "disturbing")] * 3 + third
    path = fill(run, lambda i, row: said[i])
    told = decide(run, c, read_codes(path, run, c))
    assert told == json.loads((run.folder / "typology" / "categories.json").read_text())
    assert [(k["cluster"], k["pictures"], k["coded"]) for k in told["clusters"]] == [(1, 12, 3), (2, 8, 3), (3, 4, 3)]
    assert [k["categories"] for k in told["clusters"]] == [["violent"], ["disturbing"], []]
    assert [k["undecided"] for k in told["clusters"]] == [[], [], ["political"]]
    assert told["clusters"][2]["counts"]["political"] == {"there": 1, "not_there": 1, "undecided": 1}
    assert [p["categories"] for p in told["pictures"]] == [["violent"]] * 3 + [["disturbing"]] * 3 + [
        ["political"],
        [],
        [],
    ]
    assert [p["undecided"] for p in told["pictures"]] == [[]] * 8 + [["political"]]
    assert told["agreement"]["violent"]["value"] == 1 and told["agreement"]["violent"]["low"] < 1
    assert told["agreement"]["political"]["undecided"] == 1 and told["agreement"]["political"]["value"] < 1
    assert (
        told["agreement"]["sexual"]["value"] is None
        and "all raters said the same" in told["agreement"]["sexual"]["note"]
    )
    assert told["raters"] == ["rater_1", "rater_2", "rater_3"] and told["typology"] == dict(TYPOLOGY)


def test_alpha_by_hand(written, tmp_path):
    """Two raters, nine pictures: both give a code to two, one alone to one, six without. Of 18 values 5 are 1 and 13 are 0;
    D_o n = 2 and D_e n = 2 5 13 / 17, so alpha = 1 - 2 17 / 130 = 0.7385."""
    run, c = written
    path = fill(
        run, lambda i, row: ("violent", "violent", "") if i < 2 else ("violent" if i == 2 else "none", "none", "")
    )
    codes = read_codes(path, run, c, raters=("rater_1", "rater_2"))
    figure = decide(run, c, codes)["agreement"]["violent"]
    assert figure["value"] == pytest.approx(1 - 34 / 130) and figure["n"] == 9
    assert -1 <= figure["low"] < figure["value"] < figure["high"] <= 1


def test_two_raters_who_never_met_agree_on_nothing(written):
    run, c = written
    path = fill(run, lambda i, row: ("violent", "", "") if i % 2 else ("", "none", "none"))
    told = decide(run, c, read_codes(path, run, c, raters=("rater_1", "rater_2")))
    assert told["agreement"]["violent"]["value"] is None and told["agreement"]["violent"]["undecided"] == 9
    assert "no picture has two raters" in told["agreement"]["violent"]["note"]


def test_a_sheet_saved_with_semicolons_and_own_categories(written, tmp_path):
    run, c = written
    (tmp_path / "own.yaml").write_text("red: It is red.\n", encoding="utf-8")
    path = fill(run, lambda i, row: ("red" if row["cluster"] == "1" else "none",) * 3, delimiter=";")
    told = decide(run, c, read_codes(path, run, c, read_typology(tmp_path / "own.yaml")))
    assert [k["categories"] for k in told["clusters"]] == [["red"], [], []]


@pytest.mark.parametrize(
    "code, told",
    [
        (
            "violnt",
            "line 4, rater_2: unknown code 'violnt'; did you mean violent.*Correct it, or add it to the typology",
        ),
        ("xyz", "line 4, rater_2: unknown code 'xyz'; known: sexual, .*, none"),
        ("violent, none", "line 4, rater_2: 'violent, none' says none and more"),
    ],
)
def test_a_code_that_is_none_is_named_with_its_row(written, code, told):
    run, c = written
    path = fill(run, lambda i, row: ("none", code if i == 2 else "none", "none"))
    with pytest.raises(DataError, match=told):
        read_codes(path, run, c)


def test_raters_that_are_missing_or_silent(written):
    run, c = written
    path = fill(run, lambda i, row: ("none", "none", ""))
    with pytest.raises(DataError, match="rater_3 rated nothing; fill the column in, or name the raters that did"):
        read_codes(path, run, c)
    path.write_text(path.read_text(encoding="utf-8").replace("rater_2", "someone"), encoding="utf-8")
    with pytest.raises(DataError, match="has no column rater_2; put it back, or name the raters that there are"):
        read_codes(path, run, c)
    with pytest.raises(DataError, match="one rater; agreement needs two"):
        read_codes(path, run, c, raters=("rater_1",))
    assert read_codes(path, run, c, raters=("rater_1", "someone")).votes.shape == (9, 5, 2)


def test_a_sheet_of_other_clusters(written, tmp_path):
    run, c = written
    path = fill(run, lambda i, row: ("none",) * 3)
    whole = path.read_text(encoding="utf-8").splitlines(keepends=True)

    def refused(text: str, told: str) -> None:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=told):
            read_codes(path, run, c)

    refused("".join(whole).replace("pictures/", "elsewhere/"), "line 2: .* is not on the sheet of these clusters")
    refused("".join(whole[:1] + ["2" + whole[1][1:]] + whole[2:]), "line 2: .*in cluster '2' is not on the sheet")
    refused("".join(whole[:-2]), "lacks 2 of 9 pictures")
    refused("".join(whole + whole[1:2]), "line 11: .* is on line 2 already")
    refused(whole[0], "holds no rows")
    refused("".join(whole) + "1,2\n", "line 11: it has not as many cells")
    path.write_bytes("".join(whole).replace("a poppy", "caf\xe9").encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 .*save it as CSV in UTF-8"):
        read_codes(path, run, c)
    with pytest.raises(DataError, match="cannot be read .*check the path"):
        read_codes(tmp_path / "none.csv", run, c)
