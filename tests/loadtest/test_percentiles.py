"""Histograms keep every duration, and intervals of percentiles cover the true value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.loadtest.histogram import Histogram
from skipserve.loadtest.percentiles import percentile_interval, samples_for

DURATIONS = st.lists(st.floats(1e-6, 3000.0), min_size=1, max_size=200)
# Three significant digits, and a µs for the rounding before them.
NEAR = {"rel": 1.1e-3, "abs": 1.1e-6}


def histogram(durations) -> Histogram:
    made = Histogram()
    for duration in durations:
        made.record(duration)
    return made


@given(DURATIONS, st.floats(1, 99.9))
def test_a_percentile_is_the_samples(durations, percent):
    rank = max(1, math.ceil(round(percent * len(durations) / 100, 6)))
    assert histogram(durations).percentile(percent) == pytest.approx(
        sorted(durations)[rank - 1], **NEAR
    )


@given(DURATIONS, DURATIONS)
def test_parts_add_up_and_survive_encoding(one, other):
    whole = Histogram.decode(histogram(one).encode())
    whole.add(Histogram.decode(histogram(other).encode()))
    together = histogram(one + other)
    assert len(whole) == len(one) + len(other)
    for found, expected in zip(whole.bins(), together.bins(), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(DURATIONS)
def test_the_mean_is_the_samples(durations):
    assert histogram(durations).mean() == pytest.approx(np.mean(durations), **NEAR)


def test_what_lies_beyond_the_range_counts_as_its_end():
    made = histogram([-1.0, 1e9])
    assert made.at_ranks([1, 2]) == pytest.approx([0.0, 3600.0], rel=1e-3)


def test_an_empty_histogram_knows_nothing():
    empty = Histogram()
    assert math.isnan(empty.percentile(50)) and math.isnan(empty.mean())
    assert len(Histogram.decode(empty.encode())) == 0
    with pytest.raises(IndexError):
        empty.at_ranks([1])


@pytest.mark.parametrize("text", ["", "nothing", "SElTVEZJQUE="])
def test_a_damaged_encoding_is_an_error(text):
    with pytest.raises(ValueError, match="not an encoded HDR histogram"):
        Histogram.decode(text)


@pytest.mark.parametrize(("percent", "count"), [(50, 60), (90, 200), (99, 400), (99, 1000)])
def test_ends_of_a_percentile_cover_the_truth_as_often_as_they_say(percent, count):
    rng = np.random.default_rng(percent * count)
    truth = -math.log(1 - percent / 100) * 0.01
    runs = 200
    above = below = 0
    for _ in range(runs):
        found = percentile_interval(histogram(rng.exponential(0.01, count)), percent)
        above += found.high >= truth
        below += found.low <= truth
        assert found.low <= found.value <= found.high
    # 95 %, less what 200 runs may miss by chance (p < 0.001).
    assert min(above, below) / runs > 0.95 - 3.3 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize(("percent", "needed"), [(50, 5), (99, 299), (99.9, 2995)])
def test_too_few_samples_have_no_upper_end(percent, needed):
    assert samples_for(percent) == needed
    rng = np.random.default_rng(0)
    assert percentile_interval(histogram(rng.random(needed)), percent).high < 1.001
    assert percentile_interval(histogram(rng.random(needed - 1)), percent).high == math.inf
