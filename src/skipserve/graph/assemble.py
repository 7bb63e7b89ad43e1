"""Assembling stages with their exits, and exits as graphs of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from skipserve.graph.builder import GraphBuilder
from skipserve.graph.cut import Stage, Stages
from skipserve.graph.exit_graph import build_exit
from skipserve.graph.prepare import IR_VERSION
from skipserve.routing.exits import Exit

# Outputs of a stage beside its stream.
ANSWER, SIGNAL, DISTANCE = "exit/answer", "exit/signal", "exit/distance"


def with_exits(
    stages: Stages,
    exits: Sequence[Exit],
    inputs: Sequence[onnx.ValueInfoProto],
    tail: Stage | None = None,
) -> list[onnx.ModelProto]:
    """Put each exit into the stage whose stream it reads.

    Args:
        stages: One more than there are exits: nothing is read behind the last.
        exits: In order.
        inputs: Of the network.
        tail: From the last stream to the answer; what exits without a head of their own answer by.
    """
    known = {one.name: one for one in inputs}
    known |= {one.name: one for stage in stages.stages for one in stage.model.graph.input}
    models = [
        _with_exit(stage, exit_, known, tail)
        for stage, exit_ in zip(stages.stages, exits, strict=False)
    ]
    return [*models, stages.stages[-1].model]


def exit_model(
    exit_: Exit,
    stream: onnx.ValueInfoProto,
    known: Mapping[str, onnx.ValueInfoProto],
    opset: Sequence[onnx.OperatorSetIdProto],
    tail: Stage | None = None,
) -> onnx.ModelProto:
    """An exit as a graph of its own, for ``skip``, where rows rejoin before the stream is read."""
    graph = onnx.GraphProto(name="exit")
    graph.input.append(stream)
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return _add_exit(model, stream.name, exit_, known, tail)


def _with_exit(
    stage: Stage, exit_: Exit, known: Mapping[str, onnx.ValueInfoProto], tail: Stage | None
) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(stage.model)
    return _add_exit(model, stage.stream, exit_, known, tail)


def _add_exit(
    model: onnx.ModelProto,
    stream: str,
    exit_: Exit,
    known: Mapping[str, onnx.ValueInfoProto],
    tail: Stage | None,
) -> onnx.ModelProto:
    graph = model.graph
    here = {one.name for one in (*graph.input, *graph.initializer)}
    here |= {name for node in graph.node for name in node.output}

    def bring(name: str) -> str:
        if name not in here:
            graph.input.append(known[name])
            here.add(name)
        return name

    builder = GraphBuilder("exit/")
    own = ""
    if exit_.leaves and exit_.head is None:
        assert tail is not None
        others = {name: bring(name) for name in tail.inputs[1:]}
        (own,) = builder.inline(tail.model, {tail.inputs[0]: stream, **others}).values()
    if exit_.layout.mask:
        bring(exit_.layout.mask)
    read = build_exit(builder, stream, exit_, own)
    names = {DISTANCE: read.distance}
    if exit_.leaves:
        names |= {ANSWER: read.answer, SIGNAL: read.signal}
    for name, value in names.items():
        builder.name_it(value, name)
        shape = [None, None] if name == ANSWER else [None]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.node.extend(builder.nodes)
    graph.initializer.extend(builder.initializers)
    return model
