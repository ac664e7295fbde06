"""Groups of duplicates, by hand and against comparing all pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from scotoma.curation import duplicates
from scotoma.curation.duplicates import Prints, beside, differing, groups, stars, variant_groups


def prints(digests, hashes=None, colours=None) -> Prints:
    n = len(digests)
    there = np.array([d is not None for d in digests], bool)
    return Prints(
        np.array([[d or 0, 7] for d in digests], np.uint64).reshape(n, 2),
        np.array([h or 0 for h in (hashes or [0] * n)], np.uint64),
        np.array(colours or [[0, 0, 0]] * n, np.uint8).reshape(n, 3),
        there,
        there & np.array([h is not None for h in (hashes or [None] * n)], bool),
    )


def test_exact_groups_by_hand():
    """Items 0, 2, 5 are the same and so are 1, 3. Item 4 is no picture. 0 is dropped and 2 is kept: 2 stands for them."""
    of, exact = groups(prints([1, 2, 1, 2, None, 1]), np.array([2, 0, 0, 1, 1, 0]), None)
    assert of.tolist() == [2, 1, 2, 1, -1, 2]
    assert exact.tolist() == [True, True, True, True, False, True]


def test_near_groups_are_stars_and_not_chains():
    """Hashes 0, 0b11, 0b1111, two bits apart each: with 2 bits the third is near the second only, which does not lead, so it
    stands alone. Item 3 has the pixels of item 1 and goes where that goes; item 4 has the hash of 0 and another colour."""
    p = prints([1, 2, 3, 2, 5], [0, 0b11, 0b1111, 0b11, 0], [[9, 9, 9]] * 4 + [[9, 9, 99]])
    of, exact = groups(p, np.zeros(5), 2)
    assert of.tolist() == [0, 0, 2, 0, 4]
    assert exact.tolist() == [True, False, True, False, True]
    of, _ = groups(p, np.array([2, 0, 0, 0, 0]), 2)  # 1 goes before 0
    assert of.tolist() == [1, 1, 1, 1, 4]


@pytest.mark.parametrize("scan", [duplicates.SCAN, 0])
def test_one_that_stands_alone_may_still_be_near_to_one_that_is_marked(scan, monkeypatch):
    """Hashes of 0, 5 and 10 bits: with 8, the second follows the first and the third stands alone, five bits from the second,
    which is marked. Item 3 has the third's hash and another colour; item 4 has no hash and the pixels of item 5, which is marked."""
    monkeypatch.setattr(duplicates, "SCAN", scan)
    hashes = [0, 0b11111, 0b1111111111, 0b1111111111, None, None]
    p = prints([1, 2, 3, 4, 5, 5], hashes, [[9, 9, 9]] * 3 + [[9, 9, 99]] + [[9, 9, 9]] * 2)
    marked = np.array([False, True, False, False, False, True])
    of, _ = groups(p, np.where(marked, 2, 0), 8)
    assert of.tolist() == [0, 0, 2, 3, 4, 4]
    assert beside(p, of, marked, 8).tolist() == [True, False, True, False, True, False]
    assert not beside(p, of, np.zeros(6, bool), 8).any()


def test_pictures_without_a_hash_are_alike_only_if_they_are_the_same():
    of, _ = groups(prints([1, 2, 1], [None, None, None]), np.zeros(3), 8)
    assert of.tolist() == [0, 1, 0]


def test_nothing_is_no_group():
    assert groups(prints([]), np.zeros(0), 8)[0].tolist() == []
    assert groups(prints([None, None]), np.zeros(2), 8)[0].tolist() == [-1, -1]


@pytest.mark.parametrize("bits", [0, 3, 8])
def test_looking_up_finds_what_comparing_all_pairs_finds(bits):
    rng = np.random.default_rng(bits)
    base = rng.integers(0, 2**63, 100, dtype=np.uint64)
    rows = [base]
    for flips in (1, 3, 4, 8, 9):
        masks = [np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, flips, False).astype(np.uint64)) for _ in base]
        rows.append(base ^ np.array(masks, np.uint64))
    hashes = rng.permutation(np.concatenate(rows))

    def fits(i, others):
        return (hashes[others] + hashes[i]) % np.uint64(5) > 0

    plain = stars(hashes, bits, fits, parts=0)
    assert len(set(plain)) < 600 if bits else len(set(plain)) == len(set(hashes.tolist()))
    for parts in (1, 2, 3, bits + 1):
        if parts > 1 or bits < 4:
            assert (stars(hashes, bits, fits, parts=parts) == plain).all()
    for i, lead in enumerate(plain):  # each follows a leader in reach
        assert plain[lead] == lead and differing(hashes[[i]], hashes[lead])[0] <= bits


def test_counting_bits_without_the_function_of_numpy_2(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**63, 50, dtype=np.uint64)
    with_it = differing(hashes, hashes[3]).tolist()
    assert with_it == [(int(h) ^ int(hashes[3])).bit_count() for h in hashes]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert differing(hashes, hashes[3]).tolist() == with_it


def test_variants_by_cosine():
    """Of unit vectors at 0, 0.1 and 1.2 rad in a plane of many: cosines 0.995 and 0.362 with the first. Zeros are no picture."""
    rows = np.zeros((4, 32), np.float16)
    for i, angle in enumerate((0.0, 0.1, 1.2)):
        rows[i, 3], rows[i, 20] = np.cos(angle), np.sin(angle)
    assert variant_groups(rows, np.zeros(4), 0.99).tolist() == [0, 0, 2, -1]
    assert variant_groups(rows, np.array([1, 0, 0, 0]), 0.99).tolist() == [1, 1, 2, -1]


def test_memory_of_grouping_is_below_150_bytes_an_item(monkeypatch):
    """With tables, and with all pictures nearly the same: then one of them leads."""
    monkeypatch.setattr(duplicates, "SCAN", 0)
    n = 200_000
    rng = np.random.default_rng(0)
    p = Prints(
        rng.integers(0, 2**63, (n, 2), dtype=np.uint64),
        rng.integers(0, 2**8, n, dtype=np.uint64),
        np.zeros((n, 3), np.uint8),
        np.ones(n, bool),
        np.ones(n, bool),
    )
    tracemalloc.start()
    try:
        assert not groups(p, np.zeros(n, np.int8), 8)[0].any()
        peak = tracemalloc.get_traced_memory()[1] / n
        assert peak < 150, peak
    finally:
        tracemalloc.stop()
