"""Exits: ONNX, PyTorch and NumPy read the same numbers off every layout."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from skipserve.graph.assemble import exit_model
from skipserve.graph.memory import open_model
from skipserve.routing.eager import EagerExit
from skipserve.routing.exits import Exit, Guard, Head, Layout, layout_of
from skipserve.tasks import SignalName

ROWS, WIDTH, CLASSES = 7, 6, 3
LAYOUTS = {
    "vector": Layout("vector", (WIDTH,)),
    "tokens": Layout("tokens", (5, WIDTH)),
    "tokens of any length": Layout("tokens", (-1, WIDTH)),
    "masked tokens": Layout("tokens", (-1, WIDTH), mask="mask"),
    "signal": Layout("channels", (WIDTH, 9)),
    "signal of any length": Layout("channels", (WIDTH, -1)),
    "picture": Layout("channels", (WIDTH, 5, 7)),
    "even picture": Layout("channels", (WIDTH, 4, 2)),
    "strip of one column": Layout("channels", (WIDTH, 5, 1)),
    "picture of any size": Layout("channels", (WIDTH, -1, -1)),
    "picture, channels last": Layout("channels", (WIDTH, 5, 7), channels_last=True),
}
SIZES = {"vector": (), "tokens": (5,), "signal": (9,), "even": (4, 2), "strip": (5, 1)}
SIZES |= {"picture": (5, 7)}
MASK = (np.arange(5) < np.array([5, 1, 2, 3, 4, 5, 2])[:, None]).astype(np.int64)


def stream_of(name):
    """Ordinary streams [rows, …] as the layout has them."""
    layout = LAYOUTS[name]
    kind = next(kind for kind in SIZES if kind in name)
    positions = SIZES[kind]
    before = layout.kind == "channels" and not layout.channels_last
    shape = (WIDTH, *positions) if before else (*positions, WIDTH)
    return np.random.default_rng(0).standard_normal((ROWS, *shape), dtype=np.float32)


def features_of(layout, stream):
    """What an exit reads, in NumPy and float64: features, and the mean over positions."""
    x = stream.astype(np.float64)
    if layout.kind == "vector":
        return x, x
    if layout.kind == "tokens":
        mask = MASK if layout.mask else np.ones(x.shape[:2])
        rows = [row[real > 0] for row, real in zip(x, mask, strict=True)]
        mean = np.stack([row.mean(axis=0) for row in rows])
        largest = np.stack([row.max(axis=0) for row in rows])
        return np.concatenate([mean, x[:, 0], largest], axis=1), mean
    if layout.channels_last:
        x = np.moveaxis(x, -1, 1)
    flat = x.reshape(*x.shape[:2], -1)
    mean, square = flat.mean(axis=2), np.sqrt((flat**2).mean(axis=2))
    parts = [mean, flat.max(axis=2)]
    if layout.grid is not None:
        pool = {3: nn.AdaptiveAvgPool1d(4), 4: nn.AdaptiveAvgPool2d(2)}[x.ndim]
        parts.append(pool(torch.from_numpy(x)).flatten(1).numpy())
    return np.concatenate([*parts, square], axis=1), mean


def exit_of(layout, signal="confidence", hidden=4):
    rng = np.random.default_rng(1)

    def numbers(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    n = layout.features
    sizes = [n, hidden, CLASSES] if hidden else [n, CLASSES]
    pairs = pairwise(sizes)
    head = Head(tuple((numbers(a, b), numbers(b)) for a, b in pairs))
    projection = (numbers(WIDTH, 2), numbers(2)) if signal == "projected_norm" else None
    guard, estimate = Guard(numbers(n), numbers(n, n)), None
    if signal == "agreement":
        estimate = Head(((numbers(n, 3), numbers(3)), (numbers(3, 1), numbers(1))))
    return Exit(1, layout, guard, head, signal, projection, estimate)


def in_numpy(exit_, stream):
    """Answer, signal and distance, from their description."""
    features, mean = features_of(exit_.layout, stream)
    x = features
    for i, (weight, bias) in enumerate(exit_.head.layers):
        x = np.maximum(x, 0) if i else x
        x = x @ weight.astype(np.float64) + bias
    answer = np.exp(x - x.max(axis=1, keepdims=True))
    answer /= answer.sum(axis=1, keepdims=True)
    first, second = np.sort(x, axis=1)[:, :-3:-1].T
    signal = {
        "confidence": answer.max(axis=1),
        "margin": first - second,
        "norm": np.linalg.norm(mean, axis=1),
    }
    if exit_.projection is not None:
        weight, offset = exit_.projection
        signal["projected_norm"] = np.linalg.norm(mean @ weight + offset, axis=1)
    if exit_.estimate is not None:
        (first, offset), (last, end) = exit_.estimate.layers
        hidden = np.maximum(features @ first.astype(np.float64) + offset, 0)
        signal["agreement"] = (hidden @ last + end)[:, 0]
    whitened = (features - exit_.guard.centre) @ exit_.guard.whiten.astype(np.float64)
    return answer, signal[exit_.signal], np.linalg.norm(whitened, axis=1)


def in_onnx(exit_, stream, mask=MASK, dtype=TensorProto.FLOAT):
    value = helper.make_tensor_value_info
    shape = ["batch", *[None] * (stream.ndim - 1)]
    known = {"mask": value("mask", TensorProto.INT64, ["batch", None])}
    opset = [helper.make_opsetid("", 18)]
    model = exit_model(exit_, value("stream", dtype, shape), known, opset)
    onnx.checker.check_model(model, full_check=True)
    session = open_model(model)
    feeds = {"stream": stream, "mask": mask}
    needed = {one.name: feeds[one.name] for one in session.get_inputs()}
    made = dict(
        zip([one.name for one in session.get_outputs()], session.run(None, needed), strict=True)
    )
    return made["exit/answer"], made["exit/signal"], made["exit/distance"]


@pytest.mark.parametrize("signal", get_args(SignalName))
@pytest.mark.parametrize("name", LAYOUTS)
def test_onnx_torch_and_numpy_read_the_same(name, signal):
    exit_, stream = exit_of(LAYOUTS[name], signal), stream_of(name)
    expected = in_numpy(exit_, stream)
    assert features_of(exit_.layout, stream)[0].shape == (ROWS, exit_.layout.features)
    found = [in_onnx(exit_, stream)]
    if (
        not exit_.layout.mask and not exit_.layout.channels_last and signal != "agreement"
    ):  # networks trained here have none of these
        with torch.no_grad():
            eager = EagerExit(exit_, nn.Identity(), torch.float32)(torch.from_numpy(stream))
        found.append([one.numpy() for one in eager])
    for got in found:
        for one, exact in zip(got, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, exact, rtol=1e-4, atol=1e-5)


def test_a_linear_head_has_no_hidden_layer():
    exit_, stream = exit_of(LAYOUTS["vector"], hidden=0), stream_of("vector")
    assert exit_.head.hidden == 0
    np.testing.assert_allclose(in_onnx(exit_, stream)[0], in_numpy(exit_, stream)[0], atol=1e-5)


@pytest.mark.parametrize("value", [1e3, np.inf, -np.inf, np.nan, -1e30])
def test_padding_changes_nothing_whatever_stands_there(value):
    exit_, stream = exit_of(LAYOUTS["masked tokens"]), stream_of("masked tokens")
    expected = in_onnx(exit_, stream)
    filled = np.where(MASK[:, :, None] > 0, stream, np.float32(value))
    longer = np.pad(filled, [(0, 0), (0, 3), (0, 0)], constant_values=value)
    for padded, mask in ((filled, MASK), (longer, np.pad(MASK, [(0, 0), (0, 3)]))):
        for got, one in zip(in_onnx(exit_, padded, mask), expected, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_all_padding_is_not_inside():
    exit_, stream = exit_of(LAYOUTS["masked tokens"]), stream_of("masked tokens")
    distance = in_onnx(exit_, stream, np.zeros_like(MASK))[2]
    assert not (distance <= np.inf).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["vector", "tokens", "signal", "picture", "strip of one column"])
def test_what_is_not_finite_has_no_distance(name, value):
    exit_, stream = exit_of(LAYOUTS[name]), stream_of(name)
    stream.reshape(ROWS, -1)[1, 2] = value
    finite = np.isfinite(in_onnx(exit_, stream)[2])
    assert finite.tolist() == [row != 1 for row in range(ROWS)]


def test_fp16_streams_are_read_in_fp32():
    # The norm of six numbers of 30,000 lies beyond FP16.
    exit_ = exit_of(LAYOUTS["vector"], "norm")
    stream = np.full((ROWS, WIDTH), 30_000, np.float16)
    got = in_onnx(exit_, stream, dtype=TensorProto.FLOAT16)
    np.testing.assert_allclose(got[1], np.float32(30_000 * WIDTH**0.5), rtol=1e-3)
    assert all(one.dtype == np.float32 and np.isfinite(one).all() for one in got)


def test_a_cut_that_only_guards_says_the_distance_alone():
    exit_ = replace(exit_of(LAYOUTS["vector"]), leaves=False)
    value = helper.make_tensor_value_info("stream", TensorProto.FLOAT, ["batch", WIDTH])
    model = exit_model(exit_, value, {}, [helper.make_opsetid("", 18)])
    assert [one.name for one in model.graph.output] == ["exit/distance"]


CONV, NONE = frozenset({"Conv", "Add"}), frozenset({"MatMul", "Add"})
SHAPES = [
    ((-1, 8), NONE, "", Layout("vector", (8,))),
    ((-1, -1, 8), NONE, "mask", Layout("tokens", (-1, 8), mask="mask")),
    ((-1, 8, 20), CONV, "", Layout("channels", (8, 20))),
    ((-1, 20, 8), NONE, "", Layout("tokens", (20, 8))),
    ((-1, 8, 14, 14), CONV, "", Layout("channels", (8, 14, 14))),
    ((-1, 14, 14, 8), CONV, "", Layout("channels", (8, 14, 14), channels_last=True)),
    ((-1, -1, -1, 8), CONV, "", Layout("channels", (8, -1, -1), channels_last=True)),
    ((-1, -1), NONE, "", None),
    ((-1, 20, -1), NONE, "", None),
    ((-1,), NONE, "", None),
    ((-1, 2, 3, 4, 5), CONV, "", None),
]


@pytest.mark.parametrize(("shape", "ahead", "mask", "expected"), SHAPES)
def test_a_layout_is_told_by_shape_and_by_what_reads_it(shape, ahead, mask, expected):
    assert layout_of(shape, ahead, mask) == expected
