"""Drift: bins that hold a tenth each when nothing drifted, and the index that says when it did."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.safety.drift import BINS, WINDOW_S, Window, bins_of, stability_index


def deciles_of(column):
    return np.quantile(column, np.arange(1, 10) / 10)


def counted(column, deciles):
    bins = bins_of(np.float32(column), np.tile(deciles, (len(column), 1)), np.random.default_rng(0))
    return np.bincount(bins, minlength=BINS)


def test_the_same_distribution_fills_every_bin_alike_and_another_does_not():
    rng = np.random.default_rng(0)
    deciles = np.float32(deciles_of(rng.normal(size=20_000)))
    fresh = rng.normal(size=5_000)
    assert counted(fresh, deciles).sum() == 5_000
    assert stability_index(counted(fresh, deciles)) < 0.01
    # The index of two normals half a deviation apart is 0.25, and in tenths a little less.
    assert 0.2 < stability_index(counted(fresh + 0.5, deciles)) < 0.25


def test_a_value_on_several_deciles_is_shared_among_them():
    rng = np.random.default_rng(0)
    column = np.minimum(rng.normal(size=20_000), 0.25)  # 40 % of the rows at the upper end
    fresh = np.minimum(rng.normal(size=5_000), 0.25)
    assert stability_index(counted(np.float32(fresh), np.float32(deciles_of(column)))) < 0.1


def test_the_first_and_the_last_bin_are_open():
    deciles = np.float32(np.arange(1, 10))
    assert counted([-1e30, 0.5, 9.5, 1e30, 5.5], deciles).tolist() == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]


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
