"""Types that decode and check the rows of a signature in JSON, and words for errors."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.signature import TensorSpec


def row_type(spec: TensorSpec) -> Any:
    """One row of an input: nested lists of its numbers."""
    row: Any = _number(np.dtype(spec.dtype))
    for size in reversed(spec.row_shape):
        least, most = (size, size) if isinstance(size, int) else (1, None)
        row = Annotated[list[row], msgspec.Meta(min_length=least, max_length=most)]
    return row


def _number(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return float
    if dtype.kind == "b":
        return Annotated[int, msgspec.Meta(ge=0, le=1)] | bool
    limits = np.iinfo(dtype)
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]


def columns_type(inputs: Sequence[TensorSpec], max_rows: int) -> Any:
    """The type of rows by input: an object of lists of rows, or one list for a single input."""
    columns = [list_of(row_type(spec), max_rows) for spec in inputs]
    named = _named("Columns", inputs, columns)
    return columns[0] | named if len(inputs) == 1 else named


def list_of(row: Any, most: int) -> Any:
    """A list type with at most so many rows."""
    return Annotated[list[row], msgspec.Meta(max_length=most)]


def instance_type(inputs: Sequence[TensorSpec], max_rows: int) -> Any:
    """The type of row-wise rows: objects with every input, or bare rows of a single input."""
    rows = [row_type(spec) for spec in inputs]
    named = _named("Instance", inputs, rows)
    return list_of(rows[0] | named if len(inputs) == 1 else named, max_rows)


def _named(name: str, inputs: Sequence[TensorSpec], types: Sequence[Any]) -> Any:
    # A graph's names need not be Python's.
    fields = [f"input_{i}" for i in range(len(inputs))]
    rename = dict(zip(fields, (spec.name for spec in inputs), strict=True))
    return msgspec.defstruct(
        name, list(zip(fields, types, strict=True)), rename=rename, forbid_unknown_fields=True
    )


def array_of(rows: Sequence[Any], spec: TensorSpec) -> NDArray[Any]:
    """Decoded rows as an array [B, …]; floats in FP64, for the engine to check.

    Raises:
        ValueError: If they are of different shapes.
    """
    kind = np.dtype(spec.dtype).kind
    return np.array(rows, dtype=np.float64 if kind == "f" else np.int64)


def _array_of_even(rows: Sequence[Any], spec: TensorSpec) -> NDArray[Any]:
    """The same of decoded rows of fixed sizes, in half the time."""
    shape = len(rows), *map(int, spec.row_shape)
    if np.dtype(spec.dtype).kind != "f" or len(shape) == 1:
        return array_of(rows, spec)
    numbers: Iterable[Any] = rows
    for _ in spec.row_shape:
        numbers = chain.from_iterable(numbers)
    packed = struct.pack(f"={math.prod(shape)}d", *numbers)
    return np.frombuffer(packed, dtype=np.float64).reshape(shape)


class Columns(Mapping[str, NDArray[Any]]):
    """Decoded rows of fixed sizes by input; arrays are made when they are read.

    An array costs as much for one row as for a hundred: those of many requests are made together.

    Args:
        specs: Of the inputs.
        lists: The rows of each, none empty, all decoded by :func:`row_type`.
    """

    def __init__(self, specs: Sequence[TensorSpec], lists: Sequence[Sequence[Any]]) -> None:
        self._specs = specs
        self._lists = lists

    def __getitem__(self, name: str) -> NDArray[Any]:
        for spec, rows in zip(self._specs, self._lists, strict=True):
            if spec.name == name:
                return _array_of_even(rows, spec)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    @property
    def rows(self) -> int:
        """Rows of the first input."""
        return len(self._lists[0])

    @property
    def even(self) -> bool:
        """Whether all inputs have as many rows."""
        return all(len(rows) == self.rows for rows in self._lists)

    @staticmethod
    def together(parts: Sequence[Columns]) -> Columns:
        """Concatenate the rows of several requests to one model; at least one."""
        if len(parts) == 1:
            return parts[0]
        lists = [list(chain(*some)) for some in zip(*(one._lists for one in parts), strict=True)]
        return Columns(parts[0]._specs, lists)


def described(spec: TensorSpec) -> str:
    """The rows of an input in words, such as ``rows of 2×3 numbers each``."""
    kind = np.dtype(spec.dtype).kind
    numbers = {"f": "numbers", "b": "booleans"}.get(kind, f"whole numbers ({spec.dtype})")
    if not spec.row_shape:
        return numbers
    return f"rows of {'×'.join(map(str, spec.row_shape))} {numbers} each"


def sizes_in_words(spec: TensorSpec, sizes: Sequence[int]) -> str:
    """The free sizes of a row, such as ``length 7``."""
    free = [
        f"{name} {size}"
        for name, size in zip(spec.row_shape, sizes, strict=True)
        if isinstance(name, str)
    ]
    return ", ".join(free)
