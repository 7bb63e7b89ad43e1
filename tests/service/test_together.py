"""Requests whose rows began together and leave one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import RowResults
from skipserve.service.together import Together


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_each_request_gets_its_own_rows_in_whatever_order_they_leave(counts, random):
    total = sum(counts)
    owners = np.repeat(np.arange(len(counts)), counts)
    together = Together(Rows({"x": np.arange(total, dtype=np.float32)[:, None]}), counts)
    order = list(range(total))
    random.shuffle(order)
    found = {}
    while order:
        left = sorted(order.pop() for _ in range(random.randint(1, len(order))))
        places = np.array(left)
        answers = places.astype(np.float32)[:, None]
        width = np.zeros(len(left), np.int64)
        results = RowResults(answers, width, width > 0, answers[:, 0], None)
        done = together.settle(places, results)
        if done is None:
            continue
        sizes = [counts[member] for member in done.members]
        pieces = np.split(done.results.answers[:, 0], np.cumsum(sizes)[:-1])
        found |= dict(zip(done.members, pieces, strict=True))
    for owner, count in enumerate(counts):
        rows = found.get(owner, np.empty(0))
        assert rows.tolist() == np.flatnonzero(owners == owner).tolist()
        assert count == 0 or owner in found
