"""A network's ONNX files in one precision: plain graph, stages, one-file form, weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from skipserve.artifacts.asked import Precision
from skipserve.artifacts.manifest import Role
from skipserve.errors import CutError
from skipserve.graph.assemble import exit_model, with_exits
from skipserve.graph.cut import Stages, cut
from skipserve.graph.one_file import one_file
from skipserve.graph.policy import Parts
from skipserve.graph.precision import to_fp16, to_int8
from skipserve.graph.weights import write_models
from skipserve.routing.config import Policy
from skipserve.routing.exits import Exit
from skipserve.routing.network import Network, network_of, tail_of
from skipserve.runtime.rows import Rows


class Precisions:
    """A network in every precision.

    Each is made once: what heads and guards are fitted on is what is written.

    Args:
        network: In FP32.
        fitting: Rows that the network may have been trained on; INT8 is calibrated on them.
    """

    def __init__(self, network: Network, fitting: Rows) -> None:
        self._fitting = fitting
        self._made: dict[Precision, Network] = {"fp32": network}

    def __getitem__(self, precision: Precision) -> Network:
        """The network in a precision; its blocks are searched again."""
        if precision not in self._made:
            network = self._made["fp32"]
            if precision == "fp16":
                model = to_fp16(network.model)
            else:
                model = to_int8(network.model, self._fitting)
            self._made[precision] = network_of(
                model, network.signature, network.task, network.depth
            )
        return self._made[precision]


def write_graphs(
    network: Network,
    precision: Precision,
    rows: Rows,
    folder: Path,
    exits: tuple[Exit, ...] = (),
    policy: Policy = "exit",
) -> list[tuple[Role, str]]:
    """Write every ONNX file of one precision.

    Args:
        network: In that precision.
        precision: For the names.
        rows: Real rows, to probe the graph with.
        folder: Where to.
        exits: What is read at each cut; none without a router.
        policy: ``exit`` or ``skip``.

    Returns:
        Role and name of each file, in order.

    Raises:
        CutError: If the graph cannot be cut at the exits.
    """
    models: dict[str, onnx.ModelProto] = {}
    roles: list[tuple[Role, str]] = []

    def add(role: Role, name: str, model: onnx.ModelProto) -> None:
        file = f"{name}.{precision}.onnx"
        models[file] = model
        roles.append((role, file))

    if exits:
        for role, name, model in _routed(network, rows, exits, policy):
            add(role, name, model)
    plain = onnx.ModelProto()
    plain.CopyFrom(network.model)
    add("plain", "plain", plain)
    weights = f"weights.{precision}.bin"
    write_models(models, folder, weights)
    return [*roles, ("weights", weights)]


def _routed(
    network: Network, rows: Rows, exits: tuple[Exit, ...], policy: Policy
) -> Iterator[tuple[Role, str, onnx.ModelProto]]:
    cuts = [network.cuts[one.blocks] for one in exits]
    plain, symbols = network.model, network.signature.symbols
    if policy == "skip":
        cuts.append(network.found.last)
    stages = cut(network.flow, network.found, cuts, rows.tensors, symbols)
    tail = tail_of(network, rows)[0] if any(one.head is None for one in exits) else None
    readers: list[onnx.ModelProto] = []
    if policy == "exit":
        models = with_exits(stages, exits, plain.graph.input, tail)
    else:
        _require_one_shape(stages, cuts)
        models = [stage.model for stage in stages.stages]
        known = {one.name: one for one in plain.graph.input}
        known |= {one.name: one for stage in stages.stages for one in stage.model.graph.input}
        readers = [
            exit_model(one, model.graph.output[0], known, plain.opset_import, tail)
            for one, model in zip(exits, models, strict=False)
        ]
    width = network.task.width
    yield "routed", "routed", one_file(Parts(plain, models, exits, network.depth, width, readers))
    for i, model in enumerate(models):
        yield "stage", f"stage{i}", model
    for i, model in enumerate(readers):
        yield "exit", f"exit{i}", model


def _require_one_shape(stages: Stages, cuts: list[str]) -> None:
    if len(set(stages.shapes)) > 1:
        one, other = (
            f"{list(shape)} at {name!r}"
            for shape, name in list(
                {shape: name for name, shape in zip(cuts, stages.shapes, strict=True)}.items()
            )[:2]
        )
        raise CutError(
            f"policy = 'skip' needs one shape of stream throughout, but it is {one} and {other}; "
            "use policy = 'exit'"
        )
