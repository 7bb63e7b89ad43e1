"""Finding the blocks of a network: where everything flows through, and what lies between.

A tensor through which every path from the main input to the output passes is a *dominator* of the
output (Lengauer and Tarjan, 1979). The residual stream after a block is one; between two of them
lies a region with more than one path: the block.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from skipserve.errors import CutError
from skipserve.graph.flow import SIZES, Flow

# Nodes that hold the weights of a network. A region without one is a normalisation or an
# activation written out, not a block.
WEIGHTED = frozenset(
    {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU"}
    | {"MatMulInteger", "QLinearMatMul", "QLinearConv", "ConvInteger"}
)
# Nodes that change how numbers are written, not what they are.
SAME = frozenset({"Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose"})
# Fewer blocks than this leave nothing to route.
FEWEST = 2


@dataclass(frozen=True)
class Block:
    """One block: what lies between two dominators.

    Attributes:
        start: The stream before it.
        end: The dominator where its paths meet again.
        residual: Whether the paths meet in a sum, one of them being the stream itself.
    """

    start: str
    end: str
    residual: bool


@dataclass(frozen=True)
class FoundBlocks:
    """The blocks of a graph.

    Attributes:
        source: The main input.
        output: The output that everything flows to.
        blocks: In order.
        last: The stream after the last block, which the network's head reads.
        around: Tensors that flow around blocks; they travel with the stream.
        chain: Whether there is one path alone: its layers take the place of blocks.
    """

    source: str
    output: str
    blocks: tuple[Block, ...]
    last: str
    around: tuple[str, ...] = ()
    chain: bool = False

    @property
    def residual(self) -> bool:
        """Whether every block can be left out: its stream is a sum with what came in."""
        return all(block.residual for block in self.blocks)


@dataclass
class _Path:
    """Nodes between a source and the output, in order."""

    flow: Flow
    source: str
    output: str
    # Edges that do not count: a tensor, and the place of the first reader that is left out.
    ignored: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _, behind = self.flow.behind([self.source])
        self.order = sorted(behind & self.flow.before(self.output))
        self.place = {node: i for i, node in enumerate(self.order)}

    def reads(self, tensor: str) -> list[int]:
        """Positions on the path of the nodes that read a tensor's values."""
        nodes = self.flow.nodes
        limit = self.ignored.get(tensor, len(nodes))
        return [
            self.place[node]
            for node in self.flow.readers.get(tensor, ())
            if node in self.place and nodes[node].op_type not in SIZES and node < limit
        ]

    def dominators(self) -> list[str]:
        """Tensors that all of the path flows through, in order, the output last."""
        farthest = max(self.reads(self.source), default=-1)
        found = []
        for i, node in enumerate(self.order):
            outputs = [name for name in self.flow.nodes[node].output if name]
            read = [name for name in outputs if self.reads(name) or name == self.output]
            if farthest <= i and len(read) == 1:
                found.append(read[0])
            farthest = max([farthest, *(p for name in outputs for p in self.reads(name))])
        return found

    def weighted(self, start: str, end: str) -> int:
        """Weighted nodes between two dominators."""
        first = self.place[self.flow.maker[start]] if start in self.flow.maker else -1
        last = self.place[self.flow.maker[end]]
        kinds = (self.flow.nodes[node].op_type for node in self.order[first + 1 : last + 1])
        return sum(kind in WEIGHTED for kind in kinds)

    def blocks(self) -> list[Block]:
        """Regions of more than one path that hold weights."""
        found = []
        dominators = [self.source, *self.dominators()]
        for start, end in pairwise(dominators):
            if len(self.reads(start)) > 1 and self.weighted(start, end):
                found.append(Block(self._float(start), end, self._adds(start, end)))
        return found

    def _adds(self, start: str, end: str) -> bool:
        """Whether a dominator is the sum of an earlier one and something else."""
        meets = self.flow.nodes[self.flow.maker[end]]
        if meets.op_type not in ("Add", "Sum"):
            return False
        for name in meets.input:
            while name != start and name in self.flow.maker:
                node = self.flow.nodes[self.flow.maker[name]]
                if node.op_type not in SAME:
                    break
                name = node.input[0]
            if name == start:
                return True
        return False

    def _float(self, tensor: str) -> str:
        """A tensor before it was quantised, if it was: numbers are read off that."""
        place = self.flow.maker.get(tensor)
        if place is None or self.flow.nodes[place].op_type != "QuantizeLinear":
            return tensor
        before: str = self.flow.nodes[place].input[0]
        return before if len(self.reads(before)) == 1 else tensor

    def after(self, blocks: Sequence[Block]) -> str:
        """The stream after the last block: made of its end as the stream before it was.

        What stands between two blocks, such as a norm behind the sum, belongs to the first.
        """
        if not blocks:
            return ""
        dominators = [self.source, *self.dominators()]
        end = dominators.index(blocks[-1].end)
        before, start = blocks[-2].end if len(blocks) > 1 else "", blocks[-1].start
        if before not in dominators or start not in dominators:
            return blocks[-1].end
        between = dominators[dominators.index(before) + 1 : dominators.index(start) + 1]
        behind = dominators[end + 1 : end + 1 + len(between)]
        if not between or self._kinds(between) != self._kinds(behind):
            return blocks[-1].end
        return behind[-1]

    def _kinds(self, tensors: Sequence[str]) -> list[str]:
        return [self.flow.nodes[self.flow.maker[name]].op_type for name in tensors]

    def is_chain(self, layers: Sequence[Block]) -> bool:
        """Whether no layer holds most of the weights, as one does that everything flows around."""
        weights = [self.weighted(layer.start, layer.end) for layer in layers]
        return max(weights) < FEWEST or 2 * max(weights) <= sum(weights)

    def layers(self) -> list[Block]:
        """Weighted nodes of a chain: what takes the place of blocks where there are none."""
        found: list[Block] = []
        dominators = [self.source, *self.dominators()]
        for start, end in pairwise(dominators):
            if self.weighted(start, end):
                found.append(Block(start, end, residual=False))
        return found


def find_blocks(flow: Flow, output: str) -> FoundBlocks:
    """Find the blocks that lead to an output, from the input that shows most of them.

    Args:
        flow: The graph.
        output: Name of one of its outputs.

    Raises:
        CutError: If there are none; it names the tensor that flows around them, if one does.
    """
    if any(_nested(node) for node in flow.nodes):
        kinds = sorted({node.op_type for node in flow.nodes if _nested(node)})
        raise CutError(
            f"the graph holds control flow ({', '.join(kinds)}), which cannot be cut; export the "
            "network without it"
        )
    best = max((_search(flow, source, output) for source in flow.inputs), key=_rank, default=None)
    if best is not None and len(best.blocks) >= FEWEST:
        return best
    chains = [_Path(flow, source, output) for source in flow.inputs]
    for path in chains:
        layers = path.layers()
        if len(layers) > FEWEST and path.is_chain(layers):
            # The last layer is the head: it is read at the end, not left out.
            return FoundBlocks(
                path.source, output, tuple(layers[:-1]), layers[-1].start, chain=True
            )
    widest = _widest(chains) if chains else ""
    raise CutError(
        "no block was found between the inputs and "
        f"{output!r}: fewer than {FEWEST} tensors carry everything"
        + (f"; {widest!r} flows around the others" if widest else "")
    )


def _nested(node: object) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)  # type: ignore[attr-defined]


def _rank(found: FoundBlocks) -> int:
    return len(found.blocks)


def _search(flow: Flow, source: str, output: str) -> FoundBlocks:
    """Blocks from one input, letting tensors that many blocks read travel beside the stream."""
    path = _Path(flow, source, output)
    blocks, around = path.blocks(), []
    for _ in range(3):
        tensor = _widest([path])
        better = _best_limit(path, tensor, len(blocks)) if tensor else None
        if better is None:
            break
        path.ignored[tensor] = better
        around.append(tensor)
        blocks = path.blocks()
    return FoundBlocks(source, output, tuple(blocks), path.after(blocks), tuple(around))


def _best_limit(path: _Path, tensor: str, blocks: int) -> int | None:
    """The reader of ``tensor`` from which on it is beside the stream, if that shows more blocks."""
    most, best = blocks + 1, None
    for reader in sorted(set(path.flow.readers[tensor]))[1:]:
        trial = _Path(path.flow, path.source, path.output, {**path.ignored, tensor: reader})
        found = len(trial.blocks())
        if found > most:
            most, best = found, reader
    return best


def _widest(paths: Collection[_Path]) -> str:
    """The tensor whose readers lie farthest apart, if that is half of the path."""
    widest, span = "", 0
    for path in paths:
        for node in path.order:
            for name in path.flow.nodes[node].output:
                reads = path.reads(name) if name else []
                if len(reads) > 1 and reads[-1] - reads[0] > max(span, len(path.order) // 2):
                    widest, span = name, reads[-1] - reads[0]
    return widest
