"""The projection of `projected_norm`: it tells classes apart, whatever a few rows do."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.routing.projection import fisher

ROWS, WIDTH, CLASSES = 300, 6, 3


def clouds():
    """Streams of three classes that differ in two of their numbers, the others being wider."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    x = rng.standard_normal((ROWS, WIDTH)) * [0.1, 0.1, 5, 5, 5, 5]
    x[:, :2] += np.array([[0, 0], [2, 0], [0, 2]])[labels]
    return x.astype(np.float32), labels


def test_classes_are_apart_in_units_of_their_own_width():
    x, labels = clouds()
    weights, offset = fisher(x, labels)
    assert weights.shape == (WIDTH, CLASSES - 1)
    seen = x @ weights + offset
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-3)
    middles = np.stack([seen[labels == i].mean(axis=0) for i in range(CLASSES)])
    apart = np.linalg.norm(middles[:, None] - middles[None], axis=2)[np.triu_indices(CLASSES, 1)]
    assert apart.min() > 5


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_rows_that_overflow_change_nothing(value):
    x, labels = clouds()
    expected = fisher(x, labels)
    beside = np.insert(x, 7, 0, axis=0)
    beside[7, 3] = value
    got = fisher(beside, np.insert(labels, 7, 1))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
