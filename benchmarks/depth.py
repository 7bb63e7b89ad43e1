"""Does skipped work become time? Routed graphs of random weights, driven to known depths.

`python benchmarks/depth.py [--rounds 15] [--only off,rate,line] [--provider cuda --precision fp16]`

off   what the router costs when it is off, over the plain export, and that per decision
rate  time against run rate, each row sent to a depth of its own, over full depth
line  time against depth run in a network of 200 blocks, and how straight the line is

Thresholds of ±infinity send a row to any depth, so nothing has to be trained. Ratios within one
interleaved run, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from timing import interleaved, ratio

from skipserve.artifacts.formats import write_model
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.runtime.backends import Backend, open_backend

ENCODER = {"family": "encoder", "width": 384, "heads": 6, "patch": 5, "inputs": [40]}
NETWORKS = {
    "encoder, 12 × 1.8 M": {**ENCODER, "depth": 12},
    "MLP, 12 × 1.0 M": {"family": "mlp", "width": 1024, "depth": 12, "inputs": [40]},
    "conv net, 12 × 41 k": {"family": "convnet", "depth": 12, "width": 64, "inputs": [40]},
    "MLP, 24 × 4 k": {"family": "mlp", "width": 64, "depth": 24, "inputs": [40]},
}
LONG = {"family": "mlp", "width": 256, "depth": 200, "inputs": [40]}


class Files:
    """The plain and the routed export of a network with random weights."""

    def __init__(
        self, options: dict[str, Any], precision: str, signal: str, stage: int = 1
    ) -> None:
        torch.manual_seed(0)
        network = build_network(parse_network({**options, "classes": 10})).eval()
        rows = torch.randn(256, *network.config.inputs)
        network.scaling.fit(rows)
        self.depth = network.config.depth
        self.decisions = list(range(stage, self.depth, stage))
        router, _ = fit_router(RouterConfig(signal=signal), network, self.decisions, rows, rows)
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        self.plain, self.routed = folder / "plain.onnx", folder / "routed.onnx"
        write_model(network, "onnx", precision, self.plain)
        write_model(network, "onnx", precision, self.routed, router)
        self.rows = rows.numpy()

    def open(self, provider: str, threads: int) -> tuple[Backend, Backend]:
        plain = open_backend(self.plain, ("probabilities",), provider, threads)
        routed = open_backend(self.routed, (), provider, threads)
        if routed.provider != provider:
            sys.exit(f"{provider} was asked for, ONNX Runtime runs on {routed.provider}")
        return plain, routed

    def feeds(self, depths: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs that send each row to a depth of its own [B]."""
        thresholds = np.full((len(depths), len(self.decisions)), np.inf, dtype=np.float32)
        for row, depth in enumerate(depths):
            if depth < self.depth:
                thresholds[row, self.decisions.index(depth)] = -np.inf
        limit = np.full(len(depths), np.inf, dtype=np.float32)
        return {"inputs": self.rows[: len(depths)], "thresholds": thresholds, "guard_limit": limit}


def off(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    print("| network | threads | batch | plain ms | router off / plain | µs a decision |")
    print("|---|---|---|---|---|---|")
    for name, config in NETWORKS.items():
        files = Files(config, options.precision, options.signal)
        for threads in options.threads:
            plain, routed = files.open(options.provider, threads)
            for batch in options.batches:
                fed = files.feeds(np.full(batch, files.depth))
                only = {"inputs": fed["inputs"]}
                work = {
                    "plain": lambda p=plain, o=only: p.run(o),
                    "off": lambda r=routed, f=fed: r.run(f),
                }
                times = interleaved(work, options.rounds)
                pairs = zip(times["off"], times["plain"], strict=True)
                extra = median(a - b for a, b in pairs)
                row = {
                    "network": name,
                    "threads": threads,
                    "batch": batch,
                    "plain_ms": 1e3 * median(times["plain"]),
                    "ratio": ratio(times["off"], times["plain"]),
                    "decision_us": 1e6 * extra / len(files.decisions),
                }
                rows.append(row)
                print(
                    "| {network} | {threads} | {batch} | {plain_ms:.3f} | {ratio:.3f} | "
                    "{decision_us:.1f} |".format(**row),
                    flush=True,
                )
    return rows


def rate(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    print("\n| network | threads | batch | run rate → time, over full depth | worst excess |")
    print("|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, config in NETWORKS.items():
        files = Files(config, options.precision, options.signal)
        for threads in options.threads:
            _, routed = files.open(options.provider, threads)
            for batch in (1, 32):
                work, rates = {}, {}
                for share in (1.0, 0.75, 0.5, 0.25, 1 / files.depth):
                    # Depths spread evenly around the share, so that a batch is mixed.
                    half = min(share, 1 - share) if batch > 1 else 0.0
                    drawn = rng.uniform(share - half, share + half, batch) * files.depth
                    depths = np.clip(np.round(drawn), 1, files.depth).astype(int)
                    fed = files.feeds(depths)
                    assert routed.run(fed)["depth_run"].tolist() == depths.tolist()
                    rates[share] = float(depths.mean() / files.depth)
                    work[share] = lambda r=routed, f=fed: r.run(f)
                times = interleaved(work, options.rounds)
                points = [(rates[s], ratio(times[s], times[1.0])) for s in work]
                row = {
                    "network": name,
                    "threads": threads,
                    "batch": batch,
                    "points": points,
                    "excess": max(t - r for r, t in points),
                }
                rows.append(row)
                curve = ", ".join(f"{r:.2f} → {t:.2f}" for r, t in points[1:])
                print(
                    f"| {name} | {threads} | {batch} | {curve} | {row['excess']:+.3f} |", flush=True
                )
    return rows


def line(options: argparse.Namespace) -> dict[str, Any]:
    files = Files(LONG, options.precision, options.signal, stage=5)
    _, routed = files.open(options.provider, 1)
    depths = [5, 25, 50, 75, 100, 125, 150, 175, 200]
    work = {
        depth: lambda r=routed, f=files.feeds(np.full(1, depth)): r.run(f)  # noqa: B008
        for depth in depths
    }
    times = [1e3 * median(each) for each in interleaved(work, options.rounds).values()]
    slope, start = np.polyfit(depths, times, 1)
    away = float(np.abs(np.polyval([slope, start], depths) - times).max() / max(times))
    print("\n| depth run, of 200 | ms, one row |\n|---|---|")
    for depth, ms in zip(depths, times, strict=True):
        print(f"| {depth} | {ms:.2f} |")
    print(f"\n{start:.2f} ms + {slope * 1e3:.1f} µs a block; at most {away:.1%} of it away")
    return {"depths": depths, "ms": times, "slope_us": slope * 1e3, "largest_deviation": away}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="off,rate,line")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--signal", default="norm")
    parser.add_argument("--provider", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16"])
    options = parser.parse_args()
    parts = {"off": off, "rate": rate, "line": line}
    print(json.dumps({name: parts[name](options) for name in options.only.split(",")}))


if __name__ == "__main__":
    main()
