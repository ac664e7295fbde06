"""Folders of weights and their small JSON files, looked at before any weight is read. Pickles are refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scotoma.errors import ModelError, UnsafeFileError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def read_json(path: Path) -> dict[str, Any]:
    """Raises ModelError for a file that is missing, not JSON, or not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ModelError(
            f"{path} cannot be read ({e.strerror}); the model folder is not complete: fetch it again"
        ) from e
    except ValueError as e:
        raise ModelError(f"{path} is not JSON ({e}); the model folder is damaged: fetch it again") from e
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object; the model folder is damaged: fetch it again")
    return content


def refuse_pickles(folder: Path) -> None:
    """Look at names in one folder, not below. Raises UnsafeFileError for a pickle or an index that leads to one."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLES and not path.is_dir():
            raise UnsafeFileError(
                f"{path} is a pickle, which can run code when it is read; keep only .safetensors weights in the folder"
            )
    for index in sorted(folder.glob("*.index.json")):
        shards = read_json(index).get("weight_map", {})
        for shard in sorted(set(shards.values()) if isinstance(shards, dict) else {str(shards)}):
            if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise UnsafeFileError(
                    f"{index} points to {shard!r}, which is not a .safetensors file beside it; fetch the model again"
                )


def not_a_folder(path: Path) -> ModelError:
    """The error for a source that is a file, or nothing."""
    if path.suffix.lower() in PICKLES:
        return UnsafeFileError(
            f"{path} is a pickle, which can run code when it is read; give a diffusers folder of .safetensors weights"
        )
    if path.is_file():
        return ModelError(
            f"{path} is one file; give a diffusers folder (from_single_file, then save_pretrained, makes one)"
        )
    return ModelError(f"{path} is neither a folder, a hub id (owner/name), nor zoo:NAME; check the spelling")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of diffusers and transformers on standard error; their warnings stay."""
    import diffusers.utils.logging
    import transformers.utils.logging

    shown = [lib for lib in (diffusers.utils.logging, transformers.utils.logging) if lib.is_progress_bar_enabled()]
    for lib in shown:
        lib.disable_progress_bar()
    try:
        yield
    finally:
        for lib in shown:
            lib.enable_progress_bar()
