"""What evidence costs a model that skips: latency at half load, requests a second at saturation.

    python benchmarks/earning_cost.py --artifact artifacts/mnist1d_resnet

Three services of the same artifact stand side by side, each with one worker: with its offline
certificate and no evidence, the same with one row in a hundred as evidence, and at full depth. Each
is driven in turn, round after round, so that what the machine does meanwhile meets all of them:

- ``saturation``: closed loop, 16 connections. Of requests/s, at most
  1.3 × share × (cost of a full-depth row ÷ cost of a routed row) may be lost.
- ``half load``: open loop, at half the requests/s that the service without evidence answers.
  Latencies from when a request was due, and processor time of the worker for a request, which a
  busy machine disturbs less.

Prints medians over the rounds of ratios within a round, with their 95 % intervals (by resampling
the rounds), and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from earned import EPSILON, MODEL, packaged
from open_loop import Clients, quantile_ms

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.safety.standing import STATE_VARIABLE
from skipserve.training.recipes import open_recipe

CONNECTIONS, SHARE = 16, 0.01
NONE, SOME, FULL = "no evidence", "evidence", "full depth"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    NONE: {"risk": EPSILON, "evidence": 0.0},
    SOME: {"risk": EPSILON, "evidence": SHARE},
    FULL: {"risk": None, "evidence": 0.0},
}
RESAMPLED = 4_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("artifacts/mnist1d_resnet"))
    parser.add_argument("--port", type=int, default=18_400)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each service in a round")
    options = parser.parse_args()
    inputs = open_recipe("mnist1d").draw("test").inputs[:500].tolist()
    bodies = [json.dumps({"inputs": [row]}).encode() for row in inputs]
    said: dict[str, Any] = {"benchmark": "earning_cost", "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        archive = packaged(options.artifact, Path(folder))
        served: dict[str, tuple[Clients, psutil.Process]] = {}
        for place, (name, overrides) in enumerate(SETTINGS.items()):
            os.environ[STATE_VARIABLE] = str(Path(folder) / f"state-{place}")
            port, before = options.port + 10 * place, set(leaves())
            config = HostConfig(Address("127.0.0.1", port, port + 1), workers=1)
            stack.enter_context(Server([archive], config, overrides=dict(overrides)))
            (worker,) = sorted(set(leaves()) - before, key=lambda one: -one.memory_info().rss)[:1]
            served[name] = Clients(port, f"/predictions/{MODEL}", bodies), worker
        # Whoever comes second finds a warmer machine: take turns.
        turns = [list(SETTINGS)[:: 1 if number % 2 else -1] for number in range(options.rounds)]
        rates = [{name: rate(served[name][0], options.seconds) for name in turn} for turn in turns]
        half = float(np.median([one[NONE] for one in rates])) / 2
        loads = [
            {name: load(*served[name], half, options.seconds) for name in turn if name != FULL}
            for turn in turns
        ]
    depth_costs = ratio([one[NONE] / one[FULL] for one in rates])
    said["full-depth row ÷ routed row"] = depth_costs
    said["lost at saturation"] = ratio([1 - one[SOME] / one[NONE] for one in rates])
    said["allowed"] = 1.3 * SHARE * depth_costs[0]
    said["half load, requests/s"] = half
    for what in ("p50_ms", "mean_ms", "p99_ms", "cpu_ms"):
        said[f"half load, {what}"] = float(np.median([one[NONE][what] for one in loads]))
        said[f"half load, {what}, with ÷ without"] = ratio(
            [one[SOME][what] / one[NONE][what] for one in loads]
        )
    for name, value in said.items():
        print(f"| {name} | {value} |")
    print(json.dumps(said))


def leaves() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if not one.children()]


def rate(clients: Clients, seconds: float) -> float:
    """Requests a second that are answered."""
    found = asyncio.run(clients.closed(CONNECTIONS, seconds))
    assert all(one.status == 200 for one in found)
    return len(found) / seconds


def load(clients: Clients, worker: psutil.Process, at: float, seconds: float) -> dict[str, float]:
    """Latencies, and processor time of the worker for a request, at so many requests a second."""
    before = worker.cpu_times()
    found = asyncio.run(clients.open(at, seconds))
    assert all(one.status == 200 for one in found)
    after = worker.cpu_times()
    spent_s = after.user + after.system - before.user - before.system
    return {
        "p50_ms": quantile_ms(found, 0.5),
        "p99_ms": quantile_ms(found, 0.99),
        "mean_ms": 1e3 * float(np.mean([one.took_s for one in found])),
        "cpu_ms": 1e3 * spent_s / len(found),
    }


def ratio(of: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the ends of its 95 % interval."""
    values, rng = np.array(of), np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (RESAMPLED, len(values)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return round(float(np.median(values)), 4), round(float(low), 4), round(float(high), 4)


if __name__ == "__main__":
    main()
