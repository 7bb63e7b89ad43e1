"""The one-file form: the whole router in one ONNX graph, for any ONNX Runtime.

Per cut: what its exit reads, a comparison with the row's threshold, ``Compress`` of the rows that
go on, and one ``If`` that holds the next stage, so that skipped work is not done. It decides as the
stepping engine does (runtime/stepper.py).
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from skipserve.graph.exiting import Exiting
from skipserve.graph.policy import GUARD_LIMIT, THRESHOLDS, Parts
from skipserve.graph.prepare import IR_VERSION
from skipserve.graph.skipping import Skipping


def one_file(parts: Parts) -> onnx.ModelProto:
    """Put stages and exits into one graph.

    Inputs are those of the network, ``thresholds`` [batch, decisions] and ``guard_limit`` [batch];
    outputs its answer, ``depth_run`` [batch] int64 and ``held_back`` [batch] bool.
    """
    builder = Skipping(parts) if parts.readers else Exiting(parts)
    answer, depth, held = builder.build()
    graph, plain = builder.graph, parts.plain.graph
    names = {plain.output[0].name: answer, "depth_run": depth, "held_back": held}
    for name, made_here in names.items():
        graph.name_it(made_here, name)
    decisions = sum(exit_.leaves for exit_ in parts.exits)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        "routed",
        [
            *plain.input,
            value(THRESHOLDS, TensorProto.FLOAT, ["batch", decisions]),
            value(GUARD_LIMIT, TensorProto.FLOAT, ["batch"]),
        ],
        [
            value(plain.output[0].name, TensorProto.FLOAT, ["batch", parts.width]),
            value("depth_run", TensorProto.INT64, ["batch"]),
            value("held_back", TensorProto.BOOL, ["batch"]),
        ],
        graph.initializers,
    )
    return helper.make_model(made, opset_imports=parts.plain.opset_import, ir_version=IR_VERSION)
