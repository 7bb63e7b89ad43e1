"""A network to one file: ONNX through ``torch.export``, or frozen TorchScript."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from skipserve.artifacts.manifest import Format, Precision
from skipserve.artifacts.pieces import export_module
from skipserve.artifacts.routed_graph import assemble, export_pieces
from skipserve.networks import ResidualNetwork
from skipserve.routing.routed import RoutedNetwork, Router

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class FullDepth(nn.Module):
    """What is exported without a router: raw FP32 rows to FP32 probabilities.

    Scaling stays in FP32 because raw features may lie beyond FP16; softmax because its sum does.
    """

    def __init__(self, network: ResidualNetwork, precision: Precision) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        self.dtype = DTYPES[precision]
        self.scaling = network.scaling
        self.body = nn.Sequential(network.stem, *network.blocks, network.pool, network.head)
        self.body.to(self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.body(self.scaling(inputs).to(self.dtype))
        return logits.float().softmax(dim=-1)


def write_model(
    network: ResidualNetwork,
    format: Format,
    precision: Precision,
    file: Path,
    router: Router | None = None,
) -> None:
    """Export ``network`` with a dynamic batch, with its router inside if it has one.

    The inputs and outputs are those of :class:`RoutedNetwork`; without a router, ``inputs`` and
    ``probabilities`` alone.
    """
    rows = torch.zeros(2, *network.config.inputs)
    with _quietly():
        if router is None:
            module = FullDepth(network, precision).eval()
            if format == "onnx":
                _save_onnx(export_module(module, rows, "probabilities"), file)
            else:
                _save_torchscript(_trace(module, rows), file)
            return
        routed = RoutedNetwork(network, router, DTYPES[precision]).eval()
        if format == "onnx":
            _save_onnx(assemble(export_pieces(routed, rows), routed), file)
        else:
            _save_torchscript(_script(routed, rows), file)


def _save_onnx(model: onnx.ModelProto, file: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _save_torchscript(module: torch.jit.ScriptModule, file: Path) -> None:
    torch.jit.save(torch.jit.freeze(module.eval()), file)


@torch.no_grad()
def _trace(module: nn.Module, rows: Tensor) -> torch.jit.ScriptModule:
    traced = torch.jit.trace(module, (rows,))  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


@torch.no_grad()
def _script(routed: RoutedNetwork, rows: Tensor) -> torch.jit.ScriptModule:
    # The pieces are traced, so that only the loop over them has to be understood by the compiler.
    stream = routed.entry(rows)
    pooled = routed.pool(stream)
    routed.signals = nn.ModuleList(_trace(signal, pooled) for signal in routed.signals)
    routed.answer = _trace(routed.answer, routed.first_exit(pooled))
    routed.first_exit = _trace(routed.first_exit, pooled)
    routed.exits = nn.ModuleList(_trace(leave, pooled) for leave in routed.exits)
    routed.guard = _trace(routed.guard, stream)  # type: ignore[assignment]
    routed.pool = _trace(routed.pool, stream)
    routed.stages = nn.ModuleList(_trace(stage, stream) for stage in routed.stages)
    routed.entry = _trace(routed.entry, rows)  # type: ignore[assignment]
    scripted = torch.jit.script(routed)
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    # TorchScript is deprecated and says so at each call; the exporter prints its progress.
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
