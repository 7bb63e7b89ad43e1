"""What the router saves: run rate at a certified risk, time in process, requests/s at the client.

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
import torch
from timing import interleaved, ratio
from wrk import drive

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import read_certificates, to_json, write_certificates
from skipserve.artifacts.formats import write_model
from skipserve.artifacts.manifest import write_manifest
from skipserve.build import BuildFile, calibrate, export, make_archive
from skipserve.buildfile import read_build_file
from skipserve.reporting.readings import fixed_setting, read_engine
from skipserve.routing.certify import p_value
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router, pooled_streams
from skipserve.routing.judge import Readings, shortest_fixed
from skipserve.routing.propose import BOLD, CAREFUL, greedy, simulate
from skipserve.runtime.backends import open_backend
from skipserve.runtime.engine import Engine
from skipserve.serving.address import Address
from skipserve.serving.archive import package
from skipserve.serving.launcher import Server
from skipserve.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent
RISK, DELTA = 0.01, 0.05
SIGNALS = ("norm", "projected_norm", "margin", "confidence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--only", choices=["signals", "process", "http"])
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    result: dict[str, Any] = {"benchmark": "routing"}
    if options.only in (None, "signals"):
        result["signals"] = signals(build)
    if options.only in (None, "process"):
        result["process"] = in_process(build, options.rounds)
    if options.only in (None, "http"):
        result["http"] = over_http(build, options.rounds, options.seconds)
    print(json.dumps(result))


def signals(build: BuildFile) -> list[dict[str, Any]]:
    """Run rate and disagreement on the test split, thresholds certified at 1 %, without a guard."""
    network = load_checkpoint(build.checkpoint).network
    depth = network.config.depth
    decisions = range(1, depth)
    draws = {name: build.recipe.draw(name).inputs for name in ("propose", "certify", "test")}
    pooled = {name: pooled_streams(network, rows) for name, rows in draws.items()}
    with torch.no_grad():
        labels = {name: network.head(rows).argmax(dim=2).numpy() for name, rows in pooled.items()}
    agrees = {name: each[:, :-1] == each[:, -1:] for name, each in labels.items()}
    depths = np.arange(1, depth + 1)
    rows = []
    for name in SIGNALS:
        config = RouterConfig(signal=name)
        train = build.recipe.draw("train").inputs
        router, _ = fit_router(config, network, decisions, train, draws["propose"])
        with torch.no_grad():
            values = {
                split: torch.stack(
                    [s(streams[:, i]) for i, s in enumerate(router.signals)], dim=1
                ).numpy()
                for split, streams in pooled.items()
            }
        kept = None
        for rate in np.geomspace(CAREFUL, BOLD, 60):
            thresholds = greedy(values["propose"], agrees["propose"], rate)
            wrong, _ = simulate(thresholds, values["certify"], agrees["certify"], depths)
            count = len(agrees["certify"])
            if p_value(round(wrong * count), count, RISK) > DELTA:
                break
            kept = thresholds
        if kept is not None:
            wrong, ran = simulate(kept, values["test"], agrees["test"], depths)
            rows.append({"what": name, "run_rate": ran / depth, "disagrees": wrong})
    rows += baselines(agrees, depth, rows)
    print(f"| what decides | blocks run at ε = {RISK:.0%} | disagrees on test |\n|---|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['run_rate']:.1%} | {row['disagrees']:.2%} |")
    return rows


def baselines(
    agrees: dict[str, np.ndarray], depth: int, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    # Only whether an answer is that of full depth counts here: 0 if it is, 1 if not.
    differs = np.append(~agrees["certify"], np.zeros((len(agrees["certify"]), 1), bool), axis=1)
    readings = Readings(np.arange(1, depth + 1), differs.astype(np.int64))
    fixed = shortest_fixed(readings, RISK, 1 - DELTA)
    test = np.append(agrees["test"], np.ones((len(agrees["test"]), 1), dtype=bool), axis=1)
    best = min(rows, key=lambda row: row["run_rate"])
    # Random exits with the same mean depth: a mixture of the two depths around it.
    low = int(best["run_rate"] * depth)
    share = best["run_rate"] * depth - low
    mixed = (1 - share) * (1 - test[:, low - 1].mean()) + share * (1 - test[:, low].mean())
    oracle = (test.argmax(axis=1) + 1).mean() / depth
    return [
        {
            "what": "shortest fixed depth",
            "run_rate": fixed / depth,
            "disagrees": 1 - test[:, fixed - 1].mean(),
        },
        {"what": "random, as deep as the best", "run_rate": best["run_rate"], "disagrees": mixed},
        {"what": "oracle", "run_rate": oracle, "disagrees": 0.0},
    ]


def in_process(build: BuildFile, rounds: int) -> list[dict[str, Any]]:
    """ONNX Runtime on the CPU: the plain export, the routed one off, fixed at 4 blocks, and on."""
    network = load_checkpoint(build.checkpoint).network
    test = build.recipe.draw("test").inputs.numpy()
    artifact = open_artifact(build.artifact)
    rows = []
    print("| threads | batch | plain ms | off | fixed 4 blocks | on | run rate on |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        plain_file = Path(scratch) / "plain.onnx"
        write_model(network, "onnx", "fp32", plain_file)
        for threads in (1, 2):
            plain = open_backend(plain_file, ("probabilities",), threads=threads)
            engine = Engine(artifact, provider="cpu", threads=threads)
            on = engine.setting(RISK)
            fixed = engine.off.thresholds.copy()
            spec = artifact.manifest.router
            assert spec is not None
            fixed[next(i for i, d in enumerate(spec.decisions) if d >= 4)] = -np.inf
            for batch in (1, 8, 32):
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
                    rounds,
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


def over_http(build: BuildFile, rounds: int, seconds: int) -> list[dict[str, Any]]:
    """TorchServe with the model's own settings, one row a request, real inputs.

    Beside the model: the same network routed by the norm, and stopped at the shortest fixed depth
    that meets the same risk.
    """
    test = build.recipe.draw("test").inputs[:256].numpy().round(4).tolist()
    on = [json.dumps({"inputs": [row]}).encode() for row in test]
    off = [json.dumps({"inputs": [row], "parameters": {"router": "off"}}).encode() for row in test]
    rows = []
    print("| clients | what runs | requests/s | over full depth | p50 / p99 ms |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        archives = [build.archive, *variants(build, Path(scratch))]
        with Server(archives, Address("127.0.0.1", 18080, 18081)) as server:
            urls = [server.url(manifest) for manifest in server.manifests]
            contenders = {
                "full depth": (urls[0], off),
                build.router.signal: (urls[0], on),
                "norm": (urls[1], on),
                "fixed depth": (urls[2], on),
            }
            for clients in (1, 16, 64):
                loads: dict[str, list[Any]] = {name: [] for name in contenders}
                for _ in range(rounds):
                    for name, (url, texts) in contenders.items():
                        loads[name].append(drive(url, texts, clients, seconds))
                full = [load.requests_per_s for load in loads["full depth"]]
                for name, each in loads.items():
                    pairs = zip(each, full, strict=True)
                    row = {
                        "clients": clients,
                        "what": name,
                        "rps": median(load.requests_per_s for load in each),
                        "ratio": median(load.requests_per_s / base for load, base in pairs),
                        "p50_ms": 1e3 * median(load.p50_s for load in each),
                        "p99_ms": 1e3 * median(load.p99_s for load in each),
                    }
                    rows.append(row)
                    print(
                        "| {clients} | {what} | {rps:,.0f} | {ratio:.2f} | "
                        "{p50_ms:.1f} / {p99_ms:.1f} |".format(**row),
                        flush=True,
                    )
    return rows


def variants(build: BuildFile, root: Path) -> list[Path]:
    """Archives of the same checkpoint: routed by the norm, and at a fixed depth."""
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
    by_norm = read_build_file(root / "export" / "by_norm.toml")
    export(by_norm)
    calibrate(by_norm, lambda line: None)
    made = read_certificates(by_norm.artifact)
    one = next(c for c in made.certificates if (c.risk, c.measure) == (RISK, "disagreement"))
    print(f"norm: {one.run_rate:.1%} of the blocks run when certified", flush=True)
    return [make_archive(by_norm), fixed_depth(build, root)]


def fixed_depth(build: BuildFile, root: Path) -> Path:
    """The model's own file, every row stopped at the shortest depth that meets the risk."""
    directory = Path(shutil.copytree(build.artifact, root / "artifacts" / "fixed"))
    artifact = open_artifact(directory)
    engine = Engine(artifact, provider="cpu")
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
