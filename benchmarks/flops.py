"""What an ONNX graph has to do for one row: multiplications and additions, weights, activations.

    python benchmarks/flops.py net.onnx [--size length=128]

Finds the blocks as `skipserve bring` does, runs the graph once with one row of zeros to see the
shape of every tensor, and counts two operations for each multiplication with a weight (or of two
tensors) in `Conv`, `Gemm` and `MatMul`. Everything else is left out: it is small, and fused. Prints
a section for benchmarks/scaling.toml.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from skipserve.graph.blocks import find_blocks
from skipserve.graph.flow import Flow
from skipserve.graph.prepare import prepare, read_graph
from skipserve.graph.probe import read_tensors

COUNTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Work:
    """What one row costs at full depth.

    Attributes:
        blocks: FLOPs of each block.
        outside: FLOPs before the first block and after the last.
        weights: Numbers in the weights.
        activations: Numbers that counted nodes read and write, without weights.
        kernels: Nodes that compute, each at least one launch on a GPU.
    """

    blocks: tuple[int, ...]
    outside: int
    weights: int
    activations: int
    kernels: int

    def toml(self, name: str) -> str:
        """A section for benchmarks/scaling.toml."""
        return (
            f"[networks.{name}]\nblocks = {len(self.blocks)}\nblock_flops = {sum(self.blocks)}\n"
            f"outside_flops = {self.outside}\nweights = {self.weights}\n"
            f"activations = {self.activations}\nkernels = {self.kernels}\n"
        )


def count(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> Work:
    """Count what a graph does for one row.

    Args:
        model: Prepared for cutting (`skipserve.graph.prepare`); its first output is the answer.
        sizes: Of free dimensions other than the first, by name.

    Raises:
        CutError: If it has no blocks.
        SystemExit: If a free dimension has no size.
    """
    flow = Flow(model)
    nodes = [node for node in flow.nodes if node.op_type in COUNTED]
    wanted = {name for node in nodes for name in (*node.input, *node.output) if name}
    inputs = one_row(flow, sizes or {})
    shapes = {name: values.shape for name, values in inputs.items()}
    shapes |= {name: tuple(flow.constants[name].dims) for name in wanted & flow.constants.keys()}
    unknown = sorted(wanted - shapes.keys())
    (read,) = read_tensors(model, unknown, [inputs])
    shapes |= {name: np.shape(values) for name, values in read.items()}

    flops = {node.output[0]: 2 * products(node, shapes) for node in nodes}
    inside: set[str] = set()
    blocks = []
    for block in find_blocks(flow, flow.outputs[0]).blocks:
        _, after = flow.behind([block.start])
        made = {flow.nodes[place].output[0] for place in after & flow.before(block.end)}
        inside |= made
        blocks.append(sum(flops[name] for name in made & flops.keys()))
    return Work(
        blocks=tuple(blocks),
        outside=sum(value for name, value in flops.items() if name not in inside),
        weights=sum(math.prod(shapes[name]) for name in wanted & flow.constants.keys()),
        activations=sum(
            math.prod(shapes[name])
            for node in nodes
            for name in (*node.input, *node.output)
            if name and name not in flow.constants
        ),
        kernels=len(flow.follows_inputs & {node.output[0] for node in flow.nodes}),
    )


def one_row(flow: Flow, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A row of zeros for every input."""
    rows = {}
    for value in flow.model.graph.input:
        if value.name in flow.inputs:
            tensor = value.type.tensor_type
            rest = [dim.dim_value or dim.dim_param for dim in tensor.shape.dim][1:]
            for free in rest:
                if isinstance(free, str) and free not in sizes:
                    sys.exit(f"the size of {free!r} is free; add --size {free}=NUMBER")
            shape = [1, *(sizes.get(size, size) for size in rest)]
            rows[value.name] = np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return rows


def products(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiplications in one node."""
    made = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":  # weights: [channels out, channels in a group, *kernel]
        return made * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        flipped = any(one.name == "transA" and one.i for one in node.attribute)
        return made * shapes[node.input[0]][0 if flipped else 1]
    return made * shapes[node.input[0]][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the network, as an ONNX file")
    parser.add_argument("--size", action="append", default=[], metavar="NAME=NUMBER")
    asked = parser.parse_args()
    sizes = {name: int(size) for name, size in (one.split("=") for one in asked.size)}
    print(count(prepare(read_graph(asked.file)), sizes).toml(asked.file.stem))


if __name__ == "__main__":
    main()
