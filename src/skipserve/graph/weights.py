"""Model files that share one file of weights, as ONNX external data.

The plain graph, the stages and the one-file form have the same weights, which are stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

# Smaller constants stay in the model file: shape inference wants to see them.
SMALLEST_BYTES = 1024
# What memory maps want a piece of a file to begin at.
PAGE_BYTES = 4096


def write_models(models: Mapping[str, onnx.ModelProto], folder: Path, weights: str) -> None:
    """Write models whose weights stand in one file.

    Args:
        models: By file name; their weights are taken out of them.
        folder: Where to.
        weights: Name of the file of weights.
    """
    places: dict[str, tuple[int, int]] = {}
    with (folder / weights).open("wb") as file:
        for model in models.values():
            for tensor in all_tensors(model.graph, constants=False):
                raw = numpy_helper.to_array(tensor).tobytes()
                if len(raw) < SMALLEST_BYTES:
                    continue
                key = hashlib.sha256(raw).hexdigest()
                if key not in places:
                    file.seek(-(-file.tell() // PAGE_BYTES) * PAGE_BYTES)
                    places[key] = (file.tell(), len(raw))
                    file.write(raw)
                _move_out(tensor, weights, *places[key])
    for name, model in models.items():
        onnx.save(model, folder / name)
        onnx.checker.check_model(str(folder / name))


def all_tensors(graph: onnx.GraphProto, constants: bool = True) -> list[TensorProto]:
    """Initializers of a graph and of the graphs inside it.

    Args:
        graph: To look through.
        constants: Whether tensors that stand in attributes of nodes are wanted too.
    """
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if constants:
                found += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                found += all_tensors(inner, constants)
    return found


def _move_out(tensor: TensorProto, file: str, offset: int, length: int) -> None:
    kind, dims, name = tensor.data_type, list(tensor.dims), tensor.name
    tensor.Clear()
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(dims)
    # The helper demands that there be something to move.
    tensor.raw_data = b""
    external_data_helper.set_external_data(tensor, file, offset, length)
    tensor.ClearField("raw_data")
