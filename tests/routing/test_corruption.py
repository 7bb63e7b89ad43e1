"""Corrupted copies of rows: right inputs, seeds and names."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.routing import corruption
from skipserve.runtime.rows import Rows

COUNT = 40


def pictures():
    rng = np.random.default_rng(0)
    return Rows({"x": rng.uniform(-1, 3, (COUNT, 3, 4, 4)).astype(np.float32)}), None


def texts():
    rng = np.random.default_rng(0)
    mask = (np.arange(9) < rng.integers(3, 10, (COUNT, 1))).astype(np.int64)
    ids = rng.integers(5, 2_000, (COUNT, 9)) * mask
    segments = np.broadcast_to(np.arange(9) > 4, (COUNT, 9)).astype(np.int64)
    return Rows({"ids": ids, "segments": segments, "mask": mask}), "mask"


KINDS = [
    (make, name, kind)
    for make in (pictures, texts)
    for group in corruption.kinds(*make())
    for name, kind in group.items()
]


@pytest.mark.parametrize(("make", "name", "kind"), KINDS, ids=[name for _, name, _ in KINDS])
def test_every_kind_changes_the_rows_and_nothing_else(make, name, kind):
    rows, mask = make()
    before = {one: tensor.copy() for one, tensor in rows.tensors.items()}
    known = corruption.about(rows, mask)

    def copy(seed):
        return corruption.corrupt(rows, kind, known, mask, np.random.default_rng(seed))

    first, again = copy(1), copy(1)
    main = next(iter(before))
    for one, tensor in before.items():
        np.testing.assert_array_equal(rows.tensors[one], tensor)
        made = first.tensors[one]
        assert (made.shape, made.dtype) == (tensor.shape, tensor.dtype)
        np.testing.assert_array_equal(made, again.tensors[one])
        assert np.array_equal(made, tensor) == (one != main)
    if make is pictures:
        assert np.isfinite(first.tensors["x"]).all()
    else:
        ids = first.tensors["ids"]
        assert ids.min() >= 0
        assert ids.max() <= before["ids"].max()


def test_the_kinds_are_what_their_names_say():
    rows, _ = pictures()
    x = rows.tensors["x"]
    about = corruption.about(rows, None)["x"]
    random = np.random.default_rng(0)
    made = {name: kind(x, about, random) for name, kind in corruption.HARD.items()}
    np.testing.assert_allclose(made["scaled by 2"], 2 * x)
    flat = made["constants"].reshape(COUNT, -1)
    assert (flat == flat[:, :1]).all()
    assert {about.low, about.high} <= set(flat[:, 0].tolist())
    shuffled = made["positions shuffled"].reshape(COUNT, -1)
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(x.reshape(COUNT, -1)))
    assert (made["noise 0.5"] - x).std() == pytest.approx(0.5 * x.std(), rel=0.1)
    assert abs(np.corrcoef(made["pure noise"].ravel(), x.ravel())[0, 1]) < 0.1
    mixed = corruption.MILD["two mixed"](x, about, random)
    assert mixed.min() >= x.min() and mixed.max() <= x.max()


def test_shuffled_tokens_stay_real_and_in_their_row():
    rows, mask = texts()
    kind = corruption.MILD_TOKENS["tokens shuffled"]
    made = corruption.corrupt(
        rows, kind, corruption.about(rows, mask), mask, np.random.default_rng(0)
    )
    ids, before = made.tensors["ids"], rows.tensors["ids"]
    np.testing.assert_array_equal(np.sort(ids), np.sort(before))
    np.testing.assert_array_equal(ids[:, 0], before[:, 0])
    np.testing.assert_array_equal(ids == 0, before == 0)


@pytest.mark.parametrize("make", [pictures, texts])
def test_heads_are_fitted_on_more_than_twice_as_many(make):
    rows, mask = make()
    if make is texts:
        made = corruption.for_fitting(rows, mask, np.random.default_rng(0))
        assert sum(map(len, made)) > len(rows)
    else:
        made = corruption.for_fitting(rows, mask, np.random.default_rng(0))
        assert sum(map(len, made)) > 2 * len(rows)
    for part in made:
        assert part.shapes == rows.shapes
        assert {n: t.dtype for n, t in part.tensors.items()} == {
            n: t.dtype for n, t in rows.tensors.items()
        }


def test_one_row_can_be_corrupted():
    for make in (pictures, texts):
        rows, mask = make()
        made = corruption.for_fitting(rows[:1], mask, np.random.default_rng(0))
        assert all(len(part) for part in made)
