"""Graphs in FP16 and INT8. A graph is converted first and cut afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skipserve.graph.flow import Flow
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare
from skipserve.runtime.rows import Rows

# What is done to raw features before a network's first weights: it stays in FP32, for raw features
# may lie beyond FP16.
SCALING = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "Reshape", "Unsqueeze", "Flatten"})
# INT8 is calibrated on so many rows.
CALIBRATION_ROWS = 256
# Every activation is kept while a batch runs, so batches are small.
CALIBRATION_BATCH = 16
# Larger numbers are not activations; they mask padding.
MASKING = 1e30
QUANTISED = ("Conv", "MatMul", "Gemm")


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to FP16 between the input scaling and the softmax; inputs and outputs stay FP32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    named = onnx.ModelProto()
    named.CopyFrom(model)
    for i, node in enumerate(named.graph.node):
        node.name = f"node{i}"  # the converter is told by name
    flow = Flow(named)
    kept = [flow.nodes[place].name for place in _scaling(flow)]
    kept += [node.name for node in flow.nodes if node.op_type == "Softmax" and _is_last(flow, node)]
    made = convert_float_to_float16(
        named, keep_io_types=True, node_block_list=kept, disable_shape_infer=False
    )
    for node in made.graph.node:
        node.name = ""
    # Not optimised again: on a CPU that would cast back to FP32 what has no FP16 kernel there.
    sorted_ = OnnxModel(made)
    sorted_.topological_sort()
    result: onnx.ModelProto = sorted_.model
    del result.graph.value_info[:]
    return result


def _scaling(flow: Flow) -> Iterator[int]:
    """Nodes that only scale and reshape a float input."""
    floats = {
        one.name
        for one in flow.model.graph.input
        if one.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for place, node in enumerate(flow.nodes):
        reads = [name for name in node.input if name and name not in flow.constants]
        if node.op_type in SCALING and reads and set(reads) <= floats:
            yield place
            floats.update(node.output)


def _is_last(flow: Flow, node: onnx.NodeProto) -> bool:
    return not set(node.output).isdisjoint(flow.outputs)


def to_int8(model: onnx.ModelProto, rows: Rows) -> onnx.ModelProto:
    """Convert weights and activations to 8 bits, for CPUs.

    Static: the scale of every activation is fixed by calibration (QDQ, weights per channel).
    Dynamic quantisation takes one scale a tensor from the batch at hand, so that a row's answer
    would depend on its neighbours: it is not offered. Weights use 7 of their 8 bits: a CPU without
    VNNI adds two products in 16 bits, which 8-bit weights overflow, and would answer otherwise than
    the CPU that certified (docs/decisions/0050-int8-on-every-cpu.md).

    Args:
        model: The plain graph.
        rows: To calibrate with.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            count = min(len(rows), CALIBRATION_ROWS)
            self._left = iter(
                [
                    rows[i : min(i + CALIBRATION_BATCH, count)].tensors
                    for i in range(0, count, CALIBRATION_BATCH)
                ]
            )

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, source, save_as_external_data=True, location="fp32.bin")
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
        return prepare(onnx.load(target))


def largest_activation(model: onnx.ModelProto, rows: Rows) -> float:
    """Largest absolute value that any float tensor of a graph takes on some rows."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    floats = [
        one.name
        for one in typed.graph.value_info
        if one.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for i, name in enumerate(floats):
        size, most = f"watch/abs{i}", f"watch/max{i}"
        real = f"watch/real{i}"
        watched.graph.node.append(helper.make_node("Abs", [name], [size]))
        # The lowest FP32 number masks padding and is no activation.
        watched.graph.node.append(helper.make_node("Less", [size, "watch/mask"], [f"{real}/is"]))
        watched.graph.node.append(
            helper.make_node("Where", [f"{real}/is", size, "watch/none"], [real])
        )
        watched.graph.node.append(helper.make_node("ReduceMax", [real], [most], keepdims=0))
        watched.graph.output.append(helper.make_tensor_value_info(most, TensorProto.FLOAT, []))
    if not floats:
        return 0.0
    for name, value in (("watch/mask", MASKING), ("watch/none", 0.0)):
        watched.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    session = open_model(watched, arena=False)
    parts = (rows[i : i + CALIBRATION_BATCH] for i in range(0, len(rows), CALIBRATION_BATCH))
    return float(max(np.max(session.run(None, part.tensors)) for part in parts))
