"""Requests/s of a network that was brought, over HTTP: router on over full depth.

    python benchmarks/any_http.py model_store/fashion.mar --rows .build/fashion/fashion-test.npz

With `--against ARCHIVE` the full depth of another model of the same rows is driven beside it: the
same network in FP32, say, beside INT8.

One row a request as JSON, the model's own settings and risk, one worker; wrk drives it. Router on
and off take turns, round by round. Run it on a quiet machine: client and service share its cores.
On a busy one the CPU time of the service tells more: milliseconds of it a request stand in the last
column, with their ratio. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from wrk import Load, drive

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match

ROWS = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="archive whose full depth is driven too")
    parser.add_argument("--server", choices=["granian", "torchserve"], default="granian")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--port", type=int, default=19_300)
    options = parser.parse_args()
    address = Address("127.0.0.1", options.port, options.port + 1)
    found = []
    archives = [one for one in (options.archive, options.against) if one is not None]
    with Server(archives, HostConfig(address), server=options.server) as server:
        manifest, *others = server.manifests
        rows = match(
            read_columns(options.rows), manifest.signature, {}, None, str(options.rows)
        ).rows[:ROWS]
        ways = {way: (server.url(manifest), bodies(rows.tensors, way)) for way in ("off", "on")}
        for other in others:
            ways["against"] = server.url(other), bodies(rows.tensors, "off")
        print(
            "| connections | full depth, requests/s | router | over it | p50 / p99 ms: off, on "
            "| CPU ms a request: off, on |\n|---|---|---|---|---|---|"
        )
        processes = [*psutil.Process().children(recursive=True), psutil.Process()]
        for connections in options.connections:
            loads: dict[str, list[Load]] = {way: [] for way in ways}
            cpu: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, (url, texts) in ways.items():
                    before = cpu_seconds(processes)
                    load = drive(url, texts, connections, options.seconds)
                    answered = load.requests_per_s * options.seconds
                    cpu[way].append(1e3 * (cpu_seconds(processes) - before) / answered)
                    loads[way].append(load)
            found.append(summary(connections, loads) | used(cpu))
            print(
                "| {connections} | {off_rps:,.0f} | {on_rps:,.0f} | {ratio:.2f} "
                "| {off_p50_ms:.1f} / {off_p99_ms:.1f}, {on_p50_ms:.1f} / {on_p99_ms:.1f} "
                "| {off_cpu_ms:.2f}, {on_cpu_ms:.2f} ({cpu_ratio:.2f}) |".format(**found[-1]),
                flush=True,
            )
            if others:
                over, rps = found[-1]["over_against"], found[-1]["against_rps"]
                cpu_over = found[-1]["cpu_over_against"]
                print(f"  {over:.2f} × {others[0].name} at full depth ({rps:,.0f} requests/s)")
                print(f"  {cpu_over:.2f} × less CPU time a request")
    result = {"benchmark": "any_http", "model": manifest.name, "server": options.server}
    print(json.dumps({**result, "rows": found}))


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """CPU time of the service so far, in seconds; wrk is a child that began later."""
    times = [one.cpu_times() for one in processes]
    return float(sum(one.user + one.system for one in times))


def used(cpu: dict[str, list[float]]) -> dict[str, float]:
    """CPU milliseconds of the service for one request, by way, and how many times less routed."""
    row = {f"{way}_cpu_ms": median(each) for way, each in cpu.items()}
    for way, name in (("off", "cpu_ratio"), ("against", "cpu_over_against")):
        if way in cpu:
            row[name] = median(a / on for a, on in zip(cpu[way], cpu["on"], strict=True))
    return row


def bodies(tensors: dict[str, Any], router: str) -> list[bytes]:
    """A request for each row; numbers as a client would write them."""
    made = []
    for i in range(len(next(iter(tensors.values())))):
        row = {name: _numbers(tensor[i : i + 1]) for name, tensor in tensors.items()}
        inputs = row if len(row) > 1 else next(iter(row.values()))
        made.append(json.dumps({"inputs": inputs, "parameters": {"router": router}}).encode())
    return made


def _numbers(tensor: Any) -> Any:
    if tensor.dtype.kind == "f":
        # In FP64, because four digits of an FP32 number are written with seventeen.
        tensor = np.round(tensor.astype(float), 4)
    return tensor.tolist()


def summary(connections: int, loads: dict[str, list[Load]]) -> dict[str, float]:
    row: dict[str, float] = {"connections": connections}
    for way, each in loads.items():
        row[f"{way}_rps"] = median(load.requests_per_s for load in each)
        row[f"{way}_p50_ms"] = 1e3 * median(load.p50_s for load in each)
        row[f"{way}_p99_ms"] = 1e3 * median(load.p99_s for load in each)
    pairs = zip(loads["on"], loads["off"], strict=True)
    row["ratio"] = median(on.requests_per_s / off.requests_per_s for on, off in pairs)
    if "against" in loads:
        pairs = zip(loads["on"], loads["against"], strict=True)
        row["over_against"] = median(on.requests_per_s / one.requests_per_s for on, one in pairs)
    return row


if __name__ == "__main__":
    main()
