"""Exporting a torch module to ONNX with the exporter that makes the faster graph.

They differ by up to 17 % for the same weights, now one way, now the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.artifacts.torch_files import export_module, quietly
from skipserve.errors import CutError
from skipserve.graph.blocks import find_blocks
from skipserve.graph.flow import Flow
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.pooling import Mode

OUTPUT = "logits"
# The newest that the TorchScript exporter writes.
SCRIPT_OPSET = 20
ROUNDS = 5
# Largest difference of a logit, relative to the largest.
TOLERANCE = 1e-3
# In place of padding, where the largest counts; FP16 holds it, and no number of a token is less.
OUTSIDE = -1e4

Arrays = Mapping[str, NDArray[Any]]
Free = Sequence[dict[int, str]]
Export = Callable[[nn.Module, tuple[Tensor, ...], tuple[str, ...], Free], onnx.ModelProto]


class InOrder(nn.Module):
    """Wraps a model of transformers: takes inputs in order, returns only logits."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


class Pooled(InOrder):
    """Wraps a model of transformers: returns one vector a text, as sentence-transformers does.

    Args:
        model: Gives vectors of tokens.
        names: Of its inputs, in order; the mask among them.
        mode: ``mean``, ``cls`` or ``max``.
        unit: Whether the vector is brought to length 1.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], mode: Mode, unit: bool) -> None:
        super().__init__(model, names)
        self.mode, self.unit = mode, unit

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        tokens: Tensor = self.model(**given).last_hidden_state
        vector = self._pooled(tokens, given["attention_mask"].unsqueeze(-1).to(tokens.dtype))
        return nn.functional.normalize(vector, dim=1) if self.unit else vector

    def _pooled(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.mode == "cls":
            return tokens[:, 0]
        if self.mode == "max":
            return (tokens * mask + OUTSIDE * (1 - mask)).amax(dim=1)
        return (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class Exported:
    """The graph of one exporter.

    Attributes:
        exporter: ``dynamo`` or ``torchscript``.
        model: The graph, prepared for cutting.
        seconds: For the rows it was timed on.
    """

    exporter: str
    model: onnx.ModelProto
    seconds: float


def fastest(
    module: nn.Module,
    trials: Sequence[Arrays],
    free: Free,
    exporters: Sequence[Exporter],
    name: str,
) -> tuple[Exported, tuple[str, ...]]:
    """Export a module with both exporters and keep the faster graph.

    Args:
        module: Takes its inputs in order and gives one tensor; in evaluation mode.
        trials: Rows to compare and time the graphs on: of several shapes, the first of at least
            two rows and two of everything that is free.
        free: Names of the free dimensions of every input by axis.
        exporters: That are tried.
        name: Of the module, for the error.

    Returns:
        The faster of those that compute what the module does and can be cut, and why another one
        cannot be used, in words.

    Raises:
        CutError: If there is none.
    """
    names = tuple(trials[0])
    example = tuple(torch.from_numpy(one) for one in trials[0].values())
    with torch.no_grad():
        wanted = [module(*map(torch.from_numpy, one.values())).numpy() for one in trials]
    models: dict[Exporter, onnx.ModelProto] = {}
    refused: list[str] = []
    for exporter in exporters:
        try:
            model = EXPORTERS[exporter](module, example, names, free)
            _check(model, trials, wanted)
            flow = Flow(model)
            find_blocks(flow, flow.outputs[0])
        except Exception as error:  # the exporters raise their own exception types
            said = str(error).strip().splitlines() or [type(error).__name__]
            refused.append(f"torch's {exporter} exporter: {said[0]}")
        else:
            models[exporter] = model
    if not models:
        raise CutError(f"{name} cannot be exported; {'; '.join(refused)}")
    seconds = _race(models, trials) if len(models) > 1 else dict.fromkeys(models, 0.0)
    best = min(models, key=lambda one: seconds[one])
    return Exported(best, models[best], seconds[best]), tuple(refused)


def _check(
    model: onnx.ModelProto, trials: Sequence[Arrays], wanted: Sequence[NDArray[Any]]
) -> None:
    session = open_model(model)
    for rows, expected in zip(trials, wanted, strict=True):
        (got,) = session.run([OUTPUT], dict(rows))
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if got.shape != expected.shape or not np.abs(got - expected).max() <= allowed:
            shape = next(iter(rows.values())).shape
            raise CutError(f"its graph computes something else than the network on rows {shape}")


def _race(
    models: Mapping[Exporter, onnx.ModelProto], trials: Sequence[Arrays]
) -> dict[Exporter, float]:
    """Seconds for all trials, medians of interleaved rounds."""
    sessions = {name: open_model(model) for name, model in models.items()}
    spent: dict[Exporter, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS + 1):
        for name, session in sessions.items():
            began = perf_counter()
            for rows in trials:
                session.run([OUTPUT], dict(rows))
            if turn:  # the first one warms up
                spent[name].append(perf_counter() - began)
    return {name: median(times) for name, times in spent.items()}


def _by_dynamo(
    module: nn.Module, example: tuple[Tensor, ...], names: tuple[str, ...], free: Free
) -> onnx.ModelProto:
    return export_module(module, example, names, OUTPUT, tuple(free))


def _by_tracing(
    module: nn.Module, example: tuple[Tensor, ...], names: tuple[str, ...], free: Free
) -> onnx.ModelProto:
    axes = {**dict(zip(names, free, strict=True)), OUTPUT: {0: "batch"}}
    with tempfile.TemporaryDirectory(prefix="skipserve.") as folder:
        file = Path(folder) / "exported.onnx"
        with quietly(), torch.no_grad():
            torch.onnx.export(
                module,
                example,
                str(file),
                dynamo=False,
                opset_version=SCRIPT_OPSET,
                input_names=list(names),
                output_names=[OUTPUT],
                dynamic_axes=axes,
            )
        return prepare(onnx.load(file))


EXPORTERS: dict[Exporter, Export] = {"torchscript": _by_tracing, "dynamo": _by_dynamo}
