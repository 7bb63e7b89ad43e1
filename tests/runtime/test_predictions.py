"""Predictions of several batches as one."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.runtime.prediction import Prediction, joined
from skipserve.runtime.trail import Trail


def prediction(count: int, **others: object) -> Prediction:
    """Answers of ``count`` rows, two decisions."""
    return Prediction(
        np.arange(count),
        np.full((count, 3), count, np.float32),
        np.full(count, count),
        np.zeros(count, dtype=bool),
        np.zeros((count, 2), np.float32),
        **others,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("what", "width"), [("left_out", (2,)), ("reran", ())])
def test_what_a_batch_does_not_have_is_false_for_its_rows(
    what: str, width: tuple[int, ...]
) -> None:
    found = joined([prediction(1), prediction(2, **{what: np.ones((2, *width), dtype=bool)})])
    np.testing.assert_array_equal(found.depth_run, [1, 2, 2])
    whole = getattr(found, what)
    assert whole.shape == (3, *width)
    assert whole.reshape(3, -1).all(axis=1).tolist() == [False, True, True]
    assert not whole[0].any()
    assert getattr(joined([prediction(1), prediction(2)]), what) is None


def test_rows_that_give_evidence_keep_their_trail() -> None:
    answers, distances = np.ones((1, 2, 3), np.float32), np.ones((1, 2), np.float32)
    trail = Trail(np.array([True]), answers, distances, np.ones(1, np.float32))
    found = joined([prediction(2), prediction(1, trail=trail), prediction(1)]).trail
    assert found is not None
    assert found.drawn.tolist() == [False, False, True, False]
    assert found.answers.shape == (4, 2, 3)
    assert found.distances.sum(axis=1).tolist() == [0, 0, 2, 0]
    assert joined([prediction(1), prediction(2)]).trail is None
