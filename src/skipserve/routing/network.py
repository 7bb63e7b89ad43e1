"""A graph that is to be routed: its blocks, its signature, its task."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from skipserve.errors import CutError
from skipserve.graph.blocks import FoundBlocks, find_blocks
from skipserve.graph.cut import Stage, cut
from skipserve.graph.flow import Flow
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature
from skipserve.tasks import Task


@dataclass(frozen=True)
class Network:
    """A graph that is to be routed.

    Attributes:
        model: The plain graph, prepared for cutting.
        flow: Of that graph.
        found: Its blocks.
        signature: Of the network.
        task: What its answer is.
        blocks: Places in ``found.blocks`` of the blocks that count: all, or every so many where a
            network is known to be built of larger steps.
    """

    model: onnx.ModelProto
    flow: Flow
    found: FoundBlocks
    signature: Signature
    task: Task
    blocks: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Blocks of the network."""
        return len(self.blocks)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The stream before each block."""
        return tuple(self.found.blocks[i].start for i in self.blocks)


def network_of(
    model: onnx.ModelProto, signature: Signature, task: Task, depth: int | None = None
) -> Network:
    """Find the blocks of a graph.

    Args:
        model: Prepared for cutting; its first output is the answer.
        signature: Of it.
        task: What its answer is.
        depth: How many blocks the network is known to have, each of which may be several in the
            graph; ``None`` takes what is found.

    Raises:
        CutError: If there are none, or other than are known.
    """
    flow = Flow(model)
    found = find_blocks(flow, flow.outputs[0])
    count = len(found.blocks)
    if depth is None:
        return Network(model, flow, found, signature, task, tuple(range(count)))
    stem = count % depth if found.chain else 0  # layers before the first block
    if count < depth or (count - stem) % depth:
        raise CutError(f"{count} blocks were found in the graph of a network of {depth}")
    return Network(model, flow, found, signature, task, tuple(range(stem, count, count // depth)))


def tail_of(network: Network, rows: Rows) -> tuple[Stage, tuple[int, ...]]:
    """The network's own head, for exits that share it, and the shape of the stream it reads."""
    symbols = network.signature.symbols
    stages = cut(network.flow, network.found, [network.found.last], rows.tensors, symbols)
    return stages.stages[1], stages.shapes[0]
