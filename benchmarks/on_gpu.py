"""On a GPU: does every file answer there as on the CPU, and what does a new batch size cost?

`python benchmarks/on_gpu.py [--models mnist1d_resnet moons_residual] [--only parity,sizes,router]`

parity  each format and precision of an artifact against what it was made from, and its decisions
        against those of the FP32 stages on the CPU, on CPU and on CUDA
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
from skipserve.artifacts.asked import FORMATS
from skipserve.artifacts.certificates import from_json
from skipserve.artifacts.parity import Decisions, check_parity
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.building.sourced import Sourced
from skipserve.runtime import backends
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles, open_runner

ROOT = Path(__file__).parent.parent
SIZES = range(1, 17)
BATCHES, BATCHES_EACH, RISK = (1, 8, 32, 128), 16, 0.01


def parity(build: BuildFile, providers: list[str]) -> list[dict[str, Any]]:
    artifact = open_artifact(build.artifact)
    expected, spec = Sourced(build).origin.expected, artifact.manifest.router
    decisions = None
    if spec is not None:
        stages = open_runner(artifact, "onnxruntime", "fp32", "cpu", 1)
        assert isinstance(stages, OnnxFiles)
        decisions = Decisions(
            expected.rows,
            stages.read(expected.rows),
            np.array([*spec.decisions, artifact.manifest.depth]),
            np.array([one.leaves for one in spec.exits]),
            spec.guard_limit is not None,
        )
    found = []
    print("\n| files | runs on | largest difference | allowed | decisions equal |")
    print("|---|---|---|---|---|")
    pairs = dict.fromkeys((one.format, one.precision) for one in artifact.manifest.files)
    backend_of = {format: name for name, format in FORMATS.items()}
    for (format, precision), provider in itertools.product(pairs, providers):
        name = f"{build.name} {format} {precision}"
        row: dict[str, Any] = {"model": build.name, "files": name, "provider": provider}
        line = f"| {name} | {provider} | "
        try:
            runner = open_runner(artifact, backend_of[format], precision, provider, 1)
            if runner.provider != provider:
                raise RuntimeError(f"runs on {runner.provider}")
            got = check_parity(runner.full, expected, format, precision, name)
            row |= {"largest": got.largest_difference, "allowed": got.tolerance}
            line += f"{got.largest_difference:.1e} | {got.tolerance:g} | "
            if decisions is None or precision == "int8":  # fitted to INT8 anew
                line += "– |"
            else:
                same = decisions.check(runner.run, precision, name)
                row |= {"equal": same.equal, "rows": same.rows}
                line += f"{same.equal:.1%} of {same.rows} |"
        except Exception as error:  # whatever a provider cannot run belongs in the table
            row |= {"failed": str(error)}
            line += f"FAILED: {str(error).splitlines()[0]} | | |"
        found.append(row)
        print(line, flush=True)
    return found


def sizes(build: BuildFile, provider: str) -> list[dict[str, Any]]:
    test = Rows({"inputs": build.trained.recipe.draw("test").inputs.numpy()})
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
    test = Rows({"inputs": build.trained.recipe.draw("test").inputs.numpy()})
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
