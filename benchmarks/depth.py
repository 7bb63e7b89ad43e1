"""Does skipped work become time? Routed graphs driven to known depths, and what routing costs.

    python benchmarks/depth.py [--rounds 15] [--only "conv net"]
    python benchmarks/depth.py --artifact artifacts/fashion .build/fashion/fashion-test.npz

Networks of random weights are sent to an even mix of depths, by thresholds of ±infinity; artifacts
to the mix their certificate at ε = 1 % gives on rows of a file. Each by three forms: the plain
graph, the stages that the engine steps through, and the one file with the router inside.

off    the engine asked for full depth, over the plain graph
bare   the stages without exits, one after the other, over the plain graph
full   stages and one file at full depth, over the plain graph
mix    time at the mix over the plain graph, beside c, the share of the plain graph's time that lies
       in what ran (stem and last head included)
heads  what reading the exits adds at the mix, over the plain graph; what is left of the mix over c
       is the cuts themselves and the engine
memory resident memory of the sessions, over that of the plain graph's

The mix is that of 32 rows, in as many batches as it takes. Ratios within one interleaved run,
medians of the rounds; with one thread in CPU time, so that they can be read on a busy machine too.
Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from timing import interleaved, ratio
from torch import Tensor, nn

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.graphs import write_graphs
from skipserve.artifacts.torch_files import plain_graph
from skipserve.graph.cut import cut
from skipserve.graph.memory import open_model
from skipserve.graph.policy import GUARD_LIMIT, THRESHOLDS
from skipserve.graph.prepare import prepare, read_graph
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.exits import Exit
from skipserve.routing.fit import fit_router
from skipserve.routing.network import Network, network_of
from skipserve.routing.reading import cuts_of
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.engine import Engine
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles
from skipserve.runtime.runners import cuts_of as cuts_of_spec
from skipserve.runtime.stepper import Cut, Piece, Stepper
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


def stage_calls(pieces: Sequence[Piece], rows: Rows) -> dict[Any, Callable[[], Any]]:
    """Each stage by itself on what the ones before it give, all rows at full depth."""
    tensors, work = dict(rows.tensors), {}
    for place, piece in enumerate(pieces):
        feeds = {name: tensors[name] for name in piece.inputs}
        tensors.update(zip(piece.outputs, piece.run(feeds), strict=True))
        work[place] = lambda p=piece, f=feeds: p.run(f)
    return work


def measure(case: Case, threads: int, batch: int, rounds: int) -> dict[str, Any]:
    plain, _ = open_onnx(case.files["plain"][0], threads=threads)
    routed, _ = open_onnx(case.files["routed"][0], threads=threads)
    stages = [open_onnx(file, threads=threads)[0] for file in case.files["stage"]]
    stepper = Stepper(stages, case.cuts, case.depth)
    files = OnnxFiles(plain, stepper, "cpu", case.depth)
    rows, mixes = case.rows[:batch], case.depths(batch)
    mixed = [case.limits(depths) for depths in mixes]
    everything = case.limits(np.full(batch, case.depth))
    off = Limits(np.full_like(everything.thresholds, np.inf), everything.guard)
    # A finite threshold that no signal reaches: with +inf the plain graph is run.
    never = Limits(np.full_like(off.thresholds, np.finfo(np.float32).max), off.guard)

    def one_file(asked: Limits) -> Any:
        feeds = {**rows.tensors, THRESHOLDS: asked.thresholds, GUARD_LIMIT: asked.guard}
        return routed.run(feeds)

    for depths, limits in zip(mixes, mixed, strict=True):
        assert stepper.run(rows, limits).depth_run.tolist() == depths.tolist()
        assert np.asarray(one_file(limits)[1]).tolist() == depths.tolist()
    clock = thread_time if threads == 1 else perf_counter
    times = interleaved(
        {
            "plain": lambda: plain.run(rows.tensors),
            "off": lambda: files.run(rows, off),
            "stages": lambda: files.run(rows, never),
            "one file": lambda: one_file(everything),
            "stages, mix": lambda: [files.run(rows, limits) for limits in mixed],
            "one file, mix": lambda: [one_file(limits) for limits in mixed],
        },
        rounds,
        clock,
    )
    base = times["plain"]
    for name in ("stages, mix", "one file, mix"):
        times[name] = [one / len(mixes) for one in times[name]]
    alone = stage_calls([OnnxPiece(open_model(one, threads=threads)) for one in case.bare], rows)
    read = stage_calls(stages, rows)
    spent = interleaved(
        {
            **{("bare", i): call for i, call in alone.items()},
            **{("read", i): call for i, call in read.items()},
        },
        rounds,
        clock,
    )
    parts = np.array([median(spent["bare", i]) for i in range(len(case.bare))])
    exits = np.array([median(spent["read", i]) for i in read]) - parts
    # A row that leaves behind a stage ran it and all before it.
    behind = {one.blocks: place for place, one in enumerate(case.cuts)}
    last = len(parts) - 1
    depths = np.concatenate(mixes)
    where = np.array([behind.get(depth, last) for depth in depths.tolist()])
    c = float((np.cumsum(parts) / parts.sum())[where].mean())
    heads = float(np.cumsum(exits)[where].mean() / median(base))
    return {
        "network": case.name,
        "threads": threads,
        "batch": batch,
        "plain_ms": 1e3 * median(base),
        "off": ratio(times["off"], base),
        "bare": float(parts.sum() / median(base)),
        "full": {name: ratio(times[name], base) for name in ("stages", "one file")},
        "mix": {name: ratio(times[f"{name}, mix"], base) for name in ("stages", "one file")},
        "run_rate": float(depths.mean() / case.depth),
        "c": c,
        "heads": heads,
    }


def resident(files: list[Path], rows: Rows) -> float:
    """Bytes that a plain graph and stages add to a process of its own, opened and run on rows."""
    process = psutil.Process()
    before = process.memory_info().rss
    plain, *stages = [open_onnx(file)[0] for file in files]
    plain.run(rows.tensors)
    if stages:
        stage_calls(stages, rows)
    return float(process.memory_info().rss - before)


def memory(case: Case) -> dict[str, float]:
    """Of the plain graph alone, and of all that the engine opens, in megabytes."""
    found = {}
    for name, files in (
        ("plain", case.files["plain"]),
        ("engine", [*case.files["plain"], *case.files["stage"]]),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(resident, (files, case.rows[:32])) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument(
        "--artifact", nargs=2, action="append", type=Path, default=[], metavar=("DIR", "ROWS")
    )
    parser.add_argument("--only", help="networks whose name holds this")
    options = parser.parse_args()
    print(
        "| network | threads | batch | plain ms | off | bare | full: stages, one file | c "
        "| mix: the same | heads |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    rows, memories = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases(options, Path(scratch)):
            for threads in options.threads:
                for batch in options.batches:
                    row = measure(case, threads, batch, options.rounds)
                    rows.append(row)
                    full, mix = (
                        ", ".join(f"{t:.2f}" for t in row[k].values()) for k in ("full", "mix")
                    )
                    print(
                        f"| {case.name} | {threads} | {batch} | {row['plain_ms']:.3f} "
                        f"| {row['off']:.3f} | {row['bare']:.2f} | {full} "
                        f"| {row['c']:.2f} | {mix} | {row['heads']:+.2f} |",
                        flush=True,
                    )
            memories[case.name] = memory(case)
    print("\n| network | resident MB: plain | engine | ratio |\n|---|---|---|---|")
    for name, one in memories.items():
        more = one["engine"] / one["plain"]
        print(f"| {name} | {one['plain']:.1f} | {one['engine']:.1f} | {more:.2f} |")
    print(json.dumps({"benchmark": "depth", "rows": rows, "memory_mb": memories}))


def cases(options: argparse.Namespace, scratch: Path) -> Any:
    for directory, rows in options.artifact:
        yield artifact_case(directory, rows)
    if options.artifact and not options.only:
        return
    for place, name in enumerate([*NETWORKS, RESNET]):
        if options.only and options.only not in name:
            continue
        folder = scratch / str(place)
        folder.mkdir()
        network = resnet() if name == RESNET else random_network(NETWORKS[name])
        yield random_case(name, network, folder)


if __name__ == "__main__":
    main()
