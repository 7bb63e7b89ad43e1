"""Schedules: number and spacing of requests for every shape of the rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from skipserve.errors import ConfigError
from skipserve.loadtest.schedule import Segment, arrivals, duration_of, shape

SEGMENTS = st.lists(
    st.builds(Segment, st.floats(0.1, 20), st.floats(0.5, 50)), min_size=1, max_size=5
).map(tuple)


@given(SEGMENTS, st.sampled_from(["poisson", "constant"]), st.integers(0, 1000))
def test_arrivals_rise_within_the_duration(segments, kind, seed):
    due = arrivals(segments, kind, np.random.default_rng(seed))
    assert (np.diff(due) >= 0).all()
    if len(due):
        assert due[0] >= 0
        assert due[-1] <= duration_of(segments) * (1 + 1e-9)


@given(SEGMENTS)
def test_constant_arrivals_are_as_many_as_each_segment_says(segments):
    due = arrivals(segments, "constant", np.random.default_rng(0))
    ends_s = np.cumsum([one.duration_s for one in segments])
    counts = np.histogram(due, np.concatenate([[0.0], ends_s * (1 + 1e-12)]))[0]
    expected = [one.duration_s * one.rate for one in segments]
    assert np.abs(counts - expected).max() <= 1.001


def test_poisson_gaps_are_exponential_at_the_rate():
    due = arrivals((Segment(1000.0, 50.0),), "poisson", np.random.default_rng(1))
    assert kstest(np.diff(due), "expon", args=(0, 1 / 50)).pvalue > 0.001


def test_poisson_counts_vary_as_poisson_counts_do():
    segments = (Segment(1.0, 20.0), Segment(1.0, 80.0))
    counts = np.array(
        [
            np.histogram(arrivals(segments, "poisson", np.random.default_rng(seed)), [0, 1, 2])[0]
            for seed in range(2000)
        ]
    )
    assert counts.mean(axis=0) == pytest.approx([20, 80], rel=0.05)
    assert counts.var(axis=0) == pytest.approx([20, 80], rel=0.15)


def test_the_same_seed_gives_the_same_arrivals():
    one, other = (
        arrivals((Segment(5.0, 40.0),), "poisson", np.random.default_rng(3)) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("steady", [40]),
        ("soak", [40]),
        ("step", [10, 20, 30, 40]),
        ("spike", [40, 120, 40]),
    ],
)
def test_shapes(name, rates):
    segments = shape(name, 40.0, 100.0)
    assert [one.rate for one in segments] == rates
    assert duration_of(segments) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("steady", 0.0, 10.0), "rate must be a positive number of requests/s, got 0"),
        (("steady", -3.0, 10.0), "got -3"),
        (("steady", float("nan"), 10.0), "got nan"),
        (("steady", 10.0, 0.0), "duration must be a positive number of s, got 0"),
        (("steady", 10.0, float("inf")), "duration must be"),
        (("steady", 1e9, 10.0), "more than 20,000,000 requests"),
        (("saw", 10.0, 10.0), "unknown shape 'saw'; choose one of steady, step, spike, soak"),
    ],
)
def test_a_wrong_shape_is_an_error(arguments, says):
    with pytest.raises(ConfigError, match=says):
        shape(*arguments)
