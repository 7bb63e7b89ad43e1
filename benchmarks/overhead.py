"""What the handler costs: moons_residual against a no-op handler under the same TorchServe.

All servers stand side by side and are driven in turn, round after round, so that a noisy machine
is noisy for all of them. Prints medians and ratios, and one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from wrk import Load, drive

from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve.packaging import package

HERE = Path(__file__).parent
BATCHING: dict[str, dict[str, Any]] = {
    "batch 1": {"batch_size": 1},
    "batch 16": {"batch_size": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    options = parser.parse_args()
    build = read_build_file(HERE.parent / "export" / "moons_residual.toml")
    manifest = open_artifact(build.artifact).manifest
    body = json.dumps(manifest.request_of(manifest.example.inputs)).encode()
    loads: dict[tuple[str, str, int], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        stores = {
            "no-op": package(build.artifact, HERE / "noop_handler.py", build.serving, _dir(stack)),
            "moons_residual": package(build.artifact, build.handler, build.serving, _dir(stack)),
        }
        servers = {}
        for batching, overrides in BATCHING.items():
            for handler, archive in stores.items():
                port = 18080 + 10 * len(servers)
                config = HostConfig(Address("127.0.0.1", port, port + 1))
                server = Server([archive], config, "torchserve", overrides)
                servers[batching, handler] = stack.enter_context(server)
        for _ in range(options.rounds):
            for connections in options.connections:
                for (batching, handler), server in servers.items():
                    url = server.url(server.manifests[0])
                    load = drive(url, [body], connections, options.seconds)
                    loads.setdefault((batching, handler, connections), []).append(load)
    report(loads)


def report(loads: dict[tuple[str, str, int], list[Load]]) -> None:
    print("| batching | clients | no-op p50 ms | ours p50 ms | ratio | no-op req/s | ours req/s |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for batching, handler, connections in loads:
        if handler == "no-op":
            continue
        ours = loads[batching, handler, connections]
        noop = loads[batching, "no-op", connections]
        row = {
            "batching": batching,
            "clients": connections,
            "noop_p50_ms": 1e3 * median(load.p50_s for load in noop),
            "ours_p50_ms": 1e3 * median(load.p50_s for load in ours),
            # Of neighbouring runs, so that drift of the machine cancels.
            "ratio": median(a.p50_s / b.p50_s for a, b in zip(ours, noop, strict=True)),
            "noop_rps": median(load.requests_per_s for load in noop),
            "ours_rps": median(load.requests_per_s for load in ours),
        }
        rows.append(row)
        print(
            "| {batching} | {clients} | {noop_p50_ms:.3f} | {ours_p50_ms:.3f} | {ratio:.2f} "
            "| {noop_rps:,.0f} | {ours_rps:,.0f} |".format(**row)
        )
    print(json.dumps({"benchmark": "overhead", "rows": rows}))


def _dir(stack: contextlib.ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))


if __name__ == "__main__":
    main()
