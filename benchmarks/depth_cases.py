"""The networks and artifacts whose depth is measured, with rows and a mix of depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.graphs import write_graphs
from skipserve.artifacts.torch_files import plain_graph
from skipserve.graph.cut import cut
from skipserve.graph.prepare import prepare, read_graph
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.exits import Exit
from skipserve.routing.fit import fit_router
from skipserve.routing.network import Network, network_of
from skipserve.routing.reading import cuts_of
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import cuts_of as cuts_of_spec
from skipserve.runtime.stepper import Cut
from skipserve.runtime.wave import Limits
from skipserve.signature import BATCH, Signature, TensorSpec
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match
from skipserve.sources.module import module_graph
from skipserve.sources.recipe import signature_of
from skipserve.tasks import Classify

RISK, CLASSES, ROWS = 0.01, 10, 512
# Rows of an artifact that its mix of depths is measured on.
MIXED = 4_000
# Of these, rows that are timed.
SHOWN = 32
ENCODER = {"family": "encoder", "width": 384, "heads": 6, "patch": 5, "inputs": [40]}
NETWORKS: dict[str, dict[str, Any]] = {
    "transformer, 12 × 1.8 M": {**ENCODER, "depth": 12},
    "conv net, 12 × 41 k": {"family": "convnet", "depth": 12, "width": 64, "inputs": [40]},
    "MLP, 24 × 4 k": {"family": "mlp", "width": 64, "depth": 24, "inputs": [40]},
}
RESNET = "2-D ResNet, 9 basic blocks"


class Basic(nn.Module):
    """Two 3 × 3 convolutions beside what came in; at a stride of 2 that is projected."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        stride = wide // width
        self.first = nn.Conv2d(width, wide, 3, stride, 1)
        self.second = nn.Conv2d(wide, wide, 3, 1, 1)
        self.beside = nn.Conv2d(width, wide, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(self.first(x).relu())
        return (self.beside(x) + made).relu()


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        name: For the table.
        rows: Real or random ones.
        mix: Depths that rows are sent to, each among the exits or full depth [M].
        depth: Blocks of the network.
        cuts: What may happen behind each stage.
        bare: The stages without exits, in memory.
        files: Files of each form: ``plain`` and ``routed`` one, ``stage`` many.
    """

    name: str
    rows: Rows
    mix: NDArray[np.int64]
    depth: int
    cuts: list[Cut]
    bare: list[Any]
    files: dict[str, list[Path]]

    def depths(self, batch: int) -> list[NDArray[np.int64]]:
        """Depths of the batches [B] each, evenly from the mix."""
        count = max(SHOWN, batch)
        places = (np.arange(count) + 0.5) / count * len(self.mix)
        found: NDArray[np.int64] = np.sort(self.mix)[places.astype(int)]
        batches = count // batch
        return [found[i::batches] for i in range(batches)]

    def limits(self, depths: NDArray[np.int64]) -> Limits:
        """Thresholds that send each row to a depth of its own."""
        leaving = [one for one in self.cuts if one.decision is not None]
        thresholds = np.full((len(depths), len(leaving)), np.inf, np.float32)
        for one in leaving:
            thresholds[depths == one.blocks, one.decision] = -np.inf
        return Limits(thresholds, np.full(len(depths), np.inf, np.float32))


def resnet() -> Network:
    torch.manual_seed(0)
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Basic(a, b) for a, b in pairwise(widths)]
    stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU())
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES), nn.Softmax(1)
    )
    module = nn.Sequential(stem, *blocks, head)
    model, _ = module_graph(module, torch.zeros(2, 1, 28, 28), "resnet")
    signature = Signature(
        inputs=(
            TensorSpec(name=model.graph.input[0].name, dtype="float32", shape=(BATCH, 1, 28, 28)),
        ),
        outputs=(
            TensorSpec(name=model.graph.output[0].name, dtype="float32", shape=(BATCH, CLASSES)),
        ),
    )
    return network_of(prepare(model), signature, Classify(classes=CLASSES))


def random_network(options: dict[str, Any]) -> Network:
    torch.manual_seed(0)
    network = build_network(parse_network({**options, "classes": CLASSES})).eval()
    config = network.config
    network.scaling.fit(torch.randn(256, *config.inputs))
    task = Classify(classes=CLASSES)
    return network_of(plain_graph(network), signature_of(config), task, config.depth)


def random_case(name: str, network: Network, folder: Path) -> Case:
    """An exit before every block, in files of its own, and depths spread evenly."""
    spec = network.signature.inputs[0]
    shape = [size for size in spec.row_shape if isinstance(size, int)]
    drawn = np.random.default_rng(0).standard_normal((ROWS, *shape)).astype(np.float32)
    rows = Rows({spec.name: drawn})
    at = tuple(range(network.depth))
    config = ExitsConfig(at=at, first=0, hidden=128, corrupted=False)
    half = ROWS // 2
    fitted = fit_router(
        network, config, RouterConfig(signal="confidence"), rows[:half], rows[half:]
    )
    files: dict[str, list[Path]] = {"plain": [], "stage": [], "routed": [], "weights": []}
    for role, file in write_graphs(network, "fp32", rows, folder, fitted.exits):
        files[role].append(folder / file)
    mix = np.arange(network.depth + 1)
    return Case(
        name,
        rows,
        mix,
        network.depth,
        cuts_of(fitted.exits),
        bare(network, fitted.exits, rows),
        files,
    )


def artifact_case(directory: Path, file: Path) -> Case:
    """An artifact, at the mix of depths of its certificate on the rows of a file."""
    artifact = open_artifact(directory)
    manifest = artifact.manifest
    engine, spec = Engine.for_many(artifact, provider="cpu", precision="fp32"), manifest.router
    assert spec is not None
    rows = match(read_columns(file), manifest.signature, {}, None, str(file)).rows[:MIXED]
    mix = engine.run_batches(rows, engine.setting(RISK), 32).depth_run
    files = {role: artifact.files("onnx", "fp32", role) for role in ("plain", "stage", "routed")}
    model = prepare(read_graph(files["plain"][0]))
    network = network_of(model, manifest.signature, manifest.task, manifest.depth)
    return Case(
        manifest.name,
        rows,
        mix,
        manifest.depth,
        cuts_of_spec(spec),
        bare(network, spec.exits, rows),
        files,
    )


def bare(network: Network, exits: Sequence[Exit | Any], rows: Rows) -> list[Any]:
    names = [network.cuts[one.blocks] for one in exits]
    symbols = network.signature.symbols
    made = cut(network.flow, network.found, names, rows[:64].tensors, symbols)
    return [stage.model for stage in made.stages]
