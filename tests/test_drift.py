"""Drift: bins that hold a tenth each when nothing drifted, and the index that says when it did."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.serving.drift import BINS, WINDOW_S, Window, bins_of, stability_index


def deciles_of(column):
    return np.quantile(column, np.arange(1, 10) / 10)


def counted(signals, deciles):
    bins = bins_of(signals, deciles, np.random.default_rng(0))
    return np.array([np.bincount(column[column >= 0], minlength=BINS) for column in bins.T])


def test_the_same_distribution_fills_every_bin_alike_and_another_does_not():
    rng = np.random.default_rng(0)
    deciles = np.float32(
        [deciles_of(rng.normal(size=20_000)), deciles_of(rng.gamma(2, size=20_000))]
    )
    same = np.float32(np.stack([rng.normal(size=5_000), rng.gamma(2, size=5_000)], axis=1))
    counts = counted(same, deciles)
    assert counts.sum() == 10_000
    assert (stability_index(counts) < 0.01).all()
    moved = stability_index(counted(same + np.float32([0.5, 0]), deciles))
    assert moved[0] > 0.2  # the index of two normals half a deviation apart is 0.25, in tenths less
    assert moved[1] < 0.01


def test_a_value_on_several_deciles_is_shared_among_them():
    rng = np.random.default_rng(0)
    column = np.minimum(rng.normal(size=20_000), 0.25)  # 40 % of the rows at the upper end
    deciles = np.float32([deciles_of(column)])
    fresh = np.float32(np.minimum(rng.normal(size=5_000), 0.25))[:, None]
    assert stability_index(counted(fresh, deciles))[0] < 0.1


def test_where_a_row_did_not_get_or_nothing_is_known_there_is_no_bin():
    deciles = np.float32([np.arange(1, 10), np.full(9, np.nan)])
    signals = np.float32([[0.5, 1], [np.nan, 1], [100, np.nan]])
    bins = bins_of(signals, deciles, np.random.default_rng(0))
    assert bins.tolist() == [[0, -1], [-1, -1], [9, -1]]


def test_the_index_is_the_textbooks():
    counts = np.array([2000, *[1000] * 8, 0]) * 1.0
    expected = 0.1 * np.log(2) + (0.5 / 10_005 - 0.1) * np.log(0.5 / 1000.5)
    assert stability_index(counts) == pytest.approx(expected, rel=1e-3)
    assert stability_index(np.zeros(BINS)) == pytest.approx(0)


def test_a_window_forgets_what_came_before_it():
    window = Window()
    counts = np.zeros((1, BINS))
    for second in range(0, int(3 * WINDOW_S), 20):
        counts = counts + 1
        recent = window.growth(float(second), counts)
    assert recent.sum() == pytest.approx(BINS * WINDOW_S / 20, rel=0.05)
    assert window.growth(1e9, np.zeros((2, BINS))).sum() == 0  # the model got another router
