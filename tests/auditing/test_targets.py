"""What an audit is pointed at: names, folders of pictures as people have them, and a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scotoma import bounds
from scotoma.auditing.generate import generate
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import begin, seed_of
from scotoma.auditing.targets import Noted, Nothing, Target, of_model, of_pictures, split_name
from scotoma.errors import BoundsError, DataError, UsageError
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.records import Prompt


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("zoo:emoji", "emoji", "zoo:emoji"),
        ("zoo:emoji+runs/dagger.safetensors", "emoji-dagger", "zoo:emoji+runs/dagger.safetensors"),
        ("zoo:emoji+a.safetensors+b.safetensors", "emoji-a-b", "zoo:emoji+a.safetensors+b.safetensors"),
        ("mine=zoo:emoji", "mine", "zoo:emoji"),
        ("./models/sd15/", "sd15", "./models/sd15/"),
        ("some-org/some-model", "some-model", "some-org/some-model"),
        ("pictures:data/pictures of lamps/", "pictures-of-lamps", "pictures:data/pictures of lamps/"),
        ("https://host/v1#org/lamps-2", "lamps-2", "https://host/v1#org/lamps-2"),
        ("https://host:8000/v1/#a+b", "a-b", "https://host:8000/v1/#a+b"),
        ("far=https://host/v1?x=1#m", "far", "https://host/v1?x=1#m"),
        ("http://host/v1?x=1#m", "m", "http://host/v1?x=1#m"),
        ("runs/lr=3/model", "model", "runs/lr=3/model"),
        ("pictures:_old", "old", "pictures:_old"),
        ("pictures:" + "x" * 80, "x" * 64, "pictures:" + "x" * 80),
        ("pictures:絵", "target", "pictures:絵"),
    ],
)
def test_names(text: str, name: str, spec: str) -> None:
    """A name that was made from what it names can name a folder always."""
    assert split_name(text) == (name, spec)
    Target(name, "model", "", lambda prompts, seeds: [], 1)


def test_a_given_name_that_cannot_name_a_folder() -> None:
    name, _ = split_name("a+b=zoo:emoji")
    with pytest.raises(UsageError, match="the target 'a\\+b' cannot name a folder"):
        Target(name, "model", "", lambda prompts, seeds: [], 1)


def lamp(k: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six files: captions from the table, from beside, from neither, one that is no picture, one of another kind."""
    root = tmp_path / "lamps"
    (root / "sub").mkdir(parents=True)
    for k, name in enumerate(("b.png", "sub/a.PNG", "c.webp", "d.bmp")):
        Image.fromarray(lamp(k)).save(root / name, lossless=True)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    (root / "notes.md").write_text("no picture")
    (root / "folder.png").mkdir()
    (root / "c.txt").write_bytes(b"\xef\xbb\xbfa lamp that is described beside it\n")
    (root / "d.txt").write_text("this is not read, the table says it")
    table = "\ufefffile_name,prompt,width\nsub/a.PNG,a lamp in a folder,8\nd.bmp, a lamp in the table ,8\n"
    table += "else.png,not there,8\n"
    (root / "metadata.csv").write_text(table, encoding="utf-8")
    return root


class TestPictures:
    def test_files_and_captions(self, folder: Path) -> None:
        target = of_pictures("mine", folder)
        assert target.own is not None and target.kind == "pictures"
        assert [(p.source, p.text) for p in target.own.prompts] == [
            ("b.png", ""),
            ("broken.jpg", ""),
            ("c.webp", "a lamp that is described beside it"),
            ("d.bmp", "a lamp in the table"),
            ("sub/a.PNG", "a lamp in a folder"),
        ]
        assert {(p.set, p.role) for p in target.own.prompts} == {("mine", "pictures")}
        assert target.facts == {"source": "lamps", "pictures": 5}

    def test_pictures_and_what_cannot_be_read(self, folder: Path) -> None:
        target = of_pictures("mine", folder)
        assert target.own is not None
        prompts = target.own.prompts
        b, broken, c, d, a = target.draw(prompts, [0] * 5)
        for found, k in ((b, 0), (c, 2), (d, 3), (a, 1)):
            assert isinstance(found, np.ndarray) and (found == lamp(k)).all()
        assert isinstance(broken, Nothing) and broken.outcome == "failed" and "cannot be read" in broken.reason
        (again,) = target.draw(prompts[3:4], [0])
        assert (again == lamp(3)).all()

    def test_captions_in_another_column(self, folder: Path) -> None:
        (folder / "metadata.csv").write_text("file_name,text\nb.png,a lamp called text\n")
        target = of_pictures("mine", folder)
        assert target.own is not None and target.own.prompts[0].text == "a lamp called text"

    def test_identity_is_of_the_pictures(self, folder: Path) -> None:
        before = of_pictures("mine", folder).identity
        assert of_pictures("other", folder).identity == before
        Image.fromarray(lamp(9)).save(folder / "b.png")
        assert of_pictures("mine", folder).identity != before

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("metadata.csv", b"file,prompt\nb.png,x\n", r"metadata\.csv cannot be read .* needs the columns file_name"),
            ("metadata.csv", b"file_name,prompt\nb.png,caf\xe9\n", r"metadata\.csv cannot be read"),
            ("metadata.csv", b'file_name,prompt\nb.png,"x\n', r"metadata\.csv cannot be read"),
            ("b.txt", b"caf\xe9", r"b\.png or its caption cannot be read"),
        ],
    )
    def test_captions_that_cannot_be_read(self, folder: Path, name: str, content: bytes, sentence: str) -> None:
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            of_pictures("mine", folder)

    def test_no_pictures(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none", Path(__file__)):
            with pytest.raises(DataError, match=r"holds no pictures \(\.png"):
                of_pictures("mine", path)

    def test_captions_within_bounds(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such a folder is not copied from."""
        monkeypatch.setattr(bounds, "RULES", (bounds.Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
        of_pictures("mine", folder)
        (folder / "b.txt").write_text("wobble of a gadget")
        with pytest.raises(BoundsError, match=r"the caption of .*b\.png has words .* a wobbly gadget"):
            of_pictures("mine", folder)

    def test_an_audit_asks_each_target_what_is_its_own(self, folder: Path, tmp_path: Path) -> None:
        """Pictures are drawn once, whatever the seeds; prompts that belong to nobody go to the others."""
        asked: list[str] = []

        def draw(prompts, seeds):
            asked.extend(p.text for p in prompts)
            return [Noted(lamp(s % 99), "with care") for s in seeds]

        mine = of_pictures("mine", folder)
        made = Target("made", "model", "x", draw, 2)
        prompts = PromptSet("users", "users", (Prompt("0", "a lamp", "users", "users", seed=5),))
        run = begin(tmp_path / "run", [mine, made], [prompts], seeds=3)
        found = generate(run, mine)
        assert [g.outcome for g in found] == ["picture", "failed", "picture", "picture", "picture"]
        drawn = generate(run, made)
        assert asked == ["a lamp"] * 3 and [g.seed for g in drawn] == [5, 6, 7]
        assert {(g.outcome, g.reason) for g in drawn} == {("picture", "with care")}
        assert (np.asarray(Image.open(run.picture(drawn[1]))) == lamp(6)).all()


class TestBegin:
    def of(self, name: str, identity: str = "x") -> Target:
        return Target(name, "model", identity, lambda prompts, seeds: [], 1)

    def users(self, name: str = "users") -> PromptSet:
        return PromptSet(name, "users", (Prompt("0", "a lamp", name, "users"),))

    def test_names_that_come_twice(self, tmp_path: Path, folder: Path) -> None:
        """A set that is called as the pictures are would be taken for theirs."""
        with pytest.raises(UsageError, match="two targets are called a"):
            begin(tmp_path / "run", [self.of("a"), self.of("a", "y")], [self.users()], seeds=1)
        with pytest.raises(UsageError, match="two prompt sets are called users"):
            begin(tmp_path / "run", [self.of("a"), of_pictures("users", folder)], [self.users()], seeds=1)
        assert not (tmp_path / "run").exists()

    def test_nothing_to_ask(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="an audit needs prompts"):
            begin(tmp_path, [self.of("a")], [], seeds=1)
        with pytest.raises(UsageError, match="seeds must be 1 or more"):
            begin(tmp_path, [self.of("a")], [self.users()], seeds=0)

    def test_another_audit_in_the_folder(self, tmp_path: Path) -> None:
        begin(tmp_path, [self.of("a")], [self.users()], seeds=1)
        assert begin(tmp_path, [self.of("a")], [self.users()], seeds=1).targets[0]["name"] == "a"
        for targets, sets, seeds, what in (
            ([self.of("a", "y")], [self.users()], 1, "targets"),
            ([self.of("a")], [self.users("others")], 1, "sets"),
            ([self.of("a")], [self.users()], 2, "seeds"),
        ):
            with pytest.raises(DataError, match=f"holds an audit with other {what}; give another --out"):
                begin(tmp_path, targets, sets, seeds=seeds)

    def test_seeds_are_of_the_prompt_alone(self) -> None:
        """2^31 - 1 is the largest; another first seed is another picture of a prompt whose source names none."""
        p = Prompt("7", "a lamp", "users", "users")
        assert seed_of(p, 0, 0) == seed_of(Prompt("7", "another text", "users", "found"), 0, 0)
        found = {
            seed_of(Prompt(str(i), "", "s", "users"), k, first) for i in range(50) for k in (0, 1) for first in (0, 1)
        }
        assert len(found) == 200 and all(0 <= s < 2**31 for s in found)
        assert [seed_of(Prompt("7", "", "s", "users", seed=40), k, 9) for k in (0, 1)] == [40, 41]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny.write("sd1", tmp_path_factory.mktemp("tiny") / "sd1"))


class TestModel:
    def test_pictures(self, model: Model) -> None:
        """The same pair in the same company is the same picture, and another seed another one."""
        target = of_model("a", model, steps=2, batch_size=2, facts={"edits": ["x"]})
        prompts = [Prompt(str(i), text, "users", "users") for i, text in enumerate(("a red dog", "a cat", "a cat"))]
        first, second, third = target.draw(prompts, [1, 2, 3])
        assert isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.shape[2] == 3
        again = target.draw(prompts[:2], [1, 2])
        assert (again[0] == first).all() and (again[1] == second).all()
        assert (second != third).any()
        assert target.kind == "model" and target.batch == 2 and target.own is None
        assert target.facts["steps"] == 2 and target.facts["edits"] == ["x"] and target.facts["model"] == model.hash()

    def test_identity(self, model: Model) -> None:
        base = of_model("a", model, guidance=2.0, steps=2, batch_size=2)
        assert of_model("b", model, guidance=2.0, steps=2, batch_size=2, facts={"x": 1}).identity == base.identity
        others = [
            of_model("a", model, guidance=3.0, steps=2, batch_size=2),
            of_model("a", model, guidance=2.0, steps=3, batch_size=2),
            of_model("a", model, guidance=2.0, steps=2, batch_size=3),
        ]
        assert len({base.identity, *(t.identity for t in others)}) == 4

    def test_batch_size(self, model: Model) -> None:
        with pytest.raises(UsageError, match="the batch size is 0; give 1 or more"):
            of_model("a", model, batch_size=0)

    def test_a_model_that_is_told_labels_is_asked_for_labels_alone(self, tmp_path: Path) -> None:
        labels = load(tiny.write("label-unet", tmp_path / "labels"))
        target = of_model("l", labels, steps=1)
        assert target.labels == tuple(labels.labels)
        sets = [
            PromptSet(name, "users", (Prompt("0", text, name, "users"),))
            for name, text in (("good", labels.labels[1]), ("bad", "a dog"))
        ]
        with pytest.raises(UsageError, match="l is told one of its labels, and the prompt 'a dog' of bad is none"):
            begin(tmp_path / "run", [target], sets, seeds=1)
        assert not (tmp_path / "run").exists()
        generate(run := begin(tmp_path / "run", [target], sets[:1], seeds=1), target)
        assert [g.outcome for g in run.generations("l")] == ["picture"]
