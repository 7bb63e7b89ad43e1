"""On a GPU: does every file answer there as on the CPU, and what does a new batch size cost?

`python benchmarks/on_gpu.py [--models mnist1d_resnet moons_residual] [--only parity,sizes,router]`

parity  each file of an artifact against the FP64 network and the eager router, on CPU and on CUDA
sizes   milliseconds of the first and of later runs at every batch size, by how cuDNN is asked to
        choose its convolutions: rows leave a routed batch, so every size comes up
router  milliseconds of a batch at full depth and with the router, by batch size; thresholds of
        whatever certificate there is, for what they cost and not for what they promise

Needs `skipserve build` of each model, and the extra `gpu` in place of `cpu`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np
from timing import interleaved, ratio

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import from_json
from skipserve.artifacts.parity import Reference, RoutedReference, check_parity
from skipserve.build import PARITY_ROWS
from skipserve.buildfile import BuildFile, read_build_file
from skipserve.routing.fit import fit_router
from skipserve.runtime import backends
from skipserve.runtime.backends import open_backend
from skipserve.runtime.engine import Engine
from skipserve.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
SIZES = range(1, 17)
BATCHES, BATCHES_EACH, RISK = (1, 8, 32, 128), 16, 0.01


def parity(build: BuildFile, providers: list[str]) -> list[dict[str, Any]]:
    artifact = open_artifact(build.artifact)
    network = load_checkpoint(build.checkpoint).network
    real = build.recipe.draw("test").inputs[:PARITY_ROWS]
    reference, spec, routed = Reference(network, real), artifact.manifest.router, None
    if spec is not None and build.router is not None:
        rows = [build.recipe.draw(split).inputs for split in ("train", "propose")]
        router, _ = fit_router(build.router, network, spec.decisions, *rows)
        routed = RoutedReference(network, router, real, from_json(spec.guard_limit))
    outputs = tuple(output.name for output in artifact.manifest.outputs)
    found = []
    print("\n| file | runs on | largest difference | allowed | decisions equal |")
    print("|---|---|---|---|---|")
    for file, provider in itertools.product(artifact.manifest.files, providers):
        decisions = len(spec.decisions) if spec else 0
        row: dict[str, Any] = {"model": build.name, "file": file.path, "provider": provider}
        line = f"| {build.name}/{file.path} | {provider} | "
        try:
            backend = open_backend(artifact.directory / file.path, outputs, provider)
            if backend.provider != provider:
                raise RuntimeError(f"runs on {backend.provider}")
            got = check_parity(backend.run, reference, file.precision, file.path, decisions)
            row |= {"largest": got.largest_difference, "allowed": got.tolerance}
            line += f"{got.largest_difference:.1e} | {got.tolerance:g} | "
            if routed is None:
                line += "no router |"
            else:
                same = routed.check(backend.run, file.precision, file.path)
                row |= {"equal": same.equal, "rows": same.rows}
                line += f"{same.equal:.1%} of {same.rows} |"
        except Exception as error:  # whatever a provider cannot run belongs in the table
            row |= {"failed": str(error)}
            line += f"FAILED: {str(error).splitlines()[0]} | | |"
        found.append(row)
        print(line, flush=True)
    return found


def sizes(build: BuildFile, provider: str) -> list[dict[str, Any]]:
    test = build.recipe.draw("test").inputs.numpy()
    rows = []
    print(f"\n{build.name} on {provider}, batch sizes 1 to {SIZES[-1]}, full depth")
    print("| convolutions chosen | open s | first run at a size ms, median / most | again ms |")
    print("|---|---|---|---|")
    for search in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"):
        asked = {**backends.CUDA_OPTIONS, "cudnn_conv_algo_search": search}
        with mock.patch.object(backends, "CUDA_OPTIONS", asked):
            start = perf_counter()
            engine = Engine(open_artifact(build.artifact), provider=provider)
            opened = perf_counter() - start
        engine.run(test[:32])  # what CUDA itself loads
        first, again = [], []
        for size in SIZES:
            start = perf_counter()
            engine.run(test[:size])
            first.append(1e3 * (perf_counter() - start))
            start = perf_counter()
            for _ in range(20):
                engine.run(test[:size])
            again.append(1e3 * (perf_counter() - start) / 20)
        row = {"search": search, "open_s": opened, "first_ms": first, "again_ms": again}
        rows.append(row)
        print(
            f"| {search} | {opened:.1f} | {median(first):.1f} / {max(first):.1f} "
            f"| {np.mean(again):.2f} |",
            flush=True,
        )
    return rows


def router(build: BuildFile, provider: str, rounds: int) -> list[dict[str, Any]]:
    artifact = open_artifact(build.artifact)
    engine = Engine(artifact, provider=provider)
    held = artifact.certificates.certificates
    one = next(c for c in held if (c.risk, c.measure) == (RISK, "disagreement"))
    thresholds = np.array([from_json(t) for t in one.thresholds], dtype=np.float32)
    test = build.recipe.draw("test").inputs.numpy()
    rows = []
    print(f"\n{build.name} on {provider}, {engine.precision}, thresholds of {one.provider}")
    print("| batch | full depth ms | router on ms | over full depth |\n|---|---|---|---|")
    for size in BATCHES:
        batches = [test[start : start + size] for start in range(0, BATCHES_EACH * size, size)]
        work = {
            "off": lambda b=batches: [engine.run(x) for x in b],
            "on": lambda b=batches: [engine.run_thresholds(x, thresholds, np.inf) for x in b],
        }
        times = interleaved(work, rounds)
        ms = {name: 1e3 * median(each) / len(batches) for name, each in times.items()}
        row = {"batch": size, **ms, "ratio": ratio(times["on"], times["off"])}
        rows.append(row)
        print("| {batch} | {off:.2f} | {on:.2f} | {ratio:.2f} |".format(**row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mnist1d_resnet", "moons_residual"])
    parser.add_argument("--only", default="parity,sizes,router")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--providers", nargs="+", default=["cpu", "cuda"])
    options = parser.parse_args()
    builds = [read_build_file(ROOT / "export" / f"{name}.toml") for name in options.models]
    result: dict[str, Any] = {"benchmark": "on_gpu"}
    if "parity" in options.only:
        result["parity"] = [row for build in builds for row in parity(build, options.providers)]
    if "sizes" in options.only:
        result["sizes"] = sizes(builds[0], options.providers[-1])
    if "router" in options.only:
        result["router"] = router(builds[0], options.providers[-1], options.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
