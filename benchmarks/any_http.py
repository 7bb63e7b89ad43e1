"""Requests/s of a network that was brought, over HTTP: router on over full depth.

    python benchmarks/any_http.py model_store/fashion.mar --rows .build/fashion/fashion-test.npz

One row a request as JSON, the model's own settings and risk, one worker; wrk drives it. Router on
and off take turns, round by round. Run it on a quiet machine: client and service share its cores.
Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from wrk import Load, drive

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.sources.data import match, read_columns

ROWS = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--server", choices=["granian", "torchserve"], default="granian")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--port", type=int, default=19_300)
    options = parser.parse_args()
    address = Address("127.0.0.1", options.port, options.port + 1)
    found = []
    with Server([options.archive], HostConfig(address), server=options.server) as server:
        (manifest,) = server.manifests
        url = server.url(manifest)
        rows = match(
            read_columns(options.rows), manifest.signature, {}, None, str(options.rows)
        ).rows[:ROWS]
        ways = {way: bodies(rows.tensors, way) for way in ("off", "on")}
        print("| connections | full depth, requests/s | router | over it | p50 / p99 ms: off, on |")
        print("|---|---|---|---|---|")
        for connections in options.connections:
            loads: dict[str, list[Load]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, texts in ways.items():
                    loads[way].append(drive(url, texts, connections, options.seconds))
            found.append(summary(connections, loads))
            print(
                "| {connections} | {off_rps:,.0f} | {on_rps:,.0f} | {ratio:.2f} "
                "| {off_p50_ms:.1f} / {off_p99_ms:.1f}, {on_p50_ms:.1f} / {on_p99_ms:.1f} |".format(
                    **found[-1]
                ),
                flush=True,
            )
    result = {"benchmark": "any_http", "model": manifest.name, "server": options.server}
    print(json.dumps({**result, "rows": found}))


def bodies(tensors: dict[str, Any], router: str) -> list[bytes]:
    """A request for each row; numbers as a client would write them."""
    made = []
    for i in range(len(next(iter(tensors.values())))):
        row = {name: _numbers(tensor[i : i + 1]) for name, tensor in tensors.items()}
        inputs = row if len(row) > 1 else next(iter(row.values()))
        made.append(json.dumps({"inputs": inputs, "parameters": {"router": router}}).encode())
    return made


def _numbers(tensor: Any) -> Any:
    return np.round(tensor, 4).tolist() if tensor.dtype.kind == "f" else tensor.tolist()


def summary(connections: int, loads: dict[str, list[Load]]) -> dict[str, float]:
    row: dict[str, float] = {"connections": connections}
    for way, each in loads.items():
        row[f"{way}_rps"] = median(load.requests_per_s for load in each)
        row[f"{way}_p50_ms"] = 1e3 * median(load.p50_s for load in each)
        row[f"{way}_p99_ms"] = 1e3 * median(load.p99_s for load in each)
    pairs = zip(loads["on"], loads["off"], strict=True)
    row["ratio"] = median(on.requests_per_s / off.requests_per_s for on, off in pairs)
    return row


if __name__ == "__main__":
    main()
