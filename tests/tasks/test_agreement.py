"""When two answers agree, by task."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.tasks import Classify, Decision, Embed, MultiLabel, Regress, Score


# Two rows of the same numbers agree, whatever they are; a set, a value or an angle decides else.
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3),
    st.floats(0.01, 100),
    st.floats(0.01, 3),
)
def test_values_agree_within_the_tolerance(row, tolerance, times):
    task = Regress(values=3, tolerance=tolerance)
    full = np.array([row], np.float64)
    moved = full + np.array([[0, 0, times * tolerance]])
    assert task.agree(full, full).all()
    if abs(times - 1) > 1e-6:
        assert task.agree(moved, full)[0] == (times < 1)
    assert Score(tolerance=tolerance).agree(moved[:, 2:], full[:, 2:])[0] == task.agree(moved, full)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.999), st.floats(0.1, 10))
def test_vectors_agree_by_their_angle_alone(seed, cosine, length):
    task = Embed(dimensions=4, cosine=cosine)
    one, other = np.random.default_rng(seed).standard_normal((2, 1, 4))
    angle = float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    if abs(angle - cosine) > 1e-6:
        assert task.agree(length * one, other)[0] == (angle >= cosine)


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.integers(0, 2))
def test_sets_of_labels_differ_by_one_label(row, which):
    task, full = MultiLabel(count=3), np.array([row], np.float32)
    other = full.copy()
    other[0, which] = 1 - full[0, which]
    flips = (full[0, which] >= 0.5) != (other[0, which] >= 0.5)
    assert task.agree(other, full)[0] == (not flips)
    assert task.right(full, task.labels(full)).all()


def test_rows_that_overflow_either_way_are_no_disagreement():
    nothing, something = np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]])
    for task in (Regress(values=2, tolerance=1), Embed(dimensions=2)):
        assert task.agree(nothing, nothing).all()
        assert not task.agree(nothing, something).any()
        assert not task.agree(something, nothing).any()


def test_a_decision_at_a_threshold_is_what_counts():
    task = Classify(classes=3, names=("a", "spam", "c"), decide=Decision(label=1, at=0.9))
    answers = np.array([[0.05, 0.92, 0.03], [0.15, 0.8, 0.05], [0.1, 0.3, 0.6]], np.float32)
    assert task.labels(answers).tolist() == [1, 0, 2]
    assert task.output_fields(answers, task.labels(answers))[1]["name"] == "a"
    assert not task.agree(answers[:1], answers[1:2])[0]
    plain = Classify(classes=3)
    assert plain.agree(answers[:1], answers[1:2])[0]


EVERY_TASK = (
    Classify(classes=3),
    Classify(classes=3, decide=Decision(label=1, at=0.9)),
    MultiLabel(count=3),
    Regress(values=3, tolerance=1),
    Embed(dimensions=3),
)


@pytest.mark.parametrize("task", EVERY_TASK)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_an_answer_that_is_not_finite_agrees_with_none_that_is(task, value):
    something = np.array([[0.9, 0.05, 0.05]], np.float32)
    for place in ([0], [1], [0, 1, 2]):
        nothing = something.copy()
        nothing[0, place] = value
        assert not task.agree(nothing, something).any()
        assert not task.agree(something, nothing).any()
        assert task.agree(nothing, nothing).all()
        if isinstance(task, Classify | MultiLabel):
            assert not task.right(nothing, task.labels(nothing)).any()
            assert task.right(something, task.labels(something)).all()


@given(st.floats(1e-30, 1e30), st.floats(1e-10, 1e10))
def test_vectors_of_any_length_agree_by_their_direction(length, times):
    task = Embed(dimensions=2)
    one = np.array([[1.0, 0.0]])
    long = max(length, 1e-11), max(length * times, 1e-11)
    assert task.agree(long[0] * one, long[1] * one).all()
    assert not task.agree(long[0] * one, long[1] * one[:, ::-1]).any()
