"""Reading rows for fitting: the source is read once, and the numbers are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.cores import torch_threads
from skipserve.errors import CutError
from skipserve.routing.activations import read_activations
from skipserve.routing.exits import Layout
from skipserve.routing.heads import fit_head
from skipserve.runtime.rows import Rows

WIDTH, CLASSES = 8, 3


def test_features_are_those_of_the_streams_whatever_the_parts():
    random = np.random.default_rng(0)
    x = random.standard_normal((150, WIDTH)).astype(np.float32)
    weights = random.standard_normal((2, WIDTH, WIDTH)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["first"]),
            helper.make_node("Relu", ["first"], ["second"]),
            helper.make_node("MatMul", ["second", "w1"], ["out"]),
        ],
        "streams",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(one, f"w{i}") for i, one in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    said: list[int] = []
    rows, layouts = Rows({"x": x}), [Layout("vector", (WIDTH,))] * 2
    read = read_activations(
        model, ["first", "second"], layouts, [rows[:70], rows[70:]], said.append
    )
    first = x @ weights[0]
    second = np.maximum(first, 0)
    assert sum(said) == len(rows)
    for found, expected in zip(
        [*read.features, read.answers], [first, second, second @ weights[1]], strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_head_is_the_same_whether_its_features_stand_on_disk_or_in_memory(tmp_path):
    random = np.random.default_rng(0)
    features = random.standard_normal((1_000, 6)).astype(np.float32) * 20 + 3
    targets = random.dirichlet(np.ones(CLASSES), 1_000).astype(np.float32)
    features.tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", np.float32, "r").reshape(-1, 6)
    with torch_threads(1):
        heads = [fit_head(one, targets, 8) for one in (features, mapped)]
    for (weight, bias), (other, shift) in zip(*(head.layers for head in heads), strict=True):
        np.testing.assert_array_equal(weight, other)
        np.testing.assert_array_equal(bias, shift)


def test_what_was_read_is_not_read_again(brought: Path, tmp_path: Path):
    toml = (brought / "export" / "moons.toml").read_text()
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "moons.toml").write_text(toml)
    for name in ("moons.onnx", "rows.npz"):
        (tmp_path / name).write_bytes((brought / name).read_bytes())
    build = read_build_file(tmp_path / "export" / "moons.toml")
    sourced = Sourced(build)
    known = sourced.origin.expected.rows
    for name in ("moons.onnx", "rows.npz"):
        (tmp_path / name).unlink()
    test = sourced.rows.test.rows[: len(known)]
    np.testing.assert_array_equal(test.tensors["point"], known.tensors["point"])
    with pytest.raises(CutError):
        _ = Sourced(build).rows
