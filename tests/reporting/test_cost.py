"""Milliseconds of a report: which rows are timed, and how many of them."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.reporting.cost import (
    FEWEST,
    MOST,
    ROUNDS,
    SECONDS,
    affordable,
    in_any_part,
    lone_times,
    measure_costs,
)
from skipserve.reporting.sample import take_sample
from skipserve.runtime.engine import Engine


def test_slow_rows_are_fewer_and_quick_ones_are_not_more_than_enough():
    assert affordable(1e-5, works=14) == MOST
    assert affordable(0.05, works=14) == FEWEST
    between = affordable(0.01, works=10)
    assert FEWEST < between < MOST
    assert between * 0.01 * 10 * (ROUNDS + 1) <= SECONDS


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 587])
def test_every_beginning_of_the_order_runs_as_deep_as_all(rows):
    depth_run = np.random.default_rng(rows).choice([0, 2, 12], rows, p=[0.7, 0.2, 0.1])
    order = in_any_part(depth_run)
    assert sorted(order.tolist()) == list(range(rows))
    for taken in (32, 96, 256):
        if taken < rows:
            # As the rows come, the mean of 32 is out by 0.6 blocks as often as not.
            assert depth_run[order[:taken]].mean() == pytest.approx(depth_run.mean(), abs=0.3)


@pytest.mark.slow
def test_a_row_alone_and_a_decision_take_time(model):
    full_s, decision_s = lone_times(Engine(model.artifact), take_sample(model).rows)
    assert 0 < full_s < 1
    assert 0 <= decision_s < 1


@pytest.mark.slow
def test_each_batch_size_is_said_and_measured(model):
    said: list[str] = []
    costs = measure_costs(
        model, Engine(model.artifact), take_sample(model).rows, (1, 8), [2], said.append
    )
    assert [one.batch_size for one in costs] == [1, 8]
    assert said == ["measuring milliseconds, one row at a time", "measuring milliseconds, 8 rows"]
    assert all(one.full_ms > 0 and set(one.router_ms) == {0.02, 0.05} for one in costs)
