"""Exports of networks trained here: the plain ONNX graph, and frozen TorchScript."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from skipserve.artifacts.asked import Precision
from skipserve.graph.prepare import prepare
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import Policy
from skipserve.routing.eager import RoutedNetwork
from skipserve.routing.exits import Exit

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
OPSET = 20


class FullDepth(nn.Module):
    """The full-depth network: raw FP32 rows in, FP32 probabilities out.

    Scaling stays in FP32 because raw features may lie beyond FP16; softmax because its sum does.
    """

    def __init__(self, network: ResidualNetwork, precision: Precision = "fp32") -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        self.dtype = DTYPES[precision]
        self.scaling = network.scaling
        self.body = nn.Sequential(network.stem, *network.blocks, network.pool, network.head)
        self.body.to(self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.body(self.scaling(inputs).to(self.dtype))
        return logits.float().softmax(dim=-1)


def plain_graph(network: ResidualNetwork) -> onnx.ModelProto:
    """A network as one ONNX graph, from ``inputs`` to ``probabilities``, batch free."""
    rows = torch.zeros(2, *network.config.inputs)
    return export_module(FullDepth(network).eval(), (rows,), ("inputs",), "probabilities")


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: tuple[str, ...],
    output: str,
    free: tuple[dict[int, str], ...] | None = None,
) -> onnx.ModelProto:
    """Export a module and prepare its graph for cutting.

    Args:
        module: In evaluation mode.
        example: At least two rows of every input.
        inputs: Their names.
        output: Name of its output.
        free: Names of the free dimensions of every input by axis; the batch alone by default.
    """
    names = free or tuple({0: "batch"} for _ in inputs)
    dims = {name: torch.export.Dim(name) for axes in names for name in axes.values()}
    shapes: tuple[Any, ...] = tuple(
        {axis: dims[name] for axis, name in axes.items()} for axes in names
    )
    if any(one.kind is one.VAR_POSITIONAL for one in signature(module.forward).parameters.values()):
        shapes = (shapes,)
    with quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
        file = Path(folder) / "exported.onnx"
        program.save(str(file))
        return prepare(onnx.load(file))


def write_torchscript(
    network: ResidualNetwork,
    precision: Precision,
    file: Path,
    exits: tuple[Exit, ...] = (),
    policy: Policy = "exit",
) -> None:
    """Write a network as TorchScript; with exits, the router is inside."""
    rows = torch.zeros(2, *network.config.inputs)
    with quietly():
        if not exits:
            module = _trace(FullDepth(network, precision).eval(), rows)
        else:
            module = _script(RoutedNetwork(network, exits, policy, DTYPES[precision]).eval(), rows)
        torch.jit.save(torch.jit.freeze(module.eval()), file)


@torch.no_grad()
def _trace(module: nn.Module, rows: Tensor) -> torch.jit.ScriptModule:
    traced = torch.jit.trace(module, (rows,))  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


@torch.no_grad()
def _script(routed: RoutedNetwork, rows: Tensor) -> torch.jit.ScriptModule:
    # Pieces are traced, so that TorchScript compiles only the loop over them.
    scaled = routed.scaling(rows)
    stream = routed.entry(scaled.to(routed.dtype))
    routed.exits = nn.ModuleList(_trace(leave, stream) for leave in routed.exits)
    routed.tail = _trace(routed.tail, stream)  # type: ignore[assignment]
    routed.stages = nn.ModuleList(_trace(stage, stream) for stage in routed.stages)
    routed.entry = _trace(routed.entry, scaled.to(routed.dtype))  # type: ignore[assignment]
    routed.scaling = _trace(routed.scaling, rows)  # type: ignore[assignment]
    scripted = torch.jit.script(routed)
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the deprecation warnings of TorchScript and the progress of the exporter."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
