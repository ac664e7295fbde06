"""Licences of everything that installing Scotoma with all its extras brings along.

    python scripts/check/licences.py

Starts from the dependencies and extras in pyproject.toml and walks the metadata of what is installed. Fails on GPL,
LGPL and AGPL, on any licence that is not on the list of permissive ones, on metadata that says nothing, and on a
licence file in the wheel that opens as a GNU licence whatever the metadata says. What a person has read and accepted
is in REVIEWED, with the reason; an entry that is no longer needed fails too.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

PERMISSIVE = frozenset(
    [
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-CMU",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    ]
)
# How older metadata spells the same licences: trove classifiers and the free-text field, lower case.
SPELLINGS = {
    "2-clause bsd license": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


class Review(NamedTuple):
    licence: str  # what the metadata or the licence file says; "" for nothing
    reason: str


# MPL-2.0 asks that changes to its own files stay under it. We change none and copy none into our wheel.
REVIEWED: dict[str, Review] = {
    "cleanlab": Review(
        "", "the licence file in the wheel is the Apache licence 2.0 (from 2.9 on); the metadata holds its text"
    ),
    "certifi": Review("MPL-2.0", "a list of root certificates, needed by every HTTPS client; used unchanged"),
    "hypothesis": Review("MPL-2.0", "development only; used unchanged"),
    "pathspec": Review("MPL-2.0", "development only (needed by mypy); used unchanged"),
    "tqdm": Review("MPL-2.0 AND MIT", "progress bars, needed by huggingface_hub and transformers; used unchanged"),
    "resvg-py": Review("", "the licence file in the wheel is the MIT licence; the metadata does not name it"),
}

# Licence files in a wheel that open as a GNU licence and do not govern what the wheel runs.
REVIEWED_FILES = {
    "licenses/third_party/kineto/libkineto/third_party/dynolog/third_party/cpr/test/LICENSE": (
        "torch: covers the test directory of a library's source tree; the tests are not in the wheel"
    ),
}

GNU = re.compile(r"\b(?:A|L)?GPL|GNU (?:Affero |Lesser |Library )?General Public Licen[sc]e", re.IGNORECASE)


class Package(NamedTuple):
    """What the metadata of one installed distribution says."""

    name: str
    version: str
    requires: tuple[str, ...]
    expression: str  # SPDX expression, classifiers joined by AND, or free text; "" for nothing
    openings: tuple[tuple[str, str], ...] = ()  # (path in the metadata folder, first lines) of its licence files


def installed(name: str) -> Package | None:
    """Package `name` as installed here; None if it is not."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    openings = []
    for file in found.files or ():
        if ".dist-info" in file.parts[0] and re.match(r"licen[sc]e|copying", file.name, re.IGNORECASE):
            text = Path(str(found.locate_file(file))).read_text(errors="replace")
            openings.append(("/".join(file.parts[1:]), text.lstrip()[:250]))
    return Package(
        canonicalize_name(found.metadata["Name"]),
        found.version,
        tuple(found.requires or ()),
        stated(found.metadata),
        tuple(openings),
    )


def stated(fields: metadata.PackageMetadata) -> str:
    """The licence in a package's metadata: the SPDX field, else classifiers, else a short free text."""
    if fields.get("License-Expression"):
        return str(fields["License-Expression"])
    last = [c.split("::")[-1].strip() for c in fields.get_all("Classifier") or [] if c.startswith("License ::")]
    last = [c for c in last if c != "OSI Approved"]
    free = (fields.get("License") or "").strip()
    return " AND ".join(last) if last else (free if len(free) < 60 else "")


def closure(requirements: Iterable[str], find: Callable[[str], Package | None]) -> tuple[dict[str, Package], list[str]]:
    """(packages by name, names that are required and not installed) reached from `requirements`, markers applied."""
    packages: dict[str, Package] = {}
    missing: list[str] = []
    done: set[tuple[str, str]] = set()
    todo = [(Requirement(r), "") for r in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in done:
                continue
            done.add((name, wanted))
            package = packages.get(name) or find(name)
            if package is None:
                missing.append(name)
                break
            packages[name] = package
            todo += [(Requirement(r), wanted) for r in package.requires]
    return packages, sorted(set(missing))


def known(expression: str) -> bool:
    """True if every licence that the expression demands is permissive; of alternatives (OR) one is enough."""
    text = re.sub(r" WITH [\w.-]+", "", expression)
    if "(" in text and text.lower() not in SPELLINGS:
        text = text.replace("(", " ").replace(")", " ")
        if " OR " in text:  # mixed and nested: read as if all were demanded
            text = text.replace(" OR ", " AND ")
    return any(
        all(SPELLINGS.get(one.strip().lower(), one.strip()) in PERMISSIVE for one in choice.split(" AND "))
        for choice in text.split(" OR ")
    )


def problem(package: Package, reviewed: dict[str, Review]) -> str | None:
    """Why this package must not be in the set, in one line; None if it may."""
    title = f"{package.name} {package.version}"
    for file, opening in package.openings:
        if GNU.search(opening) and file not in REVIEWED_FILES:
            return f"{title}: its {file} opens as a GNU licence; remove the package from the dependencies"
    if GNU.search(package.expression):
        return f"{title} is under {package.expression}; remove it from the dependencies"
    review = reviewed.get(package.name)
    if review is not None:
        spelled = SPELLINGS.get(package.expression.lower(), package.expression)
        if spelled != review.licence:
            return f"{title} now says {package.expression!r}, reviewed was {review.licence!r}: read it again, edit REVIEWED"
        return None
    if not package.expression:
        return f"{title} states no licence; read its licence file and add it to REVIEWED with a reason, or remove it"
    if not known(package.expression):
        return f"{title} is under {package.expression!r}, not on the list of permissive licences; review or remove it"
    return None


def requirements(pyproject: Path) -> list[str]:
    """Core dependencies and those of every extra."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print every package with its licence")
    args = parser.parse_args(argv)
    packages, missing = closure(requirements(ROOT / "pyproject.toml"), installed)
    found = [f"{name} is required and not installed; run make test" for name in missing]
    found += [p for package in packages.values() if (p := problem(package, REVIEWED))]
    found += [f"REVIEWED lists {name}, which is not in the set: remove it" for name in REVIEWED if name not in packages]
    if args.list:
        for name in sorted(packages):
            print(f"{name}=={packages[name].version}  {packages[name].expression or REVIEWED[name].reason}")
    for line in found:
        print(f"licences: {line}", file=sys.stderr)
    if not found:
        print(f"licences: {len(packages)} packages, all permissive or reviewed ({len(REVIEWED)})")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
