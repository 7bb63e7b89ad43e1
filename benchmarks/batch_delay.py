"""What waiting for a batch costs and gains: TorchServe's way beside ours, by clients.

Needs `skipserve build export/mnist1d_resnet.toml` (or that of --model) and wrk. One server a way,
all of them up, driven in turn in every round; one row a request, batches of 16. TorchServe's own
delay is whole milliseconds for a whole batch; mended it is 0.05 ms for each next request; pipelined
it is what --delays asks for. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from wrk import drive

from skipserve.building.buildfile import read_build_file
from skipserve.serving import torchserve
from skipserve.serving.address import Address
from skipserve.serving.launcher import Server

ROOT = Path(__file__).parent.parent
AS_IT_COMES = "TorchServe's, 1 ms"
WARM_UP_S = 3
MENDED = "mended, 0.05 ms each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--model", default="mnist1d_resnet", help="a build file of export/")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.05, 0.3, 1.0])
    options = parser.parse_args()
    build = read_build_file(ROOT / "export" / f"{options.model}.toml")
    rows = build.trained.recipe.draw("test").inputs[:256].numpy().round(4).tolist()
    bodies = [json.dumps({"inputs": [row]}).encode() for row in rows]
    loads: dict[tuple[int, str], list[Any]] = {}
    with contextlib.ExitStack() as stack:
        urls = {}
        for place, (name, asked) in enumerate(ways(options.delays)):
            address = Address("127.0.0.1", 18080 + 10 * place, 18081 + 10 * place)
            with unmended() if name == AS_IT_COMES else contextlib.nullcontext():
                server = stack.enter_context(Server([build.archive], address, asked))
            urls[name] = server.url(server.manifests[0])
            drive(urls[name], bodies, 16, WARM_UP_S)
        for _ in range(options.rounds):
            for clients in options.clients:
                for name, url in urls.items():
                    load = drive(url, bodies, clients, options.seconds)
                    loads.setdefault((clients, name), []).append(load)
    print_table(loads)


def ways(delays: list[float]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with the settings that it takes."""
    batches: dict[str, Any] = {"batch_size": 16}
    yield AS_IT_COMES, {**batches, "pipelined": False, "max_batch_delay_ms": 1.0}
    yield MENDED, {**batches, "pipelined": False, "max_batch_delay_ms": 0.05}
    for delay in delays:
        asked = {**batches, "pipelined": True, "max_batch_delay_ms": delay}
        yield f"pipelined, {delay:g} ms", asked


def unmended() -> Any:
    """Servers started meanwhile have TorchServe's own classes."""
    return mock.patch.object(torchserve, "patch_frontend")


def print_table(loads: dict[tuple[int, str], list[Any]]) -> None:
    print("| clients | way | requests/s | over TorchServe's | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    rows = []
    for (clients, name), each in loads.items():
        pairs = zip(each, loads[clients, AS_IT_COMES], strict=True)
        row = {
            "clients": clients,
            "way": name,
            "rps": median(load.requests_per_s for load in each),
            "ratio": median(load.requests_per_s / base.requests_per_s for load, base in pairs),
            "p50_ms": 1e3 * median(load.p50_s for load in each),
            "p99_ms": 1e3 * median(load.p99_s for load in each),
        }
        rows.append(row)
        line = "| {clients} | {way} | {rps:,.0f} | {ratio:.2f} | {p50_ms:.2f} | {p99_ms:.1f} |"
        print(line.format(**row))
    print(json.dumps({"benchmark": "batch_delay", "rows": rows}))


if __name__ == "__main__":
    main()
