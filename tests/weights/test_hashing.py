from __future__ import annotations

import hashlib
import struct

import torch
from hypothesis import given
from hypothesis import strategies as st

from scotoma.weights.hashing import hash_names, hash_tensor, hash_tensors


def test_tensor_hash_by_hand():
    """dtype, shape, newline, then the bytes: 1.0 and 2.0 as little-endian float32."""
    by_hand = hashlib.sha256(b"float32 [1, 2]\n" + struct.pack("<2f", 1.0, 2.0)).hexdigest()
    assert hash_tensor(torch.tensor([[1.0, 2.0]])) == by_hand


def test_names_hash_by_hand():
    assert hash_names({"b": "2", "a": "1"}) == hashlib.sha256(b"a 1\nb 2\n").hexdigest()


def test_dtype_shape_and_name_count():
    x = torch.zeros(2, 3)
    hashes = [hash_tensor(v) for v in (x, x.half(), x.bfloat16(), x.T, x.flatten(), torch.zeros(()), torch.zeros(0))]
    assert len(set(hashes)) == len(hashes)
    assert hash_tensors({"a": x}) != hash_tensors({"b": x})


def test_memory_layout_does_not_count():
    x = torch.arange(6.0).view(2, 3)
    assert hash_tensor(x.T) == hash_tensor(x.T.contiguous())
    assert hash_tensor(x.requires_grad_()) == hash_tensor(x.detach())


@given(st.permutations(["unet.a", "unet.b", "vae.a", "text_encoder.a"]))
def test_order_does_not_count(names):
    tensors = {name: torch.tensor([float(len(name)), float(ord(name[-1]))]) for name in names}
    ordered = {name: tensors[name] for name in sorted(tensors)}
    assert hash_tensors(tensors) == hash_tensors(ordered)
