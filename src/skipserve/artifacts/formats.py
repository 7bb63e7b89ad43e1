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
from skipserve.networks import ResidualNetwork

OPSET = 20
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class FullDepth(nn.Module):
    """What is exported: raw FP32 rows to FP32 probabilities, in another precision between.

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


def write_model(network: ResidualNetwork, format: Format, precision: Precision, file: Path) -> None:
    """Export ``network`` with a dynamic batch; input ``inputs``, output ``probabilities``."""
    module = FullDepth(network, precision).eval()
    rows = torch.zeros(2, *network.config.inputs)
    if format == "onnx":
        _write_onnx(module, rows, file)
    else:
        _write_torchscript(module, rows, file)


def _write_onnx(module: nn.Module, rows: Tensor, file: Path) -> None:
    with _quietly():
        program = torch.onnx.export(
            module,
            (rows,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["inputs"],
            output_names=["probabilities"],
            dynamic_shapes={"inputs": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


@torch.no_grad()
def _write_torchscript(module: nn.Module, rows: Tensor, file: Path) -> None:
    with _quietly():
        traced = torch.jit.trace(module, (rows,))  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), file)


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
