"""Every source as a stream: what is an item, what is written beside it, and what hostile or broken data does."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from samples_curation import picture, png, save

from scotoma.curation import shards
from scotoma.curation.items import MAX_CAPTION, Damaged, Fields, Item, Loaded
from scotoma.curation.screen import read
from scotoma.curation.sources import FOREIGN, LINKS, entries
from scotoma.detectors.contract import Unreadable
from scotoma.errors import DataError, UsageError


def loaded(source, fields=None, others=None) -> dict[str, Loaded]:
    found = list(entries(source, fields, others))
    out = {e.path: e.load() for e in found if isinstance(e, Item)}
    assert len(out) == sum(isinstance(e, Item) for e in found)
    return out


def damaged(source) -> dict[str, str]:
    return {e.path: e.reason for e in entries(source) if isinstance(e, Damaged)}


def test_a_folder_with_captions_beside_and_in_metadata(tmp_path):
    save(tmp_path / "b.png", 1, caption="a boat")
    save(tmp_path / "a.png", 2)
    save(tmp_path / "in/c.png", 3)
    (tmp_path / "a.json").write_text('{"caption": "a tree"}')
    (tmp_path / "metadata.csv").write_text(
        'file_name,text\nin/c.png,"two\nlines, one cell"\na.png,and grass\nnone.png,x\n'
    )
    (tmp_path / "in/metadata.jsonl").write_text('{"file_name": "c.png", "prompt": "a cat"}\n\n')
    (tmp_path / "notes.md").write_text("x")
    others: Counter[str] = Counter()
    found = loaded(tmp_path, others=others)
    assert list(found) == ["a.png", "b.png", "in/c.png"]
    assert {k: v.caption for k, v in found.items()} == {
        "a.png": "a tree\nand grass",
        "b.png": "a boat",
        "in/c.png": "two\nlines, one cell\na cat",
    }
    assert found["b.png"].data == (tmp_path / "b.png").read_bytes() and others == {".md": 1}


@pytest.mark.parametrize(
    "name, content, why",
    [
        ("metadata.csv", b"name,text\na.png,x\n", "no column file_name"),
        ("metadata.jsonl", b'{"file_name": "a.png"', "cannot be read"),
        ("metadata.jsonl", b'{"text": "x"}\n', "no file_name"),
        ("metadata.csv", b"file_name,text\na.png,\xff\n", "cannot be read"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b"x" * (MAX_CAPTION + 1), "more than"),
        ("a.json", b"{", "not JSON"),
        ("a.json", b'{"caption": 3}', "not a text"),
    ],
)
def test_a_caption_that_cannot_be_read_is_said_to_be(tmp_path, name, content, why):
    save(tmp_path / "a.png", 1)
    (tmp_path / name).write_bytes(content)
    caption = loaded(tmp_path)["a.png"].caption
    assert isinstance(caption, Unreadable) and why in caption.reason


def test_a_field_that_was_named_has_to_be_there(tmp_path):
    save(tmp_path / "a.png", 1)
    (tmp_path / "a.json").write_text('{"text": "x", "alt": ["y", "z"]}')
    assert loaded(tmp_path, Fields(caption="alt"))["a.png"].caption == "y\nz"
    missing = loaded(tmp_path, Fields(caption="altt"))["a.png"].caption
    assert isinstance(missing, Unreadable) and "'altt'" in missing.reason


def test_odd_names_links_pipes_and_folders_that_cannot_be_read(tmp_path):
    source = tmp_path / "s"
    save(source / "line\nbreak.png", 1)
    name = os.fsencode(source) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(png(picture(2)))
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "self.png").symlink_to("self.png")
    (source / "to.png").symlink_to("line\nbreak.png")
    os.mkfifo(source / "pipe.png")
    (source / "shut").mkdir()
    save(source / "shut/x.png", 3)
    (source / "shut").chmod(0)
    others: Counter[str] = Counter()
    try:
        found = list(entries(source, None, others))
        items = {e.path: e.load().data for e in found if isinstance(e, Item)}
        shut = [e for e in found if isinstance(e, Damaged)]
    finally:
        (source / "shut").chmod(0o700)
    json.dumps(list(items))
    assert items["line\nbreak.png"] == items["to.png"] and os.fsencode("\udcff.png") == b"\xff.png"
    assert isinstance(items["\udcff.png"], bytes)
    assert all(isinstance(items[k], Unreadable) for k in ("self.png", "pipe.png"))
    assert others[LINKS] == 1
    if os.geteuid():  # the superuser may read all folders
        assert [e.path for e in shut] == ["shut"] and "cannot be read" in shut[0].reason


def _tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


MEMBERS = [
    ("00/a.png", png(picture(1))),
    ("00/a.json", b'{"caption": "a tree", "cls": 3}'),
    ("00/a.txt", b"an oak"),
    ("../../b.webp", png(picture(2))),
    ("c.seg.png", png(picture(3))),
    ("inner.tar", b"x" * 2000),
    ("d.txt", b"alone"),
]


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz")])
def test_a_shard(tmp_path, suffix, mode):
    path = _tar(tmp_path / f"s{suffix}", MEMBERS, mode)
    others: Counter[str] = Counter()
    for source in (path, tmp_path):
        found = loaded(source, others=others)
        assert list(found) == [f"s{suffix}/{n}" for n in ("00/a.png", "../../b.webp", "c.seg.png")]
        assert [v.caption for v in found.values()] == ["a tree\nan oak", None, None]
        assert [v.data for v in found.values()] == [MEMBERS[i][1] for i in (0, 3, 4)]
    assert others == {".tar": 2} and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("cut", [600, 1536, -10240])
def test_a_shard_that_is_cut_short_gives_what_was_before(tmp_path, cut):
    """Within a header, within the data of the second member, and behind its data, where the end mark is missing. The end of
    the archive is padded to 10,240 bytes: two zero blocks and more."""
    path = _tar(tmp_path / "s.tar", [("a.png", b"x" * 100), ("b.png", b"y" * 700)])
    whole = path.read_bytes()
    at = {600: 512 + 512 + 100, 1536: 512 * 3 + 300, -10240: 512 * 5}[cut]
    path.write_bytes(whole[:at])
    found = loaded(path)
    assert found["s.tar/a.png"].data == b"x" * 100
    assert ("s.tar/b.png" in found) == (cut != 600)
    if cut == 1536:
        assert isinstance(found["s.tar/b.png"].data, Unreadable)
    assert "cut short" in damaged(path)["s.tar"] or "unexpected end" in damaged(path)["s.tar"]


def test_a_damaged_or_compressed_and_cut_shard_is_named(tmp_path):
    path = _tar(tmp_path / "s.tar", [("a.png", b"x" * 100), ("b.png", b"y" * 700)])
    broken = bytearray(path.read_bytes())
    broken[1024:1100] = b"\x07" * 76  # the second header
    path.write_bytes(bytes(broken))
    assert list(loaded(path)) == ["s.tar/a.png"] and "s.tar" in damaged(path)
    rng = np.random.default_rng(0)
    packed = _tar(tmp_path / "p.tar.gz", [(f"{i}.png", rng.bytes(9000)) for i in range(40)], "w:gz")
    packed.write_bytes(packed.read_bytes()[:200_000])
    assert 10 < len(loaded(packed)) < 40 and "p.tar.gz" in damaged(packed)
    (tmp_path / "n.tar").write_bytes(b"no tar file at all" * 100)
    assert "n.tar" in damaged(tmp_path / "n.tar")


def test_bombs_in_a_shard(tmp_path, monkeypatch):
    """What a sample holds of a compressed shard, by hand: 300 and 200 bytes of pictures fit into 512, 100 more do not. A header
    that says that it has 2 MB is not read, whatever follows, nor is one behind too many others."""
    monkeypatch.setattr(shards, "MAX_BYTES", 512)
    members = [("a.png", b"x" * 300), ("a.webp", b"y" * 200), ("a.jpg", b"z" * 100), ("b.png", b"x" * 400)]
    data = [v.data for v in loaded(_tar(tmp_path / "s.tar.gz", members, "w:gz")).values()]
    assert data[:2] + data[3:] == [members[i][1] for i in (0, 1, 3)] and "together" in data[2].reason
    assert [v.data for v in loaded(_tar(tmp_path / "s.tar", members)).values()] == [m[1] for m in members]
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        head = tarfile.TarInfo("long")
        head.type, head.size = kind, 2 << 20
        path = _tar(tmp_path / "h.tar.gz", members[:1], "w:gz")
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:1024] + head.tobuf() + b"x" * (3 << 20)))
        assert list(loaded(path)) == ["h.tar.gz/a.png"] and "2097152 bytes" in damaged(path)["h.tar.gz"]
    head = tarfile.TarInfo("again")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 0
    path.write_bytes(gzip.compress(head.tobuf() * 5000))
    assert "h.tar.gz" in damaged(path)


def test_a_map_of_a_sparse_file_is_not_read(tmp_path, monkeypatch):
    """Both kinds, each with a map that goes on for as long as the file does: of the first 21 places a block, of the second lines."""
    reads = []
    monkeypatch.setattr(tarfile.TarInfo, "_proc_sparse", lambda *_: reads.append("gnu"))
    old, pax = tarfile.TarInfo("b.png"), tarfile.TarInfo("b.png")
    old.type = tarfile.GNUTYPE_SPARSE
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    for head in (old.tobuf(), pax.tobuf(tarfile.PAX_FORMAT)):
        path = _tar(tmp_path / "s.tar.gz", [("a.png", b"x")], "w:gz")
        path.write_bytes(
            gzip.compress(gzip.decompress(path.read_bytes())[:1024] + head + b"9999999\n" + b"1\n" * 100_000)
        )
        assert list(loaded(path)) == ["s.tar.gz/a.png"] and "sparse" in damaged(path)["s.tar.gz"]
    assert not reads


def test_links_and_names_that_come_twice_in_a_shard(tmp_path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for data in (b"one", b"two"):
            info = tarfile.TarInfo("a.png")
            info.size = 3
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    first, second, third = (e.load().data for e in entries(path))
    assert first == b"one" and "twice" in second.reason and "link" in third.reason


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    save(tmp_path / "beside.png", 5)
    rows = [
        {"image": {"bytes": png(picture(i)), "path": None}, "caption": f"number {i}", "extra": b"zz"} for i in range(40)
    ]
    rows[3]["image"] = {"bytes": None, "path": "beside.png"}
    rows[4]["image"] = {"bytes": None, "path": "../../etc/passwd"}
    rows[5] = {"image": None, "caption": None, "extra": None}
    rows[6]["image"] = {"bytes": None, "path": "beside\0.png"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=7)
    found = loaded(tmp_path / "t.parquet")
    assert list(found) == [f"t.parquet#{i}" for i in range(40)]
    assert found["t.parquet#39"] == Loaded(png(picture(39)), "number 39")
    assert found["t.parquet#3"].data == (tmp_path / "beside.png").read_bytes()
    assert "outside" in found["t.parquet#4"].data.reason and "no picture" in found["t.parquet#5"].data.reason
    assert found["t.parquet#5"].caption is None and "cannot be" in found["t.parquet#6"].data.reason
    assert loaded(tmp_path / "t.parquet", Fields("extra", "caption"))["t.parquet#0"].data == b"zz"
    with pytest.raises(UsageError, match="no column 'img'"):
        loaded(tmp_path / "t.parquet", Fields("img"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "n.parquet")
    assert "no column of pictures" in damaged(tmp_path / "n.parquet")["n.parquet"]
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    assert "0 rows came before" in damaged(tmp_path / "x.parquet")["x.parquet"]


def test_a_data_set_on_disk(tmp_path):
    """Laid out as datasets.save_to_disk does it; what it does not list (a cache) is no data."""
    pa = pytest.importorskip("pyarrow")
    folder = tmp_path / "set/train"
    folder.mkdir(parents=True)
    batch = pa.RecordBatch.from_pylist(
        [{"img": {"bytes": png(picture(i)), "path": "x.png"}, "text": f"t{i}"} for i in range(20)]
    )
    for name, opened in (("data-00000-of-00001.arrow", pa.ipc.new_stream), ("cache-1.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(folder / name), "wb") as sink, opened(sink, batch.schema) as writer:
            writer.write_batch(batch)
    assert len(loaded(tmp_path / "set")) == 40  # any arrow file, of both kinds
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train"]}')
    others: Counter[str] = Counter()
    found = loaded(tmp_path / "set", others=others)
    assert len(found) == 20 and others[FOREIGN] == 1
    assert found["train/data-00000-of-00001.arrow#19"] == Loaded(png(picture(19)), "t19")


def test_what_is_not_there_or_no_source_is_an_error(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        entries(tmp_path / "no")
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.pdf is no picture"):
        list(entries(tmp_path / "a.pdf"))


def test_pictures_of_every_kind_are_read_or_said_to_be_unreadable(tmp_path):
    base = Image.fromarray(picture(1))
    base.save(tmp_path / "grey.png")
    base.convert("CMYK").save(tmp_path / "cmyk.jpg")
    base.convert("RGBA").save(tmp_path / "alpha.webp")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.resize((10, 20)).save(tmp_path / "turned.jpg", exif=exif)
    base.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.fromarray(picture(2))])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG" + bytes(40))
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    seen = {e.path: read(e, near=False) for e in entries(tmp_path)}
    why = {k: s.row["unreadable"] for k, s in seen.items() if "unreadable" in s.row}
    assert set(why) == {"moving.gif", "empty.png", "corrupt.png", "huge.png"}
    assert "frames" in why["moving.gif"] and "empty" in why["empty.png"] and "pixels" in why["huge.png"]
    assert "0x" not in why["corrupt.png"]
    assert seen["turned.jpg"].picture.shape == (10, 20, 3)
