"""Latency at a stated rate: requests come at their times, whether or not the last were answered.

    python benchmarks/stated_rate.py model_store/mnist1d_resnet.mar --rows rows.npz \\
        --rates 800 1000 1200

A closed loop asks less often when answers are slow, so it hides how long people wait. Here requests
of one row are due at random times (exponential gaps), and a request's time counts from when it was
due. The model's own settings and risk, one worker; router off and on take turns, round by round. A
request that is refused, because it would wait too long, is answered but not within its
time: it counts as not served. Prints a table and one JSON line; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from any_http import ROWS, bodies
from open_loop import Clients, TimedReply, quantile_ms

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.sources.columns import read_columns
from skipserve.sources.matching import match

WAYS = ("off", "on")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", required=True, help="requests a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--port", type=int, default=19_320)
    options = parser.parse_args()
    address = Address("127.0.0.1", options.port, options.port + 1)
    with Server([options.archive], HostConfig(address)) as server:
        (manifest,) = server.manifests
        columns = read_columns(options.rows)
        rows = match(columns, manifest.signature, {}, None, str(options.rows)).rows[:ROWS]
        path = f"/predictions/{manifest.name}"
        ways = {way: Clients(options.port, path, bodies(rows.tensors, way)) for way in WAYS}
        for clients in ways.values():  # what a first request does is no latency of a service
            uvloop.run(clients.closed(4, 1.0))
        print("| requests/s | router | p50 ms | p99 ms | not served |\n|---|---|---|---|---|")
        found = []
        for rate in options.rates:
            heard: dict[str, list[list[TimedReply]]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, clients in ways.items():
                    heard[way].append(uvloop.run(clients.open(rate, options.seconds)))
            found += [summary(rate, way, rounds) for way, rounds in heard.items()]
            for row in found[-len(WAYS) :]:
                print(
                    "| {rate:,.0f} | {router} | {p50_ms:.1f} | {p99_ms:.1f} | {lost:.1%} |".format(
                        **row
                    ),
                    flush=True,
                )
    print(json.dumps({"benchmark": "stated_rate", "model": manifest.name, "rows": found}))


def summary(rate: float, way: str, rounds: list[list[TimedReply]]) -> dict[str, Any]:
    """Medians over the rounds; times of the requests that were served."""
    served = [[one for one in some if one.status == 200] for some in rounds]
    return {
        "rate": rate,
        "router": way,
        "p50_ms": median(quantile_ms(some, 0.5) for some in served),
        "p99_ms": median(quantile_ms(some, 0.99) for some in served),
        "lost": 1 - sum(map(len, served)) / sum(map(len, rounds)),
    }


if __name__ == "__main__":
    main()
