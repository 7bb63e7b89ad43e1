"""Counted rates: the binomial test and its intervals are the exact ones, at every size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from skipserve.intervals import (
    lower_bound,
    p_value,
    percent,
    rate,
    ratio,
    samples_needed,
    short_time,
    spelled,
    upper_bound,
)

DELTA = 0.05


@pytest.mark.parametrize(("samples", "most"), [(299, 0), (1_000, 4), (5_000, 38), (10_000, 83)])
def test_p_value_allows_the_known_number_of_disagreements(samples, most):
    assert p_value(most, samples, 0.01) <= DELTA < p_value(most + 1, samples, 0.01)


@pytest.mark.parametrize("samples", [1, 2, 7, 299, 10_000, 200_000])
@pytest.mark.parametrize("risk", [5e-324, 1e-9, 0.005, 0.01, 0.3, 0.5, 0.99, 1 - 1e-12])
def test_p_value_is_the_binomial_of_scipy(samples, risk):
    middle = int(samples * risk)
    counts = {0, 1, 2, middle // 2, middle, middle + 1, 2 * middle, samples // 2, samples - 1}
    for count in {min(count, samples) for count in counts} | {-1, samples}:
        expected = binom.cdf(count, samples, risk)
        assert p_value(count, samples, risk) == pytest.approx(expected, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("samples", [3_000_000, 1_000_000_000])
@pytest.mark.parametrize("risk", [0.01, 0.5])
def test_a_p_value_of_very_many_rows_takes_no_longer(samples, risk):
    deviation = math.sqrt(samples * risk * (1 - risk))
    for away in (-5, -1, 0, 2):
        count = int(samples * risk + away * deviation)
        expected = binom.cdf(count, samples, risk)
        assert p_value(count, samples, risk) == pytest.approx(expected, rel=1e-4)


@given(st.data())
def test_p_value_grows_with_the_disagreements_and_falls_with_the_risk(data):
    samples = data.draw(st.integers(1, 3_000))
    count = data.draw(st.integers(0, samples))
    low, high = sorted(
        # Where 1 − risk is tiny, scipy itself is wrong in the sixth digit.
        data.draw(st.lists(st.floats(1e-6, 0.99), min_size=2, max_size=2, unique=True))
    )
    found = p_value(count, samples, high)
    assert found == pytest.approx(binom.cdf(count, samples, high), rel=1e-9, abs=1e-300)
    assert 0 <= found <= p_value(count, samples, low) * (1 + 1e-9) <= 1 + 1e-9
    assert p_value(count - 1, samples, high) <= found


def test_samples_needed_is_the_fewest_that_can_pass_without_a_disagreement():
    assert samples_needed(0.01, 0.95) == 299
    for risk in (0.005, 0.01, 0.02, 0.05):
        needed = samples_needed(risk, 0.95)
        assert p_value(0, needed, risk) <= DELTA < p_value(0, needed - 1, risk)


@given(st.integers(1, 2_000_000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999]))
def test_an_interval_is_that_of_clopper_and_pearson(total, data, confidence):
    count = data.draw(st.integers(0, total))
    found, exact = rate(count, total, confidence), binomtest(count, total).proportion_ci(confidence)
    assert found.low == pytest.approx(exact.low, abs=1e-9)
    assert found.high == pytest.approx(exact.high, abs=1e-9)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Published: the rule of three, and the tables of Clopper and Pearson.
    [(0, 100, 0.0, 0.02951), (10, 100, 0.05526, 0.16372), (100, 100, 0.97049, 1.0)],
)
def test_ends_are_one_sided_bounds(count, total, low, high):
    assert lower_bound(count, total, 0.95) == pytest.approx(low, abs=2e-4)
    assert upper_bound(count, total, 0.95) == pytest.approx(high, abs=2e-4)


@given(st.integers(1, 3_000), st.data())
def test_a_bound_is_the_rate_at_which_the_test_stops_to_reject(total, data):
    count = data.draw(st.integers(0, total - 1))
    bound = upper_bound(count, total, 1 - DELTA)
    assert p_value(count, total, bound) == pytest.approx(DELTA, rel=1e-6)


def test_nothing_is_known_of_no_samples():
    none = rate(0, 0)
    assert (none.low, none.high) == (0.0, 1.0) and math.isnan(none.value)


def test_a_rate_in_words():
    assert str(rate(5, 100)) == "5.00% (1.64% to 11.28%)"


@given(st.integers(1, 100_000))
def test_a_percentage_is_the_same_number_as_its_ratio(thousandths):
    # Certificates are found by the number: 1.1% must be what a client sends as 0.011.
    assert ratio(f"{thousandths / 1_000:.3f}%") == ratio(f"{thousandths / 100_000:.5f}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1%", 0.01), ("0.7%", 0.007), ("1.1%", 0.011), (" 2.9 %", 0.029), ("5e-1%", 0.005)],
)
def test_a_percentage_is_the_nearest_number(text, value):
    assert ratio(text) == value


@pytest.mark.parametrize("text", ["", "%", "x%", "sNaN%", "1%%", "1e99999999999999999999%"])
def test_what_is_no_number_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\S"):
        ratio(text)


@given(st.floats(1e-7, 1, exclude_max=True))
def test_a_chosen_number_is_spelled_with_all_its_digits(value):
    assert float(spelled(value)) == value
    assert ratio(percent(value)) == value
    assert "e" not in spelled(value) + percent(value)


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [
        (0.01, "0.01", "1%"),
        (0.1, "0.1", "10%"),
        (5e-05, "0.00005", "0.005%"),
        (0.0123456, "0.0123456", "1.23456%"),
        (0.995, "0.995", "99.5%"),
        (0.9996, "0.9996", "99.96%"),
    ],
)
def test_a_chosen_number_is_not_rounded(value, digits, words):
    assert (spelled(value), percent(value)) == (digits, words)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3.4e-5, "34 µs"), (9.99e-4, "999 µs"), (9.996e-4, "1 ms"), (0.012366, "12.4 ms"),
        (0.9996, "1 s"), (75.21, "75.2 s"),
    ],
)  # fmt: skip
def test_a_time_is_said_in_a_unit_that_suits_it(seconds, said):
    assert short_time(seconds) == said
