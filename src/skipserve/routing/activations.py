"""Activations: the features of every cut for many rows, in one run of the whole graph.

They come from ONNX Runtime, so no model of the network in any framework is needed, and stand on
disk: those of one cut at a time are mapped into memory.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, overload

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skipserve.cores import usable_cores
from skipserve.graph.builder import GraphBuilder
from skipserve.graph.exit_graph import build_features
from skipserve.graph.memory import open_model
from skipserve.routing.exits import Layout
from skipserve.runtime.many import in_batches
from skipserve.runtime.rows import Rows

# More at a time are no faster, and a transformer's rows take megabytes each.
BATCH = 32


@dataclass(frozen=True)
class Activations:
    """Features at several cuts, and full-depth answers.

    Attributes:
        features: At each cut [cuts][N, features], float32.
        answers: [N, width], float32.
    """

    features: Sequence[NDArray[np.float32]]
    answers: NDArray[np.float32]


class _OnDisk(Sequence[NDArray[np.float32]]):
    """Arrays in anonymous files, mapped into memory while they are in use.

    Args:
        columns: Of each array.
    """

    def __init__(self, columns: Sequence[int]) -> None:
        self._columns = columns
        self._files = [tempfile.TemporaryFile(prefix="skipserve.") for _ in columns]  # noqa: SIM115
        weakref.finalize(self, _close, self._files)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[NDArray[np.float32]]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        file = self._files[place]
        file.flush()
        return np.memmap(file, np.float32, "r").reshape(-1, self._columns[place])

    def append(self, parts: Sequence[NDArray[Any]]) -> None:
        """Add some rows to each array."""
        for file, rows in zip(self._files, parts, strict=True):
            file.write(np.ascontiguousarray(rows, np.float32).data)


def _close(files: Sequence[IO[bytes]]) -> None:
    for file in files:
        file.close()


def read_activations(
    model: onnx.ModelProto,
    cuts: Sequence[str],
    layouts: Sequence[Layout],
    parts: Sequence[Rows],
    said: Callable[[int], None] = lambda rows: None,
) -> Activations:
    """Run rows through a graph and return the features of some streams.

    Args:
        model: The plain graph; its first output is the answer.
        cuts: Names of the streams.
        layouts: Of each.
        parts: Rows, in parts of possibly different shapes.
        said: Receives the number of rows that were run since the last call.
    """
    session = open_model(_with_features(model, cuts, layouts), arena=False)
    features, answers = _OnDisk([one.features for one in layouts]), []

    def run(some: Rows) -> list[NDArray[Any]]:
        values: list[NDArray[Any]] = session.run(None, some.tensors)
        return values

    for part in parts:
        for answer, *read in in_batches(run, part, BATCH, usable_cores()):
            answers.append(answer.astype(np.float32))
            features.append(read)
            said(len(answer))
    return Activations(features, np.concatenate(answers))


def _with_features(
    model: onnx.ModelProto, cuts: Sequence[str], layouts: Sequence[Layout]
) -> onnx.ModelProto:
    more = onnx.ModelProto()
    more.CopyFrom(model)
    del more.graph.output[1:]
    builder = GraphBuilder("features/")
    for cut, layout in zip(cuts, layouts, strict=True):
        name, _ = build_features(builder, cut, layout)
        more.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
        )
    more.graph.node.extend(builder.nodes)
    more.graph.initializer.extend(builder.initializers)
    return more
