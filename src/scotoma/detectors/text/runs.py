"""Running a network over token ids of many lengths: batches of similar length, by torch or by ONNX Runtime.

Notation: N texts, L tokens of the longest in a batch. A `Run` maps ids and mask (N L, int64; 1 where a token is) to one row for
each text. Sorting by length spares padding and changes no score beyond what float32 sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scotoma.errors import MissingExtraError, ModelError

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
MOST_TOKENS = 4096  # in one batch, padding included
MOST_TEXTS = 64


def by_length(lengths: Sequence[int], most_tokens: int = MOST_TOKENS, most: int = MOST_TEXTS) -> Iterator[list[int]]:
    """Places of texts, sorted by length, in batches of at most `most` texts and `most_tokens` tokens with padding; one text at
    least."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[place] > most_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, N L, int64."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def run_by_length(run: Run, rows: Sequence[Sequence[int]], pad: int, most: int = MOST_TEXTS) -> np.ndarray:
    """One row of the network's output for each of `rows`, in their order. None gives an empty array."""
    out: np.ndarray | None = None
    for batch in by_length([len(row) for row in rows], most=most):
        found = run(*padded([rows[i] for i in batch], pad))
        if out is None:
            out = np.empty((len(rows), *found.shape[1:]), np.float32)
        out[batch] = found
    return np.empty(0, np.float32) if out is None else out


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch on `count` threads; afterwards on as many as before."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_run(network: nn.Module, count: int | None = None) -> Run:
    """By torch, on the device of the network, on `count` threads (None: as many as torch uses)."""
    device = next(network.parameters()).device

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with threads(count or torch.get_num_threads()), torch.inference_mode():
            found = network(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
            return found.float().cpu().numpy()  # type: ignore[no-any-return]

    return run


def onnx_run(path: Path, count: int = 1) -> Run:
    """By ONNX Runtime on `count` threads of the CPU. Raises MissingExtraError without it, ModelError for a file that it cannot
    load."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as e:
        raise MissingExtraError("onnxruntime", "onnx", "a student as ONNX") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its errors have no other class in common
        raise ModelError(f"{path} cannot be loaded by ONNX Runtime ({str(e).splitlines()[0]}); export it again") from e

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]  # type: ignore[no-any-return]

    return run
