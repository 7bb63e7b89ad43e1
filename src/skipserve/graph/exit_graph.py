"""Exits as ONNX: features, head, signal and distance, computed inside the stage's graph in FP32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from skipserve.graph.builder import GraphBuilder
from skipserve.routing.exits import Exit, Head, Layout
from skipserve.tasks import Link

# In place of −inf at padded tokens: below every activation in FP32.
LOWEST = np.array(np.finfo(np.float32).min, np.float32)
# Instead of a probability of 0, whose logarithm is no number, and of a length of 0.
SMALLEST = np.array(np.finfo(np.float32).tiny, np.float32)
# Instead of a probability of 1, whose log-odds are no number.
LARGEST = np.array(1 - np.finfo(np.float32).epsneg, np.float32)


@dataclass(frozen=True)
class ExitTensors:
    """Names of the outputs of an exit; no answer and no signal where rows may not leave."""

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
    return _pooled(graph, x, layout) if layout.pooled else _reduced(graph, x, layout)


def _pooled(graph: GraphBuilder, x: str, layout: Layout) -> tuple[str, str]:
    """Channels of a picture, by pools: ONNX Runtime computes these in blocks of channels."""
    high, wide = layout.shape[1:]
    mean, largest = graph.op("GlobalAveragePool", x), graph.op("GlobalMaxPool", x)
    # Overlapping by one where a size is odd, as `Layout.grid` has them.
    kernel, strides = [-(-high // 2), -(-wide // 2)], [high // 2, wide // 2]
    cells = graph.op("AveragePool", x, kernel_shape=kernel, strides=strides)
    squares = graph.op("GlobalAveragePool", graph.op("Mul", x, x))
    parts = (graph.op("Concat", mean, largest, axis=1), cells, squares)
    both, spread, square = (graph.op("Flatten", one, axis=1) for one in parts)
    features = graph.op("Concat", both, spread, graph.op("Sqrt", square), axis=1)
    return features, graph.op("Flatten", mean, axis=1)


def _reduced(graph: GraphBuilder, x: str, layout: Layout) -> tuple[str, str]:
    """Channels of anything else."""
    flat = graph.op("Reshape", x, graph.integers(0, 0, -1))
    axis = graph.integers(2)
    mean = graph.op("ReduceMean", flat, axis, keepdims=0)
    largest = graph.op("ReduceMax", flat, axis, keepdims=0)
    # Several times faster than ReduceL2, which knows no vectors.
    squares = graph.op("ReduceMean", graph.op("Mul", flat, flat), axis, keepdims=0)
    parts = [mean, largest]
    if layout.grid is not None:
        cells = graph.op("MatMul", flat, graph.constant(layout.grid))
        parts.append(graph.op("Flatten", cells, axis=1))
    return graph.op("Concat", *parts, graph.op("Sqrt", squares), axis=1), mean


def _tokens(graph: GraphBuilder, x: str, mask: str) -> tuple[str, str]:
    axis = graph.integers(1)
    first = graph.op("Gather", x, graph.constant(np.array(0, np.int64)), axis=1)
    if not mask:
        mean = graph.op("ReduceMean", x, axis, keepdims=0)
        largest = graph.op("ReduceMax", x, axis, keepdims=0)
    else:
        real = graph.op("Unsqueeze", graph.op("Cast", mask, to=TensorProto.BOOL), graph.integers(2))
        # Selected, not multiplied: padding may hold NaN.
        kept = graph.op("Where", real, x, graph.constant(np.array(0, np.float32)))
        count = graph.op(
            "ReduceSum", graph.op("Cast", real, to=TensorProto.FLOAT), axis, keepdims=0
        )
        mean = graph.op("Div", graph.op("ReduceSum", kept, axis, keepdims=0), count)
        shown = graph.op("Where", real, x, graph.constant(LOWEST))
        largest = graph.op("ReduceMax", shown, axis, keepdims=0)
    return graph.op("Concat", mean, first, largest, axis=1), mean


def build_exit(graph: GraphBuilder, stream: str, exit_: Exit, own_answer: str = "") -> ExitTensors:
    """Add an exit: everything that is read at one cut.

    Args:
        graph: To add to.
        stream: Name of the stream there.
        exit_: The numbers.
        own_answer: Name of the probabilities of the network's own head, read at this stream; taken
            where the exit has none.
    """
    features, mean = build_features(graph, stream, exit_.layout)
    guard = exit_.guard
    heads = [one for one in (exit_.head, exit_.estimate) if one is not None and exit_.leaves]
    shift = -(guard.centre.astype(np.float64) @ guard.whiten).astype(np.float32)
    weights, biases = [guard.whiten], [shift]
    for head in heads:
        weights.append(head.layers[0][0])
        biases.append(head.layers[0][1])
    # One matrix product for guard and heads, which read the same features.
    product = graph.op(
        "Gemm",
        features,
        graph.constant(np.concatenate(weights, axis=1)),
        graph.constant(np.concatenate(biases)),
    )
    away, first = product, list[str]()
    if heads:
        widths = graph.integers(*(one.shape[1] for one in weights))
        away, *first = graph.ops("Split", [product, widths], len(weights), axis=1)
    given = {id(one): _through(graph, one, name) for one, name in zip(heads, first, strict=True)}
    distance = graph.op("ReduceL2", away, graph.integers(1), keepdims=0)
    if not exit_.leaves:
        return ExitTensors(distance)
    logits = given.get(id(exit_.head), "")
    answer = _linked(graph, exit_.link, logits) if logits else own_answer
    estimate = given.get(id(exit_.estimate), "")
    if estimate:
        return ExitTensors(distance, answer, graph.op("Squeeze", estimate, graph.integers(1)))
    return ExitTensors(distance, answer, _signal(graph, exit_, answer, logits, mean))


def _through(graph: GraphBuilder, head: Head, value: str) -> str:
    """The layers of a head after the first, which is computed already."""
    for weight, bias in head.layers[1:]:
        hidden = graph.op("Relu", value)
        value = graph.op("Gemm", hidden, graph.constant(weight), graph.constant(bias))
    return value


def _linked(graph: GraphBuilder, link: Link, value: str) -> str:
    """The answer for the raw output of a head."""
    if link == "softmax":
        return graph.op("Softmax", value, axis=-1)
    if link == "sigmoid":
        return graph.op("Sigmoid", value)
    if link == "unit":
        length = graph.op("ReduceL2", value, graph.integers(1), keepdims=1)
        return graph.op("Div", value, graph.op("Max", length, graph.constant(SMALLEST)))
    return value


def _log_odds(graph: GraphBuilder, answer: str) -> str:
    low, high = graph.constant(SMALLEST), graph.constant(LARGEST)
    inside = graph.op("Min", graph.op("Max", answer, low), high)
    against = graph.op("Sub", graph.constant(np.array(1, np.float32)), inside)
    return graph.op("Log", graph.op("Div", inside, against))


def _signal(graph: GraphBuilder, exit_: Exit, answer: str, logits: str, mean: str) -> str:
    last = graph.integers(1)
    if exit_.signal == "confidence":
        if exit_.link == "sigmoid":  # the least certain label
            one = graph.constant(np.array(1, np.float32))
            answer = graph.op("Max", answer, graph.op("Sub", one, answer))
            return graph.op("ReduceMin", answer, last, keepdims=0)
        return graph.op("ReduceMax", answer, last, keepdims=0)
    if exit_.signal == "margin" and exit_.border is not None:
        label, at = exit_.border
        odds = _log_odds(graph, graph.op("Gather", answer, graph.constant(np.array(label)), axis=1))
        threshold = np.array(np.log(at / (1 - at)), np.float32)
        return graph.op("Abs", graph.op("Sub", odds, graph.constant(threshold)))
    if exit_.signal == "margin" and exit_.link == "sigmoid":
        odds = logits or _log_odds(graph, answer)
        return graph.op("ReduceMin", graph.op("Abs", odds), last, keepdims=0)
    if exit_.signal == "margin":
        # A difference of logits is one of log probabilities.
        scores = logits or graph.op("Log", graph.op("Max", answer, graph.constant(SMALLEST)))
        top, _ = graph.ops("TopK", [scores, graph.integers(2)], 2, axis=-1)
        # A difference, as one operator.
        return graph.op("MatMul", top, graph.constant(np.array([1, -1], np.float32)))
    if exit_.signal == "projected_norm":
        assert exit_.projection is not None
        weight, offset = exit_.projection
        mean = graph.op("Gemm", mean, graph.constant(weight), graph.constant(offset))
    return graph.op("ReduceL2", mean, last, keepdims=0)
