"""The network up to one exit as a graph of its own: what a fixed depth would be served as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper
from onnx.utils import Extractor

from skipserve.graph.assemble import ANSWER
from skipserve.graph.builder import GraphBuilder
from skipserve.graph.prepare import IR_VERSION

OUTPUT = "answer"


def fixed_depth(files: Sequence[Path]) -> onnx.ModelProto:
    """Put stages together and leave out every exit but the last.

    Args:
        files: Of the first stages, in order, under the policy ``exit``; the last one has an exit
            that rows leave by.

    Returns:
        A graph from the inputs of the network to the answer of that exit [batch, width] float32.
    """
    stages = [onnx.load(file) for file in files]
    builder = GraphBuilder()
    inputs: dict[str, onnx.ValueInfoProto] = {}
    tensors: dict[str, str] = {}
    for stage in stages:
        for one in stage.graph.input:
            if one.name not in tensors:
                inputs[one.name] = one
                tensors[one.name] = one.name
        names = {one.name: tensors[one.name] for one in stage.graph.input}
        tensors |= builder.inline(stage, names)
    builder.name_it(tensors[ANSWER], OUTPUT)
    (answer,) = (one for one in stages[-1].graph.output if one.name == ANSWER)
    answer.name = OUTPUT
    graph = helper.make_graph(
        builder.nodes, "fixed", list(inputs.values()), [answer], builder.initializers
    )
    opset = stages[0].opset_import
    whole = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    # Leaves out what reads the other exits.
    return Extractor(whole).extract_model(list(inputs), [OUTPUT])
