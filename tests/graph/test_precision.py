"""FP16 and INT8: close to FP32, independent of neighbours, and cut at the same blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from cutting import cut_everywhere, network_from, random_exits, run_stages, sessions_of, write
from onnx import TensorProto, helper, numpy_helper
from residual_graphs import CLASSES, WIDTH, wide

from skipserve.artifacts.graphs import Precisions
from skipserve.graph.memory import open_model
from skipserve.graph.precision import largest_activation, to_int8
from skipserve.runtime.rows import Rows


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("wide") / "wide.onnx"
    onnx.save(wide(), file)
    return network_from(file, CLASSES)


def rows_of(count, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)}


@pytest.mark.parametrize(("precision", "close"), [("fp16", 2e-2), ("int8", 0.4)])
def test_it_answers_nearly_as_fp32_and_alone_as_in_a_batch(network, precision, close):
    rows = rows_of(64, 1)
    expected = open_model(network.model).run(None, rows)[0]
    made = Precisions(network, Rows(rows_of(256)))[precision]
    session = open_model(made.model)
    got = session.run(None, rows)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=close * np.abs(expected).max())
    assert np.abs(got - expected).max() > 0
    single = [session.run(None, {"x": rows["x"][i : i + 1]})[0][0] for i in range(16)]
    np.testing.assert_allclose(single, got[:16], atol=1e-4 if precision == "int8" else 2e-2)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_is_cut_at_the_same_blocks_and_its_stages_are_it(network, precision):
    made = Precisions(network, Rows(rows_of(256)))[precision]
    assert made.depth == network.depth
    stages = cut_everywhere(made, rows_of(8))
    sessions = sessions_of(stages)
    plain = open_model(made.model)
    for count in (1, 2, 7):
        rows = rows_of(count, count)
        keep = np.arange(count) % 2 == 0
        got = run_stages(stages, sessions, rows, 1, keep)
        np.testing.assert_allclose(got, plain.run(None, rows)[0][keep], atol=2e-2)
    kinds = {one.type.tensor_type.elem_type for one in stages.stages[1].model.graph.output}
    assert kinds == {TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_its_files_give_answers_signals_and_distances_in_fp32(network, tmp_path, precision):
    made = Precisions(network, Rows(rows_of(256)))[precision]
    exits = random_exits(made, rows_of(8), range(3), width=CLASSES)
    stepper, plain, _ = write(made, rows_of(8), exits, tmp_path, precision=precision)
    read = stepper.read(Rows(rows_of(8)))
    for one in (read.answers, read.signals, read.distances):
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
    np.testing.assert_allclose(read.answers[:, -1], plain.run(rows_of(8))[0], atol=2e-2)
    weights = {file.name: file.stat().st_size for file in tmp_path.glob("weights.*")}
    assert list(weights) == [f"weights.{precision}.bin"]


def test_int8_weighs_a_quarter(network):
    def bytes_of(model):
        return sum(len(one.SerializeToString()) for one in model.graph.initializer)

    quantised = to_int8(network.model, Rows(rows_of(256)))
    assert bytes_of(quantised) < 0.4 * bytes_of(network.model)


def test_int8_answers_the_same_on_a_cpu_whose_16_bits_would_overflow():
    """Large weights of one sign and large activations: the sum of two products is the largest."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.9, 1.0, (64, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    rows = rng.uniform(0.9, 1.0, (256, 64)).astype(np.float32)
    quantised = to_int8(model, Rows({"x": rows}))
    got = open_model(quantised).run(None, {"x": rows})[0]
    np.testing.assert_allclose(got, rows @ weights, rtol=0.02)
    # What holds on the machine of this test holds on others, because no weight uses its 8th bit.
    stored = [numpy_helper.to_array(one) for one in quantised.graph.initializer]
    whole = [one for one in stored if one.dtype == np.int8 and one.ndim == 2]
    assert len(whole) == 1 and np.abs(whole[0].astype(int)).max() == 64


def test_the_largest_activation_is_that_of_the_rows(network):
    rows = rows_of(32)
    small = largest_activation(network.model, Rows(rows))
    large = largest_activation(network.model, Rows({"x": 1_000 * rows["x"]}))
    assert large == pytest.approx(1_000 * small, rel=1e-3)
    values = open_model(network.model).run(None, rows)[0]
    assert small >= np.abs(values).max() * 0.999
