"""Exits as ONNX: features, head, signal and distance, computed inside the stage's graph in FP32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from skipserve.graph.builder import GraphBuilder
from skipserve.routing.exits import Exit, Layout

# Instead of −inf at a padded token: lower than anything a network survives in FP32.
LOWEST = np.array(np.finfo(np.float32).min, np.float32)
# Instead of a probability of 0, whose logarithm is no number.
SMALLEST = np.array(np.finfo(np.float32).tiny, np.float32)


@dataclass(frozen=True)
class Readings:
    """Names of what an exit gives; no answer and no signal where rows may not leave."""

    distance: str
    answer: str = ""
    signal: str = ""


def build_features(graph: GraphBuilder, stream: str, layout: Layout) -> tuple[str, str]:
    """Add the features of a stream.

    Args:
        graph: To add to.
        stream: Name of the stream, of any float dtype.
        layout: How it lies in memory; its mask is read by name.

    Returns:
        Names of the features [B, features] and of the mean over positions [B, width], float32.
    """
    x = graph.op("Cast", stream, to=TensorProto.FLOAT)
    if layout.kind == "vector":
        return x, x
    if layout.kind == "tokens":
        return _tokens(graph, x, layout.mask)
    if layout.channels_last:
        x = graph.op("Transpose", x, perm=[0, 3, 1, 2])
    flat = graph.op("Reshape", x, graph.integers(0, 0, -1))
    axis = graph.integers(2)
    largest = graph.op("ReduceMax", flat, axis, keepdims=0)
    size = graph.op("Cast", graph.op("Shape", flat, start=2, end=3), to=TensorProto.FLOAT)
    norm = graph.op("ReduceL2", flat, axis, keepdims=0)
    square = graph.op("Div", norm, graph.op("Sqrt", size))
    grid = layout.grid
    if grid is None:
        mean = graph.op("ReduceMean", flat, axis, keepdims=0)
        return graph.op("Concat", mean, largest, square, axis=1), mean
    cells = graph.op("MatMul", flat, graph.constant(grid))
    mean = graph.op("ReduceMean", flat, axis, keepdims=0)
    spread = graph.op("Flatten", cells, axis=1)
    return graph.op("Concat", mean, largest, spread, square, axis=1), mean


def _tokens(graph: GraphBuilder, x: str, mask: str) -> tuple[str, str]:
    axis = graph.integers(1)
    first = graph.op("Gather", x, graph.constant(np.array(0, np.int64)), axis=1)
    if not mask:
        mean = graph.op("ReduceMean", x, axis, keepdims=0)
        largest = graph.op("ReduceMax", x, axis, keepdims=0)
    else:
        real = graph.op("Unsqueeze", graph.op("Cast", mask, to=TensorProto.BOOL), graph.integers(2))
        # Chosen and not multiplied: what is padding may hold anything.
        kept = graph.op("Where", real, x, graph.constant(np.array(0, np.float32)))
        count = graph.op(
            "ReduceSum", graph.op("Cast", real, to=TensorProto.FLOAT), axis, keepdims=0
        )
        mean = graph.op("Div", graph.op("ReduceSum", kept, axis, keepdims=0), count)
        shown = graph.op("Where", real, x, graph.constant(LOWEST))
        largest = graph.op("ReduceMax", shown, axis, keepdims=0)
    return graph.op("Concat", mean, first, largest, axis=1), mean


def build_exit(graph: GraphBuilder, stream: str, exit_: Exit, own_answer: str = "") -> Readings:
    """Add everything that is read at one cut.

    Args:
        graph: To add to.
        stream: Name of the stream there.
        exit_: The numbers.
        own_answer: Name of the probabilities of the network's own head, read at this stream; taken
            where the exit has none.
    """
    features, mean = build_features(graph, stream, exit_.layout)
    guard, head = exit_.guard, exit_.head if exit_.leaves else None
    shift = -(guard.centre.astype(np.float64) @ guard.whiten).astype(np.float32)
    weights, biases = [guard.whiten], [shift]
    if head is not None:
        weights.append(head.layers[0][0])
        biases.append(head.layers[0][1])
    # One product for guard and head: they read the same features.
    product = graph.op(
        "Gemm",
        features,
        graph.constant(np.concatenate(weights, axis=1)),
        graph.constant(np.concatenate(biases)),
    )
    away, logits, answer = product, "", own_answer
    if head is not None:
        widths = graph.integers(*(one.shape[1] for one in weights))
        away, logits = graph.ops("Split", [product, widths], 2, axis=1)
        for weight, bias in head.layers[1:]:
            hidden = graph.op("Relu", logits)
            logits = graph.op("Gemm", hidden, graph.constant(weight), graph.constant(bias))
        answer = graph.op("Softmax", logits, axis=-1)
    distance = graph.op("ReduceL2", away, graph.integers(1), keepdims=0)
    if not exit_.leaves:
        return Readings(distance)
    return Readings(distance, answer, _signal(graph, exit_, answer, logits, mean))


def _signal(graph: GraphBuilder, exit_: Exit, answer: str, logits: str, mean: str) -> str:
    last = graph.integers(1)
    if exit_.signal == "confidence":
        return graph.op("ReduceMax", answer, last, keepdims=0)
    if exit_.signal == "margin":
        # A difference of logits is one of log probabilities.
        scores = logits or graph.op("Log", graph.op("Max", answer, graph.constant(SMALLEST)))
        top, _ = graph.ops("TopK", [scores, graph.integers(2)], 2, axis=-1)
        first, second = graph.ops("Split", [top, graph.integers(1, 1)], 2, axis=1)
        return graph.op("Squeeze", graph.op("Sub", first, second), last)
    if exit_.signal == "projected_norm":
        assert exit_.projection is not None
        weight, offset = exit_.projection
        mean = graph.op("Gemm", mean, graph.constant(weight), graph.constant(offset))
    return graph.op("ReduceL2", mean, last, keepdims=0)
