"""Layout of the stream at the start of a stage: the channel blocks of ONNX Runtime.

ONNX Runtime computes two-dimensional convolutions in blocks of channels, and takes the addition
of a residual block into the convolution before it where both sides lie in blocks. A stream that
comes from outside lies in rows: none of a stage's additions would be taken in, and the stream
would go to and fro between the layouts at each block. A pool of 1 × 1, which changes no number,
is the cheapest operator that is computed in blocks: behind it all is as in the uncut graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

# Channels of a block; blocks of twice as many exist too.
BLOCK = 8


def in_blocks(model: onnx.ModelProto, stream: str, shape: Sequence[int]) -> None:
    """Convert the stream of a stage to channel blocks once, where that is faster.

    Args:
        model: The stage; changed in place.
        stream: What it begins with.
        shape: Of the stream, -1 where it varies.
    """
    graph = model.graph
    value = next((one for one in graph.input if one.name == stream), None)
    readers = [node for node in graph.node if stream in node.input]
    # In 8 bits a stream is quantised first, and no such blocks are computed in.
    convolved = any(node.op_type == "Conv" for node in readers)
    if value is None or len(readers) < 2 or not convolved or not _fits(value, shape):
        return
    blocked = f"{stream}/blocked"
    for node in readers:
        for place, name in enumerate(node.input):
            if name == stream and node.op_type != "Shape":
                node.input[place] = blocked
    graph.node.insert(0, helper.make_node("AveragePool", [stream], [blocked], kernel_shape=[1, 1]))


def _fits(value: onnx.ValueInfoProto, shape: Sequence[int]) -> bool:
    is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
    return is_float and len(shape) == 4 and shape[1] > 0 and shape[1] % BLOCK == 0
