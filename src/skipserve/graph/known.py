"""Bounds of integer inputs: the rows of the tables (embeddings) that they index."""

from __future__ import annotations

import onnx

# Nodes that pass integers on unchanged.
SAME = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze"})


def known_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Rows of the smallest table that each input indexes, by input.

    Args:
        model: Numbers beyond that cannot be run. Inputs that choose from none are left out.
    """
    tables = {one.name: one.dims[0] for one in model.graph.initializer if one.dims}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].t.dims:
            tables[node.output[0]] = node.attribute[0].t.dims[0]
    origin = {one.name: one.name for one in model.graph.input}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in SAME and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origin:
            axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
            if axis == 0:
                name = origin[node.input[1]]
                counts[name] = min(counts.get(name, tables[node.input[0]]), tables[node.input[0]])
    return counts
