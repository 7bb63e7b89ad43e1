"""Cutting a graph into stages at its dominators.

Three things cross a cut beside the stream:

- *side rows*: tensors made before the first cut with one entry a row (attention masks). They travel
  with the stream and lose the same rows.
- *sizes*: integers that depend on the batch. In a stage with fewer rows they would be wrong, so
  their arithmetic is copied into the stage and fed with the sizes of what the stage gets.
- *constants* of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from skipserve.errors import CutError
from skipserve.graph.blocks import FoundBlocks
from skipserve.graph.flow import SIZES, Flow
from skipserve.graph.layout import in_blocks
from skipserve.graph.prepare import IR_VERSION
from skipserve.graph.probe import Feeds, probed, read_tensors


@dataclass(frozen=True)
class Stage:
    """A stage: the graph between two cuts.

    Attributes:
        model: From the stream before it (and side rows) to the stream behind it.
        stream: Name of the stream it makes; of the answer, for the last stage.
    """

    model: onnx.ModelProto
    stream: str

    @property
    def inputs(self) -> list[str]:
        """Names of its inputs: the stream before it, side rows, inputs of the network."""
        return [one.name for one in self.model.graph.input]


@dataclass(frozen=True)
class Stages:
    """A graph in pieces.

    Attributes:
        stages: In order; one more than there are cuts.
        sides: Side rows, which the first stage gives beside its stream.
        shapes: Of each stream, by cut; −1 where it varies.
    """

    stages: tuple[Stage, ...]
    sides: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def cut(
    flow: Flow,
    found: FoundBlocks,
    cuts: Sequence[str],
    example: Mapping[str, NDArray[Any]],
    symbols: Mapping[str, Sequence[Any]],
) -> Stages:
    """Cut a graph at some of its streams.

    Args:
        flow: The graph.
        found: Its blocks.
        cuts: Streams to cut at, in order.
        example: Some real rows of every input [N, …].
        symbols: Dimensions of every input: a number, or a name where it is free.

    Raises:
        CutError: If something flows past a cut that has no entry a row.
    """
    return probed(
        example, symbols, lambda feeds: _Cutter(flow, found, list(cuts), feeds, symbols).run()
    )


@dataclass
class _Cutter:
    flow: Flow
    found: FoundBlocks
    cuts: list[str]
    feeds: list[Feeds]
    symbols: Mapping[str, Sequence[Any]]
    section: dict[str, int] = field(default_factory=dict)
    sides: dict[str, None] = field(default_factory=dict)
    copied: set[str] = field(default_factory=set)
    sizes: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def run(self) -> Stages:
        self._place()
        self._measure_sizes()
        stages = [self._stage(i) for i in range(1, len(self.cuts) + 1)]
        values = read_tensors(self.flow.model, [*self.cuts, *self.sides], self.feeds)
        while no_rows := {name for name in self.sides if not self._is_rows(name, values)}:
            self.copied |= (
                no_rows  # computed again in each stage, from tensors with one entry a row
            )
            self.sides.clear()
            stages = [self._stage(i) for i in range(1, len(self.cuts) + 1)]
            values = read_tensors(self.flow.model, [*self.cuts, *self.sides], self.feeds)
        stages.insert(0, self._stage(0))
        shapes = [
            tuple(
                int(size) if len({one[name].shape[axis] for one in values}) == 1 else -1
                for axis, size in enumerate(values[0][name].shape)
            )
            for name in self.cuts
        ]
        known = dict(zip(self.cuts, shapes, strict=True))
        models = [self._model(i, stage, values[0], known) for i, stage in enumerate(stages)]
        for model, name in zip(models[1:], self.cuts, strict=True):
            in_blocks(model, name, known[name])
        names = [*self.cuts, self.found.output]
        made = tuple(Stage(model, name) for model, name in zip(models, names, strict=True))
        return Stages(made, tuple(self.sides), tuple(shapes))

    def _place(self) -> None:
        """Find the section of every tensor: the number of cuts before it."""
        behind = {name: i + 1 for i, name in enumerate(self.cuts)}
        for name in (*self.flow.inputs, *self.flow.constants):
            self.section[name] = behind.get(name, 0)
        for place, node in enumerate(self.flow.nodes):
            for name in node.output:
                self.section[name] = behind.get(name, self.section_of_node(place))

    def _measure_sizes(self) -> None:
        nodes = [node for node in self.flow.nodes if node.op_type in SIZES]
        names = [node.output[0] for node in nodes]
        runs = read_tensors(self.flow.model, names, self.feeds)
        self.sizes = {name: [np.atleast_1d(run[name]) for run in runs] for name in names}

    def section_of_node(self, place: int) -> int:
        """The section in which a node runs."""
        node = self.flow.nodes[place]
        if node.op_type in SIZES:  # known from the batch in every section
            return 0
        return max((self.section[one] for one in node.input if one), default=0)

    def origin(self, values: list[int]) -> int | tuple[str, int] | None:
        """The origin of a size, inferred from probes: a number, or a dimension of a tensor.

        The empty name stands for the stream, whose first dimension is the batch.
        """
        if len(set(values)) == 1:
            return values[0]
        if values == [len(next(iter(feeds.values()))) for feeds in self.feeds]:
            return "", 0
        for name in self.flow.inputs:
            for axis, size in enumerate(self.symbols[name]):
                free = axis and not isinstance(size, int)
                if free and values == [feeds[name].shape[axis] for feeds in self.feeds]:
                    return name, axis
        return None

    def _is_rows(self, name: str, values: list[Feeds]) -> bool:
        batches = [len(next(iter(feeds.values()))) for feeds in self.feeds]
        rows = [one[name].shape[:1] for one in values] == [(batch,) for batch in batches]
        if self.section[name] == 0:
            return rows
        raise CutError(
            f"{name!r} is made behind {self.cuts[self.section[name] - 1]!r} and read behind a "
            "later cut: it flows around the stream, so rows cannot leave there"
        )

    def _stage(self, i: int) -> _Draft:
        draft = _Draft(self, i)
        for name in [self.cuts[i] if i < len(self.cuts) else self.found.output]:
            draft.want(name)
        if i == 0:
            for name in self.sides:
                draft.want(name)
        return draft

    def _model(
        self,
        i: int,
        draft: _Draft,
        values: Mapping[str, NDArray[Any]],
        shapes: Mapping[str, Sequence[int]],
    ) -> onnx.ModelProto:
        graph = self.flow.model.graph
        known: dict[str, onnx.ValueInfoProto] = {
            one.name: one for one in (*graph.input, *graph.output)
        }

        def info(name: str) -> onnx.ValueInfoProto:
            if name in known:
                return known[name]
            kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
            shape = shapes.get(name, [-1] * values[name].ndim)
            return helper.make_tensor_value_info(name, kind, [n if n >= 0 else None for n in shape])

        stream = self.cuts[i] if i < len(self.cuts) else self.found.output
        made = helper.make_graph(
            draft.ordered(),
            f"stage{i}",
            [info(name) for name in draft.external],
            [info(name) for name in ([stream, *self.sides] if i == 0 else [stream])],
            [*draft.constants.values(), *draft.made_constants],
        )
        return helper.make_model(
            made, opset_imports=self.flow.model.opset_import, ir_version=IR_VERSION
        )


class _Draft:
    """The nodes of one stage, collected backwards from its outputs."""

    def __init__(self, cutter: _Cutter, i: int) -> None:
        self._cutter = cutter
        self._flow = cutter.flow
        self._i = i
        self._stream = cutter.cuts[i - 1] if i else ""
        self._places: set[int] = set()
        self._extra: list[onnx.NodeProto] = []
        self._seen: set[str] = set()
        self.external: dict[str, None] = {}
        self.constants: dict[str, onnx.TensorProto] = {}
        self.made_constants: list[onnx.TensorProto] = []

    def want(self, name: str) -> None:
        """Add every node that ``name`` depends on."""
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one and one not in self._seen:
                self._seen.add(one)
                waiting += self._take(one, is_output=one == name)

    def _take(self, name: str, is_output: bool) -> list[str]:
        if name in self._flow.constants:
            self.constants[name] = self._flow.constants[name]
            return []
        if name == self._stream and not is_output:
            self.external[name] = None
            return []
        place = self._flow.maker.get(name)
        if place is None:
            self.external[name] = None
            if is_output and self._i == 0:  # a cut at the input itself
                self._extra.append(helper.make_node("Identity", [name], [name + "/stream"]))
            return []
        node = self._flow.nodes[place]
        if node.op_type in SIZES and self._cutter.section[node.input[0]] != self._i:
            return self._size(node)
        earlier = self._cutter.section_of_node(place) < self._i
        if earlier and name in self._flow.follows_inputs and name not in self._cutter.copied:
            self._cutter.sides[name] = None
            self.external[name] = None
            return []
        self._places.add(place)
        return list(node.input)

    def _size(self, node: onnx.NodeProto) -> list[str]:
        """Compute a size of a tensor outside the stage from tensors inside it."""
        name = node.output[0]
        parts, needs = [], []
        for element, values in enumerate(zip(*self._cutter.sizes[name], strict=True)):
            source = self._cutter.origin([int(value) for value in values])
            part = f"{name}/size{element}"
            if source is None:  # no known dimension has this size: carry the tensor itself
                self._cutter.sides[node.input[0]] = None
                self.external[node.input[0]] = None
                self._extra.append(node)
                return []
            if isinstance(source, int):
                self.made_constants.append(
                    numpy_helper.from_array(np.array([source], np.int64), part)
                )
            else:
                tensor, axis = source
                tensor = tensor or self._stream or self._cutter.found.source
                needs.append(tensor)
                self._extra.append(
                    helper.make_node("Shape", [tensor], [part], start=axis, end=axis + 1)
                )
            parts.append(part)
        if node.op_type == "Size":  # a scalar
            scalar = helper.make_node("Squeeze", [parts[0]], [name])
            self._extra.append(scalar)
        else:
            self._extra.append(helper.make_node("Concat", parts, [name], axis=0))
        return needs

    def ordered(self) -> list[onnx.NodeProto]:
        """The nodes in order; those made for sizes come first."""
        return [*self._extra, *(self._flow.nodes[place] for place in sorted(self._places))]
