"""The pace of batches: what the next ones will take, from what the last ones took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.service.pace import Pace


def paced(batch: int, took: Callable[[int], float], sizes: Sequence[tuple[int, float]]) -> Pace:
    """A pace that has seen batches, each with the seconds behind it in which nobody waited."""
    pace, now_s = Pace(batch), 0.0
    assert pace.wait_s(1000) == 0.0
    for size, idle_s in sizes:
        pace.begin(now_s)
        pace.take(size)
        now_s += took(size)
        if idle_s:  # nobody waits: what follows is no part of it
            pace.rest(now_s)
            now_s += idle_s
    pace.begin(now_s)
    return pace


@given(
    st.floats(1e-4, 1.0),
    st.lists(st.tuples(st.integers(1, 64), st.sampled_from((0.0, 0.5)))),
    st.integers(0, 200),
)
def test_the_pace_is_that_of_the_batches_whatever_their_sizes(
    request_s: float, batches: list[tuple[int, float]], waiting: int
) -> None:
    pace = paced(64, lambda size: size * request_s, [*batches, (64, 0.0)])
    full, rest = divmod(waiting, 64)
    of_rest_s = pace.wait_s(rest)
    assert rest / 2 * request_s <= of_rest_s * (1 + 1e-6)  # within one size it may be half
    assert of_rest_s <= rest * request_s * (1 + 1e-6)
    assert pace.wait_s(waiting) - of_rest_s == pytest.approx(64 * full * request_s, abs=1e-6)


@given(st.floats(1e-4, 1.0), st.floats(0.0, 1.0), st.lists(st.integers(1, 8), min_size=1))
def test_batches_of_few_say_nothing_against_a_full_one(
    fixed_s: float, request_s: float, few: list[int]
) -> None:
    """Where a batch costs something whatever its size, requests that ran alone look expensive."""

    def took(size: int) -> float:
        return fixed_s + size * request_s

    pace = paced(16, took, [(size, 0.5) for size in few])
    for waiting in range(64):
        full, rest = divmod(waiting, 16)
        assert pace.wait_s(waiting) <= (full + (rest > 0)) * took(16) + 1e-9


@given(st.floats(1e-4, 1.0), st.integers(0, 50))
def test_quiet_times_do_not_change_what_a_full_batch_takes(fixed_s: float, quiet: int) -> None:
    pace = paced(16, lambda size: fixed_s + size * 1e-3, [(16, 0.0)] * 3 + [(1, 0.5)] * quiet)
    assert pace.wait_s(160) == pytest.approx(10 * (fixed_s + 0.016))
