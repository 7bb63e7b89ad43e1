"""What the router saves on the clock: time in process, requests/s at the client.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model) and wrk. Every comparison is
one interleaved run; prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from timing import interleaved, ratio
from wrk import drive

from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.asked import Provider
from skipserve.artifacts.certificates import to_json
from skipserve.artifacts.certificates_file import write_certificates
from skipserve.artifacts.manifest import write_manifest
from skipserve.building.buildfile import BuildFile, read_build_file
from skipserve.certification.certify import shortest_fixed
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve.packaging import package
from skipserve.reporting.readings import read_engine
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows

ROOT = Path(__file__).parent.parent
RISK, DELTA = 0.01, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--only", choices=["process", "http"])
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    parser.add_argument("--provider", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    result: dict[str, Any] = {"benchmark": "routing"}
    if options.only in (None, "process"):
        result["process"] = in_process(build, options)
    if options.only in (None, "http"):
        result["http"] = over_http(build, options)
    print(json.dumps(result))


def in_process(build: BuildFile, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The plain graph in ONNX Runtime; the engine with its router off, at a fixed depth, and on."""
    provider: Provider = options.provider
    test = build.trained.recipe.draw("test").inputs.numpy()
    artifact = open_artifact(build.artifact)
    rows = []
    spec = artifact.manifest.router
    assert spec is not None
    stop = len(spec.decisions) // 2
    blocks = f"{spec.decisions[stop]} blocks"
    print(f"| threads | batch | plain ms | off | {blocks} | on | run rate on |")
    print("|---|---|---|---|---|---|---|")
    for threads in (1, 2) if provider == "cpu" else (1,):
        engine = Engine(artifact, provider=provider, threads=threads)
        (file,) = artifact.files("onnx", engine.precision, "plain")
        plain, _ = open_onnx(file, provider, threads)
        on, fixed = engine.setting(RISK), engine.fixed(stop)
        for batch in options.batches:
            batches = [engine.check(test[start : start + batch]) for start in range(0, 1024, batch)]

            def run(setting: Setting, b: list[Rows], engine: Engine = engine) -> list[Prediction]:
                limits = setting.thresholds, setting.guard_limit
                return [engine.run_thresholds(x, *limits) for x in b]

            ran = [answers.depth_run.mean() for answers in run(on, batches)]
            times = interleaved(
                {
                    "plain": lambda b=batches: [plain.run(x.tensors) for x in b],
                    "off": lambda b=batches: [engine.run(x) for x in b],
                    "fixed": lambda b=batches: run(fixed, b),
                    "on": lambda b=batches: run(on, b),
                },
                options.rounds,
            )
            base = times["plain"]
            row = {
                "threads": threads,
                "batch": batch,
                "plain_ms": 1e3 * median(base) / len(batches),
                "run_rate": float(np.mean(ran)) / artifact.manifest.depth,
                **{name: ratio(times[name], base) for name in ("off", "fixed", "on")},
            }
            rows.append(row)
            print(
                "| {threads} | {batch} | {plain_ms:.2f} | {off:.2f} | {fixed:.2f} | {on:.2f} "
                "| {run_rate:.2f} |".format(**row),
                flush=True,
            )
    return rows


def over_http(build: BuildFile, options: argparse.Namespace) -> list[dict[str, Any]]:
    """TorchServe with the model's own settings, one row a request, real inputs.

    Beside the model: the same network stopped at the shortest fixed depth that meets the same risk.
    """
    provider: Provider = options.provider
    test = build.trained.recipe.draw("test").inputs[:256].numpy().round(4).tolist()
    on = [json.dumps({"inputs": [row]}).encode() for row in test]
    off = [json.dumps({"inputs": [row], "parameters": {"router": "off"}}).encode() for row in test]
    rows = []
    print("| clients | what runs | requests/s | over full depth | over fixed | p50 / p99 ms |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        archives = {
            "router": build.archive,
            "fixed depth": fixed_depth(build, Path(scratch), provider),
        }
        address = Address("127.0.0.1", 18080, 18081)
        with Server(
            [*archives.values()], HostConfig(address), overrides={"provider": provider}
        ) as server:
            urls = [server.url(manifest) for manifest in server.manifests]
            contenders = {"full depth": (urls[0], off)}
            contenders |= {name: (url, on) for name, url in zip(archives, urls, strict=True)}
            for clients in (1, 16, 64):
                loads: dict[str, list[Any]] = {name: [] for name in contenders}
                for _ in range(options.rounds):
                    for name, (url, texts) in contenders.items():
                        loads[name].append(drive(url, texts, clients, options.seconds))
                for name, each in loads.items():
                    row = {
                        "clients": clients,
                        "what": name,
                        "rps": median(load.requests_per_s for load in each),
                        "ratio": over(each, loads["full depth"]),
                        "over_fixed": over(each, loads["fixed depth"]),
                        "p50_ms": 1e3 * median(load.p50_s for load in each),
                        "p99_ms": 1e3 * median(load.p99_s for load in each),
                    }
                    rows.append(row)
                    print(
                        "| {clients} | {what} | {rps:,.0f} | {ratio:.2f} | {over_fixed:.2f} | "
                        "{p50_ms:.1f} / {p99_ms:.1f} |".format(**row),
                        flush=True,
                    )
    return rows


def over(loads: list[Any], bases: list[Any]) -> float:
    """Median over the rounds of how many times the requests/s of a base."""
    pairs = zip(loads, bases, strict=True)
    return median(load.requests_per_s / base.requests_per_s for load, base in pairs)


def fixed_depth(build: BuildFile, root: Path, provider: Provider) -> Path:
    """The model's own file, every row stopped at the shortest depth that meets the risk."""
    directory = Path(shutil.copytree(build.artifact, root / "artifacts" / "fixed"))
    artifact = open_artifact(directory)
    engine = Engine(artifact, provider=provider)
    rows = engine.check(build.trained.recipe.draw("certify").inputs.numpy())
    answers = read_engine(engine, rows, 64).by_depth()
    blocks = shortest_fixed(answers.blocks, answers.agrees, RISK, 1 - DELTA)
    depth = artifact.manifest.depth
    print(f"fixed depth: {blocks} of {depth} blocks", flush=True)
    decisions = artifact.manifest.router.decisions
    setting = engine.off if blocks == depth else engine.fixed(decisions.index(blocks))
    # A certificate knows +inf, as None, and finite numbers.
    limits = np.nan_to_num(setting.thresholds, neginf=-1e30, posinf=np.inf)
    thresholds = tuple(map(to_json, limits.tolist()))
    made = artifact.certificates
    stopped = [
        c.model_copy(update={"thresholds": thresholds, "guard_limit": None, "deciles": ()})
        for c in made.certificates
    ]
    write_certificates(directory, made.model_copy(update={"certificates": tuple(stopped)}))
    write_manifest(directory, artifact.manifest.model_copy(update={"name": "fixed"}))
    return package(directory, build.handler, build.serving, root / "model_store")


if __name__ == "__main__":
    main()
