"""Probing: running a graph on a few rows to see how sizes follow batch and free dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from skipserve.errors import CutError
from skipserve.graph.memory import open_model

Feeds = dict[str, NDArray[Any]]
Symbols = Mapping[str, Sequence[Any]]
# Batch sizes of the probes, and how many of them there are.
BATCHES = (2, 3, 5)
# A free dimension is probed at sizes up to what the rows have, but within these where that runs:
# of fewer a network may leave one whatever the size, and more take long.
SMALL, LARGE = 13, 64
# Networks may need a least size, or a multiple of one.
STEPS = (32, 16, 8, 4, 2, 1)

Sizes = tuple[int, ...]
Result = TypeVar("Result")


class DoesNotRunError(CutError):
    """The graph does not run on a probe."""


def probed(
    example: Mapping[str, NDArray[Any]], symbols: Symbols, use: Callable[[list[Feeds]], Result]
) -> Result:
    """What is made of the first probes that the graph runs on.

    Args:
        example: Some real rows of every input [N, …].
        symbols: Dimensions of every input: a number, or a name where it is free.
        use: Makes it of three batches.

    Raises:
        DoesNotRunError: If it runs on none, not even at the sizes that the rows have.
    """
    first, *others = probe_sizes(example, symbols)
    try:
        return use(_probes(example, symbols, first))
    except DoesNotRunError:
        if not others:
            raise
    # If it does not run at the sizes of the rows, it is no matter of sizes: this raises.
    *others, own = others
    known = use(_probes(example, symbols, own))
    for sizes in others:
        with suppress(DoesNotRunError):
            return use(_probes(example, symbols, sizes))
    return known


def probe_sizes(
    example: Mapping[str, NDArray[Any]], symbols: Symbols
) -> Iterator[dict[str, Sizes]]:
    """Sizes of every free dimension in the three batches, those that tell most first.

    First no two dimensions have the same three sizes, so that a number tells where it is from. Then
    all have the same, because a network may need some to be equal. The last are those of the rows.

    Args:
        example: Some real rows of every input [N, …].
        symbols: Dimensions of every input: a number, or a name where it is free.
    """
    own = {
        symbol: rows.shape[axis]
        for name, rows in example.items()
        for axis, symbol in enumerate(symbols[name])
        if axis and isinstance(symbol, str)
    }
    wanted = {symbol: _sizes(size) for symbol, size in own.items()}
    for place in range(max(map(len, wanted.values()), default=0)):
        here = {symbol: sizes[min(place, len(sizes) - 1)] for symbol, sizes in wanted.items()}
        if len(here) > 1:
            yield {symbol: _turned(sizes, i) for i, (symbol, sizes) in enumerate(here.items())}
        yield here
    yield {symbol: (size,) * len(BATCHES) for symbol, size in own.items()}


def _probes(
    example: Mapping[str, NDArray[Any]], symbols: Symbols, sizes: Mapping[str, Sizes]
) -> list[Feeds]:
    """Three batches of different size."""
    return [
        {
            name: _resized(rows, [batch, *_row_sizes(rows, symbols[name], sizes, i)])
            for name, rows in example.items()
        }
        for i, batch in enumerate(BATCHES)
    ]


def _turned(sizes: Sizes, by: int) -> Sizes:
    return sizes[by % len(sizes) :] + sizes[: by % len(sizes)]


def _sizes(own: int) -> list[Sizes]:
    found = dict[Sizes, None]()
    for most in (min(max(own, SMALL), LARGE), own):
        for step in (most // 3, *STEPS):
            for sizes in (
                (most - 2 * step, most - step, most),
                (most - step, most, most + step),
                (most - step, most, most - step),
            ):
                if step and min(sizes) > 0:
                    found[sizes] = None
    return list(found)


def _row_sizes(
    rows: NDArray[Any], symbols: Sequence[Any], sizes: Mapping[str, Sizes], i: int
) -> list[int]:
    return [
        sizes[symbol][i] if isinstance(symbol, str) else rows.shape[axis]
        for axis, symbol in enumerate(symbols)
        if axis
    ]


def _resized(rows: NDArray[Any], sizes: Sequence[int]) -> NDArray[Any]:
    """The beginning of rows, repeated where there are too few."""
    for axis, size in enumerate(sizes):
        rows = np.take(rows, np.arange(size) % rows.shape[axis], axis=axis)
    return np.ascontiguousarray(rows)


def read_tensors(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feeds]
) -> list[Feeds]:
    """The values of named tensors in each of the runs.

    Raises:
        DoesNotRunError: If the graph does not run on the rows.
    """
    inputs = {one.name for one in model.graph.input}
    wanted = [name for name in dict.fromkeys(names) if name not in inputs]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {one.name for one in copy.graph.output}
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in wanted if name not in have
    )
    session = open_model(copy, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    found = []
    for one in feeds:
        try:
            values = session.run(wanted, one) if wanted else []
        except Exception as error:  # ONNX Runtime raises its own exception types
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise DoesNotRunError(
                f"the graph does not run on {len(next(iter(one.values())))} rows: {reason}; "
                "its batch dimension must be free"
            ) from None
        found.append(
            dict(zip(wanted, values, strict=True))
            | {name: one[name] for name in names if name in inputs}
        )
    return found
