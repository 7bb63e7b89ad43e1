"""Rows of several inputs: checked against the signature, joined, padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from skipserve.errors import InputError
from skipserve.runtime.rows import Rows, check_rows, join, pad
from skipserve.signature import Signature, TensorSpec
from skipserve.tasks import Classify


def spec(name, *row, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *row))


TEXTS = Signature(
    inputs=(
        spec("ids", "length", dtype="int64"),
        spec("mask", "length", dtype="int64"),
        spec("extra", 2),
    ),
    outputs=(spec("out", 2),),
    mask="mask",
)


def texts(count=2, length=3, **changes):
    rows = {
        "ids": np.arange(count * length).reshape(count, length),
        "mask": np.ones((count, length), np.int64),
        "extra": np.zeros((count, 2), np.float32),
    }
    return {name: one for name, one in (rows | changes).items() if one is not None}


def test_rows_come_contiguous_in_the_dtypes_of_the_inputs():
    given = texts(mask=np.ones((2, 3), bool), extra=np.zeros((2, 2), np.int8))
    given["ids"] = np.float64([[0, 1, 2], [3, 4, 5]]).T.copy().T
    rows = check_rows(given, TEXTS, "model")
    dtypes = {name: one.dtype.name for name, one in rows.tensors.items()}
    assert dtypes == {"ids": "int64", "mask": "int64", "extra": "float32"}
    assert all(one.flags.c_contiguous for one in rows.tensors.values())
    assert len(rows) == 2


BAD = [
    (texts(extra=None), "missing_input", None, "the input 'extra' of model is missing"),
    (texts(more=np.zeros(2)), "unknown_input", None, "has no input 'more', only 'ids', 'mask'"),
    (np.zeros((2, 3)), "missing_input", None, "takes several inputs ('ids', 'mask', 'extra')"),
    (texts(mask=np.ones((3, 3), int)), "wrong_shape", None, "'mask' holds 3 rows, 'ids' 2"),
    (texts(mask=np.ones((2, 4), int)), "wrong_shape", None, "length is 4 in 'mask' and 3 in 'ids'"),
    (texts(extra=np.zeros((2, 3))), "wrong_shape", 0, "has shape [2], got rows of shape [3]"),
    (texts(ids=np.zeros((2, 0), int), mask=np.zeros((2, 0), int)), "wrong_shape", 0, "['length']"),
    (texts(0), "empty", None, "holds no row"),
    (texts(ids=np.array([[1, 2, 3], [4, 5.5, 6]])), "wrong_type", 1, "row 1 of 'ids'"),
    (texts(ids=np.array([[1, 2, 3], [np.nan, 5, 6]])), "wrong_type", 1, "row 1 of 'ids'"),
    (texts(ids=np.array([[1, 2, 3], [1e30, 5, 6]])), "wrong_type", 1, "no int64"),
    (texts(ids=np.array([[2**63, 2, 3], [1, 5, 6]], np.uint64)), "wrong_type", 0, "no int64"),
    (texts(extra=np.array([[0, 0], [0, np.inf]])), "not_finite", 1, "row 1 of 'extra' holds NaN"),
    (texts(extra=np.array([["a", "b"]] * 2)), "wrong_type", None, "must be numbers"),
]


@pytest.mark.parametrize(("given", "code", "row", "says"), BAD)
def test_bad_rows_are_told_what_was_expected(given, code, row, says):
    with pytest.raises(InputError) as caught:
        check_rows(given, TEXTS, "model")
    assert (caught.value.code, caught.value.row) == (code, row)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int8", -128, 127), ("uint8", 0, 255), ("bool", 0, 1), ("int64", -(2**63), 2**63 - 1)],
)
def test_integers_end_where_their_dtype_does(dtype, low, high):
    one = Signature(inputs=(spec("x", 1, dtype=dtype),), outputs=(spec("out", 2),))
    made = check_rows(np.array([[low], [high]]), one, "model").tensors["x"]
    assert made.dtype == np.dtype(dtype)
    assert made.astype(object).tolist() == [[low], [high]]
    for beyond in (low - 1, high + 1):
        if -(2**63) <= beyond < 2**63:
            with pytest.raises(InputError, match="row 1 "):
                check_rows(np.array([[low], [beyond]]), one, "model")
    with pytest.raises(InputError, match="row 1 "):
        check_rows(np.array([[0.0], [float(high) * 2 + 2]]), one, "model")


def test_padding_is_behind_the_free_dimensions_and_hidden_by_the_mask():
    rows = Rows(texts())
    made = pad(rows, TEXTS, {"length": 5})
    assert made.tensors["ids"].tolist() == [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0]]
    assert made.tensors["mask"].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert made.tensors["extra"].shape == (2, 2)
    other = Rows(texts(1, 5))
    whole = join([made, other])
    assert len(whole) == 3
    assert whole[slice(2, 3)].tensors["ids"].tolist() == other.tensors["ids"].tolist()


def test_rows_are_repeated_beside_each_other():
    assert Rows({"x": np.array([[1], [2]])}).repeat(2).tensors["x"].tolist() == [[1], [1], [2], [2]]


def test_a_classifier_answers_with_the_largest_probability():
    task = Classify(classes=3, names=("a", "b", "c"))
    answers = np.float32([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    assert task.labels(answers).tolist() == [1, 0]
    assert task.agree(answers, answers[::-1]).tolist() == [False, False]
    assert task.agree(answers, answers * 2).tolist() == [True, True]
    assert task.width == 3
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        Classify(classes=3, names=("a", "b"))


class Made(Mapping[str, NDArray[np.float64]]):
    """Rows whose arrays are made when they are read."""

    def __init__(self) -> None:
        self.times = 0

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name != "x":
            raise KeyError(name)
        self.times += 1
        return np.ones((2, 1))

    def __iter__(self) -> Iterator[str]:
        return iter(("x",))

    def __len__(self) -> int:
        return 1


def test_an_array_is_read_once() -> None:
    rows, signature = Made(), Signature(inputs=(spec("x", 1),), outputs=(spec("out", 2),))
    assert len(check_rows(rows, signature, "model")) == 2
    assert rows.times == 1
