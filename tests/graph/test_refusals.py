"""What cannot be brought is refused in one sentence, and nothing outside its folder is read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from residual_graphs import CLASSES, WIDTH, Graph

from skipserve.artifacts.export import export_artifact
from skipserve.artifacts.graphs import Precisions
from skipserve.errors import ConfigError, CutError, ParityError
from skipserve.graph.prepare import prepare, read_graph
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.network import network_of
from skipserve.runtime.rows import Rows
from skipserve.schema import parse
from skipserve.sources.brought import brought_origin, signature_of
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.tasks import Classify, TaskConfig


def fine(blocks=3, **options):
    made = Graph()
    x = "x"
    for _ in range(blocks):
        x = made.block(x)
    return made.model(made.weigh(x, WIDTH, CLASSES), **options)


@pytest.fixture
def bring(tmp_path):
    """Brings a graph with rows; what it makes, or an error."""
    rows = np.random.default_rng(1).standard_normal((400, WIDTH)).astype(np.float32)

    def call(model, data=None, names=(), **options):
        if isinstance(model, onnx.ModelProto):
            onnx.save(model, tmp_path / "model.onnx")
        elif model is not None:
            (tmp_path / "model.onnx").write_bytes(model)
        np.savez(tmp_path / "rows.npz", **(data or {"x": rows}))
        source = SourceConfig(onnx="model.onnx")
        return brought_origin(
            Brought(
                source=source,
                data=DataConfig(rows="rows.npz", **options),
                task=TaskConfig(names=names),
            ),
            tmp_path,
        )

    return call


def refused(call, *arguments, says, **options):
    with pytest.raises((CutError, ConfigError), match=says) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_a_fine_one_is_taken(bring):
    origin, splits = bring(fine())
    assert (origin.network.depth, origin.network.task.classes) == (3, CLASSES)
    assert len(splits.certify) > 0
    assert origin.source.kind == "onnx"


# --- files ---


def test_what_is_no_onnx_file(bring, tmp_path):
    refused(bring, b"not a model", says="model.onnx is not an ONNX file")
    refused(bring, b"", says="model.onnx is not an ONNX file: it holds no graph")
    whole = fine().SerializeToString()
    refused(bring, whole[: len(whole) // 2], says="model.onnx is (not an ONNX file|damaged)")
    refused(read_graph, tmp_path / "nowhere.onnx", says="nowhere.onnx is not there")
    refused(read_graph, tmp_path, says="is not there; name an .onnx file")


def external(model, where):
    """The same model with its first weights in another file."""
    tensor = model.graph.initializer[0]
    raw = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, where)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return model, raw


def test_weights_are_read_from_the_folder_of_the_file_alone(bring, tmp_path):
    model, raw = external(fine(), "weights.bin")
    refused(bring, model, says="its weights file 'weights.bin' is missing; copy it beside it")
    (tmp_path / "weights.bin").write_bytes(raw)
    assert bring(model)[0].network.depth == 3
    outside = tmp_path.parent / "outside.bin"
    outside.write_bytes(raw)
    for where in ("../outside.bin", str(outside), "link.bin"):
        if where == "link.bin":
            (tmp_path / where).symlink_to(outside)
        refused(bring, external(fine(), where)[0], says="'.*outside its folder; they are not read")


def test_nor_are_those_of_a_constant_in_the_graph(bring, tmp_path):
    model, raw = external(fine(), "../outside.bin")
    (tmp_path.parent / "outside.bin").write_bytes(raw)
    tensor = model.graph.initializer.pop(0)
    node = helper.make_node("Constant", [], [tensor.name])
    attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(tensor)
    model.graph.node.insert(0, node)
    refused(bring, model, says="outside its folder; they are not read")


def test_weights_that_are_cut_short(bring, tmp_path):
    model, raw = external(fine(), "weights.bin")
    (tmp_path / "weights.bin").write_bytes(raw[:-8])
    refused(bring, model, says="model.onnx")


def test_an_operator_of_somebody_else(bring):
    made = Graph()
    x = made.op("Sorcery", made.block(made.block("x")), domain="com.example")
    model = made.model(made.weigh(x, WIDTH, CLASSES), domains=["com.example"])
    refused(bring, model, says="needs operators of com.example, which ONNX Runtime does not have")
    made = Graph()
    x = made.op("Sorcery", made.block(made.block("x")))
    refused(bring, made.model(made.weigh(x, WIDTH, CLASSES)), says="model.onnx is damaged.*Sorcery")


def test_an_opset_that_cannot_be_converted(bring):
    made = Graph(opset=5)
    x = made.op("Upsample", made.block(made.block("x")), scales=[1.0, 1.0], mode="nearest")
    model = made.model(made.weigh(x, WIDTH, CLASSES))
    refused(bring, model, says="(opset 5|damaged)")


def test_an_older_opset_is_converted():
    made = Graph(opset=11)
    x = made.op("Softmax", made.weigh(made.block(made.block("x")), WIDTH, CLASSES), axis=1)
    assert prepare(made.model(x)).opset_import[0].version >= 11


# --- graphs ---


def test_a_fixed_batch(bring):
    refused(bring, fine(batch=8), says="batch dimension of 'x' is fixed at 8; export the network")
    made = Graph()  # free by its word alone
    x = made.op("Reshape", made.block(made.block("x")), made.constant(np.array([8, WIDTH])))
    refused(bring, made.model(made.weigh(x, WIDTH, CLASSES)), says="does not run on")


@pytest.mark.parametrize("kind", ["one number", "one a position", "one for all"])
def test_an_output_that_is_not_one_answer_a_row(bring, kind):
    made = Graph()
    x = made.block(made.block("x"))
    if kind == "one number":
        out, shape = made.weigh(x, WIDTH, 1), ["batch", 1]
    elif kind == "one a position":
        out, shape = made.op("Unsqueeze", x, made.constant(np.array([1]))), ["batch", 1, WIDTH]
    else:
        out, shape = made.op("ReduceMean", x, made.constant(np.array([0]))), [1, WIDTH]
    refused(
        bring, made.model(out, shape=shape), says="'out' has shape .* expected one answer a row"
    )


def test_a_dtype_that_is_not_supported():
    model = fine()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(signature_of, model, says="'x' is of dtype string; expected one of float32")


def test_an_answer_that_depends_on_neighbours(bring, tmp_path):
    """As that of a network quantised dynamically: one scale a tensor, from the batch at hand."""
    made = Graph()
    x = "x"
    for _ in range(3):
        q, scale, zero = (f"{name}{len(made.nodes)}" for name in ("q", "s", "z"))
        made.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], [q, scale, zero]))
        x = made.block(made.op("DequantizeLinear", q, scale, zero))
    origin, splits = bring(made.model(made.weigh(x, WIDTH, CLASSES)))
    networks = Precisions(origin.network, splits.fit.rows)
    with pytest.raises(ParityError, match="its answer depends on its neighbours"):
        export_artifact("one", origin, networks, ["onnx"], ["fp32"], tmp_path / "one")
    assert not (tmp_path / "one").exists()


def fit(model, heads="distilled", at="auto", first=0, **router):
    network = network_of(prepare(model), signature_of(model), Classify(classes=CLASSES))
    rows = np.random.default_rng(1).standard_normal((300, WIDTH)).astype(np.float32)
    rows = Rows({"x": rows})
    exits = ExitsConfig(at=at, heads=heads, first=first, hidden=0, corrupted=False)
    return fit_router(network, exits, RouterConfig(**router), rows, rows)


def test_skip_where_the_stream_changes_its_shape():
    made = Graph()
    x = made.block(made.block(made.block("x"), WIDTH, 8), 8, 8)
    model = made.model(made.weigh(x, 8, CLASSES))
    refused(fit, model, policy="skip", says="policy = 'skip' needs .*use policy = 'exit'")
    says = r"own head reads streams of shape \[-1, 8\], but it is \[-1, 6\] at 'x'; set exits.heads"
    refused(fit, model, heads="shared", says=says)


def test_skip_where_there_is_no_residual_path():
    made = Graph()
    x = "x"
    for _ in range(4):
        x = made.op("Relu", made.weigh(x))
    model = made.model(made.weigh(x, WIDTH, CLASSES))
    refused(fit, model, policy="skip", says="policy = 'skip' needs .*use policy = 'exit'")
    assert len(fit(model, policy="exit").exits) >= 1


# --- rows ---


def test_too_few_rows_one_class_alone_and_labels_of_other_classes(bring):
    rows = np.random.default_rng(1).standard_normal((400, WIDTH)).astype(np.float32)
    refused(bring, fine(), {"x": rows[:50]}, says="50 rows; it takes at least 200")
    made = Graph()
    x = made.weigh(made.block(made.block("x")), WIDTH, CLASSES)
    x = made.op("Add", x, made.constant(np.float32([99, 0, 0])))
    refused(bring, made.model(x), says="answers all of .* rows alike")
    data = {"x": rows, "label": np.full(400, 7)}
    refused(bring, fine(), data, labels="label", says="has class 7, the network knows 0 … 2")
    refused(bring, fine(), names=("a", "b"), says="task.names has 2 names for 3 classes")
    refused(bring, fine(), {"y": rows, "z": rows}, says="no column 'x' for the input 'x'")
    rows[3, 2] = np.nan
    refused(bring, fine(), {"x": rows}, says="row 3 holds NaN")


# --- exits ---


@pytest.mark.parametrize(("at", "first", "leave"), [((0, 2), 1, {2}), ("auto", 2, {2, 3})])
def test_no_row_leaves_before_the_first_depth_that_is_asked_for(at, first, leave):
    exits = fit(fine(4), at=at, first=first).exits
    assert (exits[0].blocks, exits[0].leaves) == (0, False)  # for its guard
    assert {one.blocks for one in exits[1:]} <= leave
    assert all(one.leaves for one in exits[1:]) and len(exits) > 1


def test_cuts_that_are_named_before_the_first_exit_only_guard():
    exits = fit(fine(4), at=(1, 2, 3), first=2).exits
    found = [(one.blocks, one.leaves) for one in exits]
    assert found == [(0, False), (1, False), (2, True), (3, True)]
    # Under `skip` there is one guard, and what is left out is what `first` allows.
    skipping = fit(fine(4), at=(1, 2, 3), first=2, policy="skip").exits
    assert [(one.blocks, one.leaves) for one in skipping] == [(0, True), (2, True), (3, True)]


def test_a_first_depth_that_leaves_no_exit():
    refused(fit, fine(4), first=9, says=r"exits.first = 9 leaves no exit: expected 0 … 3")
    with pytest.raises(ConfigError, match=r"first = 3 leaves none of at = \[1, 2\]"):
        parse(ExitsConfig, {"at": [1, 2], "first": 3}, "export/small.toml")
