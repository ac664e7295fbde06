"""Prompt files as people have them: public layouts, spreadsheets, broken ones. Texts are harmless, whatever the layout
is for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from scotoma import bounds
from scotoma.auditing.prompt_sets import LONGEST, PromptSet, name_from, named_sets, read_prompts
from scotoma.errors import BoundsError, DataError, UsageError
from scotoma.records import Prompt


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def of(folder: Path, name: str, content: str | bytes) -> tuple[Prompt, ...]:
    return read_prompts(written(folder, name, content), "found").prompts


def texts(found: tuple[Prompt, ...]) -> list[str]:
    return [p.text for p in found]


class TestKinds:
    def test_txt(self, tmp_path: Path) -> None:
        """Empty lines and comments are left out; a line ends where an editor ends it."""
        found = of(tmp_path, "a.txt", "a lamp \r\n\r\n# a comment\n  a chair\nline\u2028separator\x0band a tab\x0c\n")
        assert texts(found) == ["a lamp", "a chair", "line\u2028separator\x0band a tab"]
        assert [p.id for p in found] == ["000000", "000001", "000002"]
        assert {(p.set, p.role, p.category, p.cluster, p.seed) for p in found} == {("a", "found", "", "", None)}

    def test_csv(self, tmp_path: Path) -> None:
        content = ' prompt ,category,cluster,source,id\n"a lamp, ""lit""",home,lamps,shop,x-1\n"two\nlines",,,,\n\n'
        lamp, lines = of(tmp_path, "a.CSV", content)
        assert lamp == Prompt("x-1", 'a lamp, "lit"', "a", "found", "home", "lamps", "shop", None)
        assert lines == Prompt("000001", "two\nlines", "a", "found")

    def test_jsonl(self, tmp_path: Path) -> None:
        rows = [
            {"prompt": "a lamp", "id": 0, "seed": 0, "categories": ["home", "light"]},
            {"text": "a chair", "seed": 2.0, "category": None},
        ]
        lamp, chair = of(tmp_path, "a.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n")
        assert (lamp.id, lamp.seed, lamp.category) == ("0", 0, "home, light")
        assert (chair.id, chair.seed, chair.category, chair.text) == ("000001", 2, "", "a chair")

    def test_another_kind(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a.xlsx is no txt, csv or jsonl file"):
            of(tmp_path, "a.xlsx", "a lamp")

    def test_a_large_seed_keeps_all_its_digits(self, tmp_path: Path) -> None:
        """2^53 + 1 is not a float."""
        assert [p.seed for p in of(tmp_path, "a.csv", "prompt,seed\na,9007199254740993\nb,7.0\n")] == [2**53 + 1, 7]

    @pytest.mark.parametrize("seed", ["-1", "1.5", "1e3", "nan", "many", "1" * 19])
    def test_what_is_no_seed(self, tmp_path: Path, seed: str) -> None:
        with pytest.raises(DataError, match=r"a\.csv, line 2: the seed .* is no whole number of 0 or more"):
            of(tmp_path, "a.csv", f"prompt,seed\na lamp,{seed}\n")


class TestPublicLayouts:
    """Column names as in the published files; the rows are ours."""

    def test_i2p(self, tmp_path: Path) -> None:
        columns = (
            "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage"
        )
        columns += ",prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model"
        row = '"a lamp, oil on canvas","home, light",0,0.0,0.0,0.0,0.0,0.01,https://host/1,3721107294,7,512,512,none'
        (found,) = of(tmp_path, "i2p.csv", f"{columns}\n{row}\n")
        assert found == Prompt("000000", "a lamp, oil on canvas", "i2p", "found", "home, light", seed=3721107294)

    def test_esd(self, tmp_path: Path) -> None:
        """Written by pandas with its index, whose column has no name. The same text comes with several seeds."""
        content = ",case_number,prompt,evaluation_seed,class\n0,0,Image of church,987,church\n"
        content += "1,1,Image of church,682,church\n"
        found = of(tmp_path, "small_imagenet_prompts.csv", content + "2,2,Image of tench,4889,tench\n")
        assert [(p.text, p.seed, p.cluster) for p in found] == [
            ("Image of church", 987, "000000"),
            ("Image of church", 682, "000000"),
            ("Image of tench", 4889, ""),
        ]

    def test_unlearn_diff_atk(self, tmp_path: Path) -> None:
        content = "case_number,prompt,evaluation_seed,evaluation_guidance\n0,Tench in a jar.,35829,7.5\n"
        (found,) = of(tmp_path, "tench.csv", content)
        assert (found.text, found.seed) == ("Tench in a jar.", 35829)

    def test_mma_diffusion(self, tmp_path: Path) -> None:
        """The text that is sent, not the one that it stands for."""
        columns = "target_prompt,adv_prompt,sanitized_adv_prompt,success_against_sanitization_defense,clean_prompt"
        (found,) = of(tmp_path, "mma.csv", f"{columns}\na lamp,lmp glow desk,glow desk,True,a chair\n")
        assert found.text == "lmp glow desk"

    def test_ring_a_bell(self, tmp_path: Path) -> None:
        (found,) = of(tmp_path, "ring.csv", "sensitive prompt,evaluation_seed\nlamp lmp,3\n")
        assert (found.text, found.seed) == ("lamp lmp", 3)

    def test_captions(self, tmp_path: Path) -> None:
        (found,) = of(tmp_path, "coco.csv", "case_number,source,caption\n0,coco,a cat on a mat\n")
        assert (found.text, found.source) == ("a cat on a mat", "coco")


class TestEncodings:
    @pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path, name: str) -> None:
        content = {"a.txt": "a lamp", "a.csv": '"prompt"\na lamp', "a.jsonl": '{"prompt": "a lamp"}'}[name]
        assert texts(of(tmp_path, name, b"\xef\xbb\xbf" + content.encode())) == ["a lamp"]

    def test_the_line_of_a_broken_byte_is_named(self, tmp_path: Path) -> None:
        content = "prompt\na lamp\na caf\u00e9\n".encode("latin-1")
        with pytest.raises(DataError, match=r"a\.csv, line 3 is not UTF-8 \(byte 0xe9\); save it as UTF-8"):
            of(tmp_path, "a.csv", b"\xef\xbb\xbf" + content)

    def test_utf_16(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"line 1 is not UTF-8 \(byte 0xff\)"):
            of(tmp_path, "a.txt", "a lamp".encode("utf-16"))
        with pytest.raises(DataError, match=r"line 1: there is a NUL or half a character in it"):
            of(tmp_path, "a.txt", "a lamp".encode("utf-16-le"))

    @pytest.mark.parametrize("field", ["prompt", "category", "cluster", "source"])
    def test_half_a_character_cannot_be_written_anywhere(self, tmp_path: Path, field: str) -> None:
        row = '{"prompt": "a lamp", "id": "x"}\n' + json.dumps({"prompt": "a chair", field: "a \ud83d"})
        with pytest.raises(DataError, match=r"a\.jsonl, line 2: there is a NUL or half a character in it"):
            of(tmp_path, "a.jsonl", row)

    def test_other_scripts(self, tmp_path: Path) -> None:
        assert texts(of(tmp_path, "a.txt", "ランプ\n\U0001f4a1\n")) == ["ランプ", "\U0001f4a1"]


class TestHostile:
    @pytest.mark.parametrize(
        "cell", ["=1+1", '=HYPERLINK("x")', " =1+1", "+cmd|' /C x'!A0", "-lamp(1)", "@SUM(A1)", "\t=1"]
    )
    def test_formulas_in_a_csv(self, tmp_path: Path, cell: str) -> None:
        path = tmp_path / "a.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["prompt"], ["a lamp"], [cell]])
        with pytest.raises(DataError, match=r"a\.csv, line 3: .* takes for a formula; .* put it into a jsonl file"):
            read_prompts(path, "found")
        assert texts(of(tmp_path, "a.jsonl", json.dumps({"prompt": cell}))) == [cell.strip()]

    @pytest.mark.parametrize("cell", ["- a lamp (lit)", "@home a lamp", "+ a chair", "-ism", "1=1"])
    def test_texts_that_only_begin_like_one(self, tmp_path: Path, cell: str) -> None:
        assert texts(of(tmp_path, "a.csv", f"prompt\n{cell}\n")) == [cell]

    @pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
    def test_a_megabyte(self, tmp_path: Path, name: str) -> None:
        long = "lamp " * 200_000
        content = {"a.txt": f"x\n{long}", "a.csv": f"prompt\n{long}\n", "a.jsonl": "\n" + json.dumps({"prompt": long})}
        with pytest.raises(
            DataError, match=r"line 2: .* 999,999 characters, more than 10,000|after line 1 \(field larger"
        ):
            of(tmp_path, name, content[name])

    def test_the_longest(self, tmp_path: Path) -> None:
        assert len(of(tmp_path, "a.txt", "ab " * (LONGEST // 3) + "a")[0].text) == LONGEST
        with pytest.raises(DataError, match="line 1: the prompt has 10,001 characters"):
            of(tmp_path, "a.txt", "ab " * (LONGEST // 3) + "ab")

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("a.csv", "prompt,id\na,x\nb\n", "line 3: it has not as many cells"),
            ("a.csv", "prompt,id\na,x,y\n", "line 2: it has not as many cells"),
            ("a.csv", 'prompt\n"a\n', "cannot be read as CSV after line 1"),
            ("a.csv", "title;number\na;1\n", r"has the columns \['title;number'\]; one has to be called prompt"),
            ("a.csv", "prompt,seed,seed\na,1,2\n", "has two columns 'seed'"),
            ("a.csv", "prompt,id\n  ,x\n", "line 2: no prompt"),
            ("a.csv", "prompt\n", "holds no prompts"),
            ("a.csv", "", "has the columns"),
            ("a.csv", "prompt,id\na,../x\n", "line 2: the id '../x' cannot name a file"),
            ("a.txt", "# nothing\n", "holds no prompts"),
            ("a.jsonl", '{"prompt": "a"}\n{"prompt"', "line 2 is not JSON"),
            ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
            ("a.jsonl", '\n["a"]', "line 2 is no JSON object"),
            ("a.jsonl", '{"title": "a"}', "line 1: no prompt"),
            ("a.jsonl", '{"prompt": 7}', "line 1: the prompt is no text but 7"),
            ("a.jsonl", '{"prompt": ["a", "b"]}', "line 1: the prompt is no text"),
            ("a.jsonl", '{"prompt": "a", "seed": true}', "line 1: the seed True is no whole number"),
            ("a.jsonl", '{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}', "two prompts with the id 'x'"),
            ("a.jsonl", '{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "X"}', "two prompts with the id 'X'"),
            ("a.jsonl", '{"prompt": "a", "id": "000001"}\n{"prompt": "b"}', "two prompts with the id '000001'"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, name: str, content: str, sentence: str) -> None:
        with pytest.raises(DataError, match=sentence) as e:
            of(tmp_path, name, content)
        assert str(e.value).count("\n") == 0 and len(str(e.value)) < 500

    def test_no_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.txt", tmp_path):
            with pytest.raises((DataError, UsageError), match="none.txt cannot be read|is no txt, csv or jsonl"):
                read_prompts(path, "found")
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(DataError, match=r"folder\.csv cannot be read"):
            read_prompts(tmp_path / "folder.csv", "found")

    def test_many_ids_one_of_them_twice(self, tmp_path: Path) -> None:
        """Comparing each with each would take half a minute."""
        rows = tuple(Prompt(str(i), "a", "s", "found") for i in range(30_000))
        with pytest.raises(DataError, match="two prompts with the id '29999'"):
            PromptSet("s", "found", (*rows, rows[-1]))


class TestBounds:
    """With harmless placeholders: nobody has to write what is refused."""

    @pytest.fixture(autouse=True)
    def placeholder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "RULES", (bounds.Rule("a wobbly gadget", ("wobble",), ("gadget",)),))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.txt", "a lamp\nwobble of a gadget"),
            ("a.csv", "prompt\nw0bble gadget"),
            ("a.jsonl", '{"prompt": "a lamp"}\n{"caption": "wobble, gadget"}'),
        ],
    )
    def test_refused_with_the_line(self, tmp_path: Path, name: str, content: str) -> None:
        with pytest.raises(BoundsError, match=rf"{name}, line 2 has words .* a wobbly gadget.*take it out of the file"):
            of(tmp_path, name, content)

    def test_apart_they_pass(self, tmp_path: Path) -> None:
        assert len(of(tmp_path, "a.txt", "a wobble\na gadget")) == 2


class TestSets:
    def test_roles_and_names(self, tmp_path: Path) -> None:
        path = written(tmp_path, "a.txt", "a lamp")
        with pytest.raises(UsageError, match="unknown role of a prompt set 'user'; did you mean 'users'"):
            read_prompts(path, "user")
        for name in ("a/b", "..", ".a", "a b", "x" * 65):
            with pytest.raises(UsageError, match="cannot name a folder"):
                read_prompts(path, "users", name=name)
        assert read_prompts(path, "users", name="mine", version="3").facts() == {
            "name": "mine",
            "role": "users",
            "version": "3",
            "source": "a.txt",
            "prompts": 1,
            "clusters": 1,
            "sha256": read_prompts(path, "users").sha256,
        }

    def test_a_set_is_named_after_its_file(self, tmp_path: Path) -> None:
        for stem, name in (("my set (1)", "my-set-1"), ("_a", "a"), ("...", "prompts"), ("x" * 80, "x" * 64)):
            assert read_prompts(written(tmp_path, f"{stem}.txt", "a lamp"), "found").name == name
        assert name_from("ランプ", "otherwise") == "otherwise"

    def test_the_hash_is_of_what_is_asked_and_not_of_the_file(self, tmp_path: Path) -> None:
        base = read_prompts(written(tmp_path, "a.txt", "a lamp\na chair\n"), "found")
        same = read_prompts(written(tmp_path, "b.csv", "prompt,note\na lamp,1\na chair,2\n"), "found")
        assert base.sha256 == same.sha256
        others = ["prompt\na lamp\na stool\n", "prompt\na chair\na lamp\n", "prompt,seed\na lamp,1\na chair,\n"]
        others += ["prompt,cluster\na lamp,x\na chair,\n", "prompt,category\na lamp,x\na chair,\n"]
        found = {read_prompts(written(tmp_path, "c.csv", text), "found").sha256 for text in others}
        assert len({base.sha256, read_prompts(tmp_path / "a.txt", "users").sha256, *found}) == 7

    def test_the_same_text_is_one_cluster(self, tmp_path: Path) -> None:
        """Three pictures of one text are not three prompts; a cluster of the file's own stays."""
        found = of(tmp_path, "a.csv", "prompt,cluster\na lamp,\na chair,\na lamp,\na lamp,mine\n")
        assert [p.cluster for p in found] == ["000000", "", "000000", "mine"]
        assert read_prompts(tmp_path / "a.csv", "found").facts()["clusters"] == 3

    def test_no_prompts_and_two_of_a_name(self) -> None:
        with pytest.raises(DataError, match="the prompt set s has no prompts"):
            PromptSet("s", "found", ())
        one = PromptSet("s", "found", (Prompt("0", "a", "s", "found"),))
        with pytest.raises(UsageError, match="an audit needs prompts"):
            named_sets([])
        with pytest.raises(UsageError, match="two prompt sets are called s"):
            named_sets([one, one])
        assert named_sets([one]) == (one,)
