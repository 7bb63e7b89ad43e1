"""Guards hold back the configured share of ordinary rows, and rows far from them."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from skipserve.routing.guards import MOST_DIRECTIONS, WIDEST, fit_guard, limits, with_limit


def distance(guard, features):
    whitened = (features - guard.centre.astype(np.float64)) @ guard.whiten.astype(np.float64)
    return np.linalg.norm(whitened, axis=1).astype(np.float32)


def features(count, width, seed, spanned=None):
    """Rows that vary much in a few directions and little in the others."""
    axes = np.linalg.qr(np.random.default_rng(9).standard_normal((width, width)))[0]
    deviations = np.where(np.arange(width) < (spanned or width), 3.0, 0.3)
    rows = np.random.default_rng(seed).standard_normal((count, width)) * deviations @ axes.T + 20
    return rows.astype(np.float32), axes


@settings(max_examples=examples(50))
@given(st.integers(20, 400), st.integers(1, 5), st.sampled_from([0.8, 0.9, 0.99, 1.0]))
def test_limits_let_just_the_asked_share_be_inside_every_guard(count, cuts, share):
    rng = np.random.default_rng(count * cuts)
    distances = (rng.random((count, 1)) + rng.random((count, cuts))).astype(np.float32)
    inside = (distances <= limits(distances, share)).all(axis=1)
    assert inside.mean() >= share
    if cuts == 1:  # one row fewer would be too few
        assert inside.sum() <= np.ceil(share * count) + 1
    if share == 1:
        np.testing.assert_array_equal(limits(distances, share), distances.max(axis=0))


def test_fresh_rows_are_held_back_as_often_as_was_asked():
    guards = [fit_guard(features(2_000, 8, seed, 3)[0]) for seed in (0, 0)]
    known = np.stack([distance(one, features(4_000, 8, 1, 3)[0]) for one in guards], axis=1)
    limit = limits(known, 0.95)
    fresh = np.stack([distance(one, features(20_000, 8, 2, 3)[0]) for one in guards], axis=1)
    assert (fresh > limit).any(axis=1).mean() == pytest.approx(0.05, abs=0.01)


def test_few_rows_to_fit_on_do_not_hold_ordinary_ones_back():
    # 64 numbers a row, whitened by 100 rows: these themselves lie much closer than any others do.
    guard = fit_guard(features(100, 64, 0)[0])
    limit = limits(distance(guard, features(4_000, 64, 1)[0])[:, None], 0.95)
    held = (distance(guard, features(20_000, 64, 2)[0]) > limit).mean()
    assert held == pytest.approx(0.05, abs=0.01)


def test_it_is_the_mahalanobis_distance():
    known, _ = features(5_000, 20, 0, 8)
    other, _ = features(50, 20, 1)
    covariance = np.cov(known.astype(np.float64).T)
    inverse = np.linalg.inv(covariance + 1e-3 * np.trace(covariance) / 20 * np.eye(20))
    centred = other - known.mean(axis=0, dtype=np.float64)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    np.testing.assert_allclose(distance(fit_guard(known), other), expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 400, WIDEST + 100])
def test_what_leaves_the_span_is_seen_though_features_are_wide(width):
    known, axes = features(3_000, width, 0, 8)
    guard = fit_guard(known)
    assert guard.whiten.shape == (width, min(width, MOST_DIRECTIONS))
    limit = np.quantile(distance(guard, features(1_000, width, 2, 8)[0]), 0.995)
    fresh = features(200, width, 1, 8)[0]
    assert (distance(guard, fresh + 200 * axes[:, 0]) > limit).all()
    assert (distance(guard, fresh + 20 * axes[:, -1]) > limit).all()


def test_fewer_directions_keep_the_distance():
    width = MOST_DIRECTIONS + 100
    known, other = features(2_000, width, 0)[0], features(300, width, 1)[0]
    centred = other - known.mean(axis=0, dtype=np.float64)
    covariance = np.cov(known.astype(np.float64).T)
    ridge = 1e-3 * np.trace(covariance) / width * np.eye(width)
    expected = np.sqrt(np.sum(centred @ np.linalg.inv(covariance + ridge) * centred, axis=1))
    share = distance(fit_guard(known), other) / expected
    assert share.mean() == pytest.approx(1, abs=0.02)
    assert share.std() < 1.5 * (2 * MOST_DIRECTIONS) ** -0.5  # as of lengths mixed at random


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e12])
def test_streams_of_any_scale_are_whitened_alike(scale):
    known, other = (features(500, 6, seed, 3)[0] for seed in (0, 1))
    expected = distance(fit_guard(known), other)
    found = distance(fit_guard(known * np.float32(scale)), other * np.float32(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_whatever_differs_from_features_that_never_varied_is_far():
    known = np.full((50, 4), 2.0, np.float32)
    guard = fit_guard(known)
    limit = limits(distance(guard, known)[:, None], 0.995)
    guard = with_limit(guard, limit[0])
    assert np.isfinite(guard.whiten).all()
    assert (distance(guard, known) <= 1).all()
    assert (distance(guard, known + 1e-3) > 1).all()


def test_dividing_the_limit_out_makes_it_one():
    known = features(500, 6, 0)[0]
    guard = fit_guard(known)
    np.testing.assert_allclose(
        distance(with_limit(guard, 7.0), known) * 7, distance(guard, known), rtol=1e-4
    )


def test_rows_that_overflow_are_not_fitted_to():
    known = features(500, 6, 0)[0]
    broken = np.concatenate([known, np.full((3, 6), np.inf, np.float32)])
    np.testing.assert_allclose(fit_guard(broken).whiten, fit_guard(known).whiten, rtol=1e-4)
