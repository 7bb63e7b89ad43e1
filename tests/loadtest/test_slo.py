"""Parsing objectives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.errors import ConfigError
from skipserve.loadtest.slo import Objective, parse_slo


def test_every_measure_is_read():
    assert parse_slo("p50=15ms, p99.9=0.5s,p90=800us,errors=0,disagreement=0.01") == Objective(
        ((50.0, 0.015), (99.9, 0.5), (90.0, pytest.approx(0.0008))), 0.0, 0.01
    )


@given(
    st.dictionaries(st.integers(1, 99), st.integers(1, 10_000), min_size=1),
    st.none() | st.floats(0, 0.99),
)
def test_what_is_printed_is_read_again(limits, errors):
    text = ",".join(f"p{percent}={limit}ms" for percent, limit in limits.items())
    parsed = parse_slo(text if errors is None else f"{text},errors={errors:g}")
    again = parse_slo(str(parsed))
    assert again.errors == parsed.errors
    assert [percent for percent, _ in again.percentiles] == list(limits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing is asked for; for example p50=15ms"),
        ("p50", "'p50' is not MEASURE=LIMIT"),
        ("p50=", "not MEASURE=LIMIT"),
        ("p50=15", "p50=15 is not a duration; .* us, ms or s, such as 15ms"),
        ("p50=0ms", "not a duration"),
        ("p50=-1ms", "not a duration"),
        ("p50=15ms,p50=16ms", "p50 is given twice"),
        ("errors=0,errors=0", "errors is given twice"),
        ("p0=1ms", "unknown measure 'p0'"),
        ("p100=1ms", "unknown measure 'p100'"),
        ("eror=0", "unknown measure 'eror'; did you mean errors"),
        ("mean=3ms", "measures are p50, p99, p99.9"),
        ("errors=5%", "errors=5% is not a ratio; expected 0 or more and below 1"),
        ("disagreement=nan", "not a ratio"),
        ("disagreement=1", "not a ratio"),
    ],
)
def test_a_wrong_objective_says_what_was_expected(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_slo(text)
