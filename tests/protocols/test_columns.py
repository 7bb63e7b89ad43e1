"""Decoded rows of fixed sizes become the arrays that their numbers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skipserve.protocols.json_types import Columns
from skipserve.signature import BATCH, TensorSpec

SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=3)


def columns(rows: np.ndarray[Any, Any]) -> Columns:
    """The rows of one request, as a decoder gives them."""
    spec = TensorSpec(name="x", dtype=rows.dtype.name, shape=(BATCH, *rows.shape[1:]))
    return Columns((spec,), [rows.tolist()])


@pytest.mark.parametrize("dtype", ["float64", "int64"])
@given(data=st.data())
def test_arrays_have_shape_and_numbers_of_the_rows(dtype: str, data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    parts = [
        data.draw(arrays(np.dtype(dtype), (count, *shape)))
        for count in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    ]
    whole = Columns.together([columns(part) for part in parts])["x"]
    assert whole.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole, np.concatenate(parts))
