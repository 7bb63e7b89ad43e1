"""Probing: running a graph on a few rows to see how sizes follow batch and length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from skipserve.errors import CutError
from skipserve.graph.memory import open_model

Feeds = dict[str, NDArray[Any]]
# Batch sizes and lengths of the probes: no two alike, so that a number tells where it is from.
BATCHES = (2, 3, 5)
LENGTHS = (7, 11, 13)


def probes(
    example: Mapping[str, NDArray[Any]], symbols: Mapping[str, Sequence[Any]]
) -> list[Feeds]:
    """Three batches of different size, and of different length where it is free.

    Args:
        example: Some real rows of every input [N, …].
        symbols: Dimensions of every input: a number, or a name where it is free.
    """
    made = []
    for batch, length in zip(BATCHES, LENGTHS, strict=True):
        feeds = {}
        for name, rows in example.items():
            sizes = [batch]
            for axis, size in enumerate(symbols[name][1:], start=1):
                sizes.append(rows.shape[axis] if isinstance(size, int) else length)
            for axis, size in enumerate(sizes):
                rows = np.take(rows, np.arange(size) % rows.shape[axis], axis=axis)
            feeds[name] = np.ascontiguousarray(rows)
        made.append(feeds)
    return made


def read_tensors(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feeds]
) -> list[Feeds]:
    """The values of named tensors in each of the runs.

    Raises:
        CutError: If the graph does not run on the rows.
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
            raise CutError(
                f"the graph does not run on {len(next(iter(one.values())))} rows: {error}; "
                "its batch dimension must be free"
            ) from None
        found.append(
            dict(zip(wanted, values, strict=True))
            | {name: one[name] for name in names if name in inputs}
        )
    return found
