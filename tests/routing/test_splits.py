"""Splits by content: no row stands in two of them."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.runtime.rows import Rows
from skipserve.sources.splits import SHARES, SHARES_BESIDE, Labelled, split_rows


def data(count=4_000, copies=2, seed=0):
    """Rows of two inputs, each standing there more than once, and labels that tell which."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count // copies, 3)).astype(np.float32).repeat(copies, axis=0)
    ids = rng.integers(0, 9, (count // copies, 2)).repeat(copies, axis=0)
    order = rng.permutation(len(x))
    labels = np.arange(count // copies).repeat(copies)
    return Labelled(Rows({"x": x[order], "ids": ids[order]}), labels[order])


def parts(splits):
    return [splits.fit, splits.propose, splits.certify, splits.test]


def keys(part):
    tensors = part.rows.tensors
    pairs = zip(tensors["x"], tensors["ids"], strict=True)
    return {x.tobytes() + ids.tobytes() for x, ids in pairs}


def test_duplicates_never_straddle_and_no_row_is_lost():
    whole = data()
    made = parts(split_rows(whole))
    assert sum(map(len, made)) == len(whole)
    for i, one in enumerate(made):
        for other in made[i + 1 :]:
            assert not keys(one) & keys(other)
    np.testing.assert_allclose([len(one) / len(whole) for one in made], SHARES, atol=0.04)
    for one in made:  # labels went with their rows
        for row, label in zip(one.rows.tensors["x"], one.labels, strict=True):
            assert (whole.rows.tensors["x"][whole.labels == label][0] == row).all()
            break


def test_the_same_rows_give_the_same_splits_whatever_their_order():
    whole = data()
    order = np.random.default_rng(1).permutation(len(whole))
    shuffled = Labelled(whole.rows[order], whole.labels[order])
    for one, other in zip(parts(split_rows(whole)), parts(split_rows(shuffled)), strict=True):
        assert keys(one) == keys(other)


def test_another_seed_is_another_split():
    whole = data()
    first, other = split_rows(whole, seed=0), split_rows(whole, seed=1)
    assert keys(first.certify) != keys(other.certify)


def test_rows_to_fit_on_are_in_no_other_split():
    whole = data()
    beside = Labelled(whole.rows[np.arange(500)])
    made = split_rows(whole, beside)
    assert made.fit is beside
    rest = parts(made)[1:]
    for one in rest:
        assert not keys(one) & keys(beside)
    left = len(keys(whole) - keys(beside))
    shares = [len(keys(one)) / left for one in rest]
    assert shares == pytest.approx(SHARES_BESIDE[1:], abs=0.05)


def test_a_split_may_be_empty_where_there_are_few_rows():
    few = Labelled(Rows({"x": np.zeros((3, 2), np.float32)}))
    assert sum(map(len, parts(split_rows(few)))) == 3
