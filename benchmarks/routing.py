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

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import read_certificates, to_json, write_certificates
from skipserve.artifacts.formats import write_model
from skipserve.artifacts.manifest import write_manifest
from skipserve.build import BuildFile, calibrate, export, make_archive
from skipserve.buildfile import read_build_file
from skipserve.reporting.readings import fixed_setting, read_engine
from skipserve.routing.judge import shortest_fixed
from skipserve.runtime.backends import Provider, open_backend
from skipserve.runtime.engine import PRECISIONS, Engine
from skipserve.serving.address import Address
from skipserve.serving.archive import package
from skipserve.serving.launcher import Server
from skipserve.training.checkpoint import load_checkpoint

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
    """ONNX Runtime: the plain export, the routed one off, at a fixed depth, and on."""
    provider: Provider = options.provider
    network = load_checkpoint(build.checkpoint).network
    test = build.recipe.draw("test").inputs.numpy()
    artifact = open_artifact(build.artifact)
    rows = []
    spec = artifact.manifest.router
    assert spec is not None
    stop = len(spec.decisions) // 2
    blocks = f"{spec.decisions[stop]} blocks"
    print(f"| threads | batch | plain ms | off | {blocks} | on | run rate on |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        plain_file = Path(scratch) / "plain.onnx"
        write_model(network, "onnx", PRECISIONS[provider], plain_file)
        for threads in (1, 2) if provider == "cpu" else (1,):
            plain = open_backend(plain_file, ("probabilities",), provider, threads)
            engine = Engine(artifact, provider=provider, threads=threads)
            on = engine.setting(RISK)
            fixed = engine.off.thresholds.copy()
            fixed[stop] = -np.inf
            for batch in options.batches:
                starts = range(0, 1024, batch)
                batches = [np.ascontiguousarray(test[start : start + batch]) for start in starts]
                ran = [
                    engine.run_thresholds(b, on.thresholds, on.guard_limit).depth_run.mean()
                    for b in batches
                ]
                times = interleaved(
                    {
                        "plain": lambda b=batches: [plain.run({"inputs": x}) for x in b],
                        "off": lambda b=batches: [engine.run(x) for x in b],
                        "fixed": lambda b=batches: [
                            engine.run_thresholds(x, fixed, np.inf) for x in b
                        ],
                        "on": lambda b=batches: [
                            engine.run_thresholds(x, on.thresholds, on.guard_limit) for x in b
                        ],
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
                    "| {run_rate:.2f} |".format(**row)
                )
    return rows


def over_http(build: BuildFile, options: argparse.Namespace) -> list[dict[str, Any]]:
    """TorchServe with the model's own settings, one row a request, real inputs.

    Beside the model: the same network routed by the norm, and stopped at the shortest fixed depth
    that meets the same risk. On CUDA without the norm, whose export takes minutes.
    """
    provider: Provider = options.provider
    test = build.recipe.draw("test").inputs[:256].numpy().round(4).tolist()
    on = [json.dumps({"inputs": [row]}).encode() for row in test]
    off = [json.dumps({"inputs": [row], "parameters": {"router": "off"}}).encode() for row in test]
    rows = []
    print("| clients | what runs | requests/s | over full depth | over fixed | p50 / p99 ms |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        archives = {
            build.router.signal: build.archive,
            "fixed depth": fixed_depth(build, Path(scratch), provider),
        }
        if provider == "cpu":
            archives["norm"] = by_norm(build, Path(scratch))
        address = Address("127.0.0.1", 18080, 18081)
        with Server([*archives.values()], address, {"provider": provider}) as server:
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


def by_norm(build: BuildFile, root: Path) -> Path:
    """An archive of the same checkpoint routed by the norm."""
    shutil.copytree(build.handler.parent, root / "handlers")
    (root / "export").mkdir()
    shutil.copytree(build.checkpoint, root / "checkpoints" / "by_norm")
    text = build.path.read_text().replace(f'"{build.name}"', '"by_norm"')
    text = text.replace(f'signal = "{build.router.signal}"', 'signal = "norm"')
    (root / "export" / "by_norm.toml").write_text(
        text + '\n[export]\nformats = ["onnx"]\nprecisions = ["fp32"]\n'
        if "[export]" not in text
        else text
    )
    norm = read_build_file(root / "export" / "by_norm.toml")
    export(norm)
    calibrate(norm, lambda line: None)
    made = read_certificates(norm.artifact)
    one = next(c for c in made.certificates if (c.risk, c.measure) == (RISK, "disagreement"))
    print(f"norm: {one.run_rate:.1%} of the blocks run when certified", flush=True)
    return make_archive(norm)


def fixed_depth(build: BuildFile, root: Path, provider: Provider) -> Path:
    """The model's own file, every row stopped at the shortest depth that meets the risk."""
    directory = Path(shutil.copytree(build.artifact, root / "artifacts" / "fixed"))
    artifact = open_artifact(directory)
    engine = Engine(artifact, provider=provider)
    rows = build.recipe.draw("certify").inputs.numpy()
    blocks = shortest_fixed(read_engine(engine, rows, 64), RISK, 1 - DELTA)
    print(f"fixed depth: {blocks} of {artifact.manifest.depth} blocks", flush=True)
    at = artifact.manifest.router.decisions.index(blocks)
    # A certificate knows +inf, as None, and finite numbers.
    limits = np.nan_to_num(fixed_setting(engine, at).thresholds, neginf=-1e30, posinf=np.inf)
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
