"""What replies that leave with their last row are worth: requests/s, p50 and p99 at the client.

Three services of one archive take turns, each driven by wrk: one answers whole batches at once, one
lets replies leave, and one also lets new requests overtake the deep rows of a batch. Prints a table
of ratios over the first, medians of the rounds, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from urllib.error import URLError

import numpy as np
from wrk import Load, drive

from skipserve.direct import open_directly

HERE = Path(__file__).parent
PORT = 18300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="mnist1d_resnet")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--rows", type=Path, help=".npz; the first array in it is sent")
    parser.add_argument("--join-ms", type=float, nargs="*", default=[5.0, 10.0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    bodies = asked(options.model, options.rows)
    ways = {"whole batches": ({"PYTHONPATH": path("whole_batches")}, [])}
    ways |= {"replies leave": ({}, [])}
    ways |= {f"join within {ms:g} ms": ({}, ["--join-ms", str(ms)]) for ms in options.join_ms}
    running, urls = [], {}
    try:
        for i, (name, (environment, arguments)) in enumerate(ways.items()):
            running.append(start(options, PORT + 10 * i, environment, arguments))
            urls[name] = f"http://127.0.0.1:{PORT + 10 * i}/predictions/{options.model}"
        report(measured(urls, bodies, options), options)
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(60)


def path(folder: str) -> str:
    return os.pathsep.join(
        [str(HERE / folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )


def asked(model: str, file: Path | None) -> list[bytes]:
    """Requests of one row each."""
    if file is not None:
        with np.load(file) as arrays:
            rows = arrays[arrays.files[0]][:512]
    else:
        from skipserve.building.buildfile import read_build_file

        build = read_build_file(HERE.parent / "export" / f"{model}.toml")
        rows = build.trained.recipe.draw("test").inputs[:512].numpy()
    numbers = [np.round(row[None].astype(float), 4).tolist() for row in rows]
    return [json.dumps({"inputs": one}, separators=(",", ":")).encode() for one in numbers]


def start(
    options: argparse.Namespace, port: int, environment: dict[str, str], arguments: list[str]
) -> subprocess.Popen[bytes]:
    command = [shutil.which("skipserve") or "skipserve", "serve", options.model, *arguments]
    command += ["--model-store", str(options.model_store), "--batch-size", "16"]
    command += ["--port", str(port), "--metrics-port", str(port + 1)]
    running = subprocess.Popen(command, env={**os.environ, **environment})
    while running.poll() is None:
        try:
            with open_directly(f"http://127.0.0.1:{port + 1}/ready", 10):
                return running
        except (URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("the service did not start")


def measured(
    urls: dict[str, str], bodies: list[bytes], options: argparse.Namespace
) -> dict[tuple[int, str], list[Load]]:
    for url in urls.values():
        drive(url, bodies, 16, 2)
    loads: dict[tuple[int, str], list[Load]] = {}
    for turn in range(options.rounds):
        for connections in options.connections:
            # Whoever comes first in a round is another one each time.
            for name in [*urls][turn % len(urls) :] + [*urls][: turn % len(urls)]:
                load = drive(urls[name], bodies, connections, options.seconds)
                loads.setdefault((connections, name), []).append(load)
    return loads


def report(loads: dict[tuple[int, str], list[Load]], options: argparse.Namespace) -> None:
    print(f"{options.model}, {options.rounds} rounds of {options.seconds} s")
    print("| connections | | req/s | p50 ms | p99 ms | req/s × | p50 × | p99 × |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for (connections, name), some in loads.items():
        base = loads[connections, "whole batches"]
        row = {"connections": connections, "way": name}
        for key in ("requests_per_s", "p50_s", "p99_s"):
            values = [getattr(one, key) for one in some]
            row[key] = median(values)
            row[f"{key} ratio"] = median(
                a / getattr(b, key) for a, b in zip(values, base, strict=True)
            )
        rows.append(row)
        print(
            f"| {connections} | {name} | {row['requests_per_s']:.0f} | {row['p50_s'] * 1e3:.2f} | "
            f"{row['p99_s'] * 1e3:.2f} | {row['requests_per_s ratio']:.2f} | "
            f"{row['p50_s ratio']:.2f} | {row['p99_s ratio']:.2f} |"
        )
    print(json.dumps({"benchmark": "early", "model": options.model, "rows": rows}))


if __name__ == "__main__":
    main()
