"""The network up to one exit as a graph of its own: what a fixed depth would be served as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from skipserve.graph.assemble import ANSWER
from skipserve.graph.builder import GraphBuilder
from skipserve.graph.prepare import IR_VERSION


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
    builder.name_it(tensors[ANSWER], "answer")
    (answer,) = (one for one in stages[-1].graph.output if one.name == ANSWER)
    answer.name = "answer"
    nodes = _needed(builder.nodes, answer.name)
    read = {name for node in nodes for name in node.input}
    weights = [one for one in builder.initializers if one.name in read]
    graph = helper.make_graph(nodes, "fixed", list(inputs.values()), [answer], weights)
    return helper.make_model(graph, opset_imports=stages[0].opset_import, ir_version=IR_VERSION)


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that lead to an output, in the same order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
