"""What counting costs: the same model with and without metrics, side by side.

moons_residual without batching (the least work a request can be) and in batches of 16, and
mnist1d_resnet, whose rows have depths and signals to count. Both stand side by side and are driven
in turn, round after round. Prints medians and ratios, one JSON line. What evidence costs is
measured by earning_cost.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from statistics import median
from typing import Any

from wrk import Load, drive

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.training.recipes import open_recipe

ROOT = Path(__file__).parent.parent
PORT = 18350
# name: archive, recipe whose rows are sent, batch size
CASES = {
    "moons_residual, batch 1": ("moons_residual", "two_moons", 1),
    "moons_residual, batch 16": ("moons_residual", "two_moons", 16),
    "mnist1d_resnet, batch 16": ("mnist1d_resnet", "mnist1d", 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    print("| case | clients | without: req/s | with: req/s | ratio | quartiles |")
    print("|---|---|---|---|---|---|")
    rows = [
        row
        for case in options.cases
        for row in measure(case, options.rounds, options.seconds, options.connections)
    ]
    print(json.dumps({"benchmark": "metrics_cost", "rows": rows}))


def measure(case: str, rounds: int, seconds: int, connections: list[int]) -> list[dict[str, Any]]:
    name, recipe, batch_size = CASES[case]
    archive = ROOT / "model_store" / f"{name}.mar"
    inputs = open_recipe(recipe).draw("test").inputs[:200].tolist()
    bodies = [json.dumps({"inputs": [row]}).encode() for row in inputs]
    loads: dict[tuple[bool, int], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for counting in (False, True):
            port = PORT + 10 * counting
            overrides = {"batch_size": batch_size, "evidence": 0.0, "metrics": counting}
            server = Server(
                [archive], HostConfig(Address("127.0.0.1", port, port + 1)), overrides=overrides
            )
            servers[counting] = stack.enter_context(server)
        for number in range(rounds):
            for clients in connections:
                # Whoever comes second finds a warmer machine: take turns.
                for counting in (False, True) if number % 2 else (True, False):
                    server = servers[counting]
                    url = server.url(server.manifests[0])
                    load = drive(url, bodies, clients, seconds)
                    loads.setdefault((counting, clients), []).append(load)
    return [report(case, clients, loads) for clients in connections]


def report(case: str, clients: int, loads: dict[tuple[bool, int], list[Load]]) -> dict[str, Any]:
    off = [load.requests_per_s for load in loads[False, clients]]
    on = [load.requests_per_s for load in loads[True, clients]]
    # Of neighbouring runs, so that drift of the machine cancels.
    ratios = sorted(with_ / without for with_, without in zip(on, off, strict=True))
    row = {
        "case": case,
        "clients": clients,
        "without_rps": median(off),
        "with_rps": median(on),
        "ratio": median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
    }
    print(
        f"| {case} | {clients} | {median(off):,.0f} | {median(on):,.0f} | {row['ratio']:.3f} "
        f"| {row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f} |",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
