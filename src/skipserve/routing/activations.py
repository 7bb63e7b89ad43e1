"""Activations: what every exit would read off many rows, run once through the whole graph.

They come from ONNX Runtime, so no model of the network in any framework is needed, and stand on
disk: a memory map holds what memory would not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from skipserve.graph.builder import GraphBuilder
from skipserve.graph.exit_graph import build_features
from skipserve.graph.memory import open_model
from skipserve.routing.exits import Layout
from skipserve.runtime.rows import Rows

BATCH = 128


@dataclass(frozen=True)
class Activations:
    """Features at several cuts, and full-depth answers.

    Attributes:
        features: At each cut [cuts][N, features], float32, on disk, in files without a name.
        answers: [N, width], float32.
    """

    features: tuple[NDArray[np.float32], ...]
    answers: NDArray[np.float32]


def read_activations(
    model: onnx.ModelProto,
    cuts: Sequence[str],
    layouts: Sequence[Layout],
    parts: Sequence[Rows],
    said: Callable[[int], None] = lambda rows: None,
) -> Activations:
    """Run rows through a graph and keep the features of some of its streams.

    Args:
        model: The plain graph; its first output is the answer.
        cuts: Names of the streams.
        layouts: Of each.
        parts: Rows, in parts of possibly different shapes.
        said: Told how many rows were run since it was told last.
    """
    session = open_model(_with_features(model, cuts, layouts), threads=0)
    count = sum(len(part) for part in parts)
    features = tuple(_on_disk(count, one.features) for one in layouts)
    answers, at = [], 0
    for part in parts:
        for start in range(0, len(part), BATCH):
            some = part[start : start + BATCH]
            answer, *read = session.run(None, some.tensors)
            answers.append(answer.astype(np.float32))
            for kept, values in zip(features, read, strict=True):
                kept[at : at + len(some)] = values
            at += len(some)
            said(len(some))
    return Activations(features, np.concatenate(answers))


def _on_disk(rows: int, columns: int) -> NDArray[np.float32]:
    """Room for numbers in a file that has no name, so that it goes with the last who sees it."""
    with tempfile.TemporaryFile(prefix="skipserve.") as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))


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
