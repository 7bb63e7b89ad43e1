"""What Ray Serve costs over granian alone, and what a killed node costs a client.

    python benchmarks/ray_cost.py --store model_store --model moons_residual

Three nodes of Ray on this machine: the head, which has the proxy, and two with a front and a
replica each. Rounds alternate between the two hosts. The node is killed under a closed loop of 16
connections to the head's proxy. Prints the table of docs/ray.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from wrk import Load, drive

CLUSTER = Path(__file__).parents[1] / "tests" / "ray_cluster.py"
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
# Whoever joins the cluster is at 127.0.0.1 as well, and does not look for an address of its own.
JOINS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
JSON = {"Content-Type": "application/json"}
TRIES, PAUSE_S = 40, 0.5


def status_of(port: int, method: str, path: str, body: bytes = b"") -> int:
    """The status of a request; 0 without a reply."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, JSON)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def wait_for(port: int, path: str = "/ready") -> None:
    deadline = time.monotonic() + 300
    while status_of(port, "GET", path) != 200:
        if time.monotonic() > deadline:
            sys.exit(f"nothing was ready on port {port} within 300 s")
        time.sleep(0.5)


@contextlib.contextmanager
def granian(store: Path, model: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "skipserve.cli", "serve", model]
    options = [
        *("--model-store", str(store), "--port", str(port)),
        *("--metrics-port", str(port + 1), "--batch-size", "16"),
    ]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(port)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def ray_serve(store: Path, model: str, port: int) -> Iterator[subprocess.Popen[str]]:
    application = {
        "name": "skipserve",
        "route_prefix": "/",
        "import_path": "skipserve.hosts.ray:app",
        "args": {
            "model_store": str(store),
            "models": [model],
            **{"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1},
            "health_check_period_s": 1,
        },
    }
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    with tempfile.TemporaryDirectory(prefix="ray.") as place:
        environment = {**ENVIRONMENT, "RAY_TMPDIR": place}
        file = Path(place) / "serve.json"
        file.write_text(json.dumps(config))
        with subprocess.Popen(
            [sys.executable, str(CLUSTER), "2"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as cluster:
            assert cluster.stdin is not None and cluster.stdout is not None
            address = json.loads(cluster.stdout.readline())["address"]
            cli = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()"]
            run = [*cli, "run", f"--address={address}", "--non-blocking", str(file)]
            subprocess.run(run, env=environment | JOINS, check=True, capture_output=True)
            try:
                wait_for(port)
                yield cluster
            finally:
                cluster.stdin.close()
                cluster.wait(120)


def kill_a_node(
    cluster: subprocess.Popen[str], port: int, path: str, body: bytes, count: int
) -> tuple[int, int, float]:
    """Requests that failed at first, those that never succeeded, and the longest, in seconds."""
    lock = threading.Lock()
    asked, failed, never, longest_s = 0, 0, 0, 0.0
    killed = threading.Event()

    def client() -> None:
        nonlocal asked, failed, never, longest_s
        while True:
            with lock:
                if asked >= count:
                    return
                asked += 1
                if asked > count // 3:
                    killed.set()
            start = time.monotonic()
            answered = status_of(port, "POST", path, body) == 200
            first = answered
            for _ in range(TRIES):
                if answered:
                    break
                time.sleep(PAUSE_S)
                answered = status_of(port, "POST", path, body) == 200
            with lock:
                failed += not first
                never += not answered
                longest_s = max(longest_s, time.monotonic() - start)

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    killed.wait()
    assert cluster.stdin is not None and cluster.stdout is not None
    print("kill", 0, file=cluster.stdin, flush=True)
    cluster.stdout.readline()
    for thread in threads:
        thread.join()
    return failed, never, longest_s


def questions(archive: Path) -> list[bytes]:
    with zipfile.ZipFile(archive) as content:
        example = json.loads(content.read("manifest.json"))["example"]["inputs"]
    return [json.dumps({"inputs": [row]}).encode() for row in example.values()]


def told(name: str, loads: dict[int, list[Load]], best: float | None) -> str:
    one = statistics.median(load.p50_s for load in loads[1]) * 1e6
    tail = statistics.median(load.p99_s for load in loads[1]) * 1e6
    many = statistics.median(load.requests_per_s for load in loads[16])
    more = "" if best is None else f"+{one - best:,.0f}"
    return f"| {name} | {one:,.0f} | {tail:,.0f} | {more} | {many:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    parser.add_argument("--model", default="moons_residual")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--port", type=int, default=19110)
    options = parser.parse_args()
    path, ports = f"/predictions/{options.model}", (options.port, options.port + 10)
    bodies = questions(options.store / f"{options.model}.mar")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        shutil.copy(options.store / f"{options.model}.mar", store)
        measured: dict[str, dict[int, list[Load]]] = {
            name: {1: [], 16: []} for name in ("granian", "Ray Serve")
        }
        with (
            granian(store, options.model, ports[0]),
            ray_serve(store, options.model, ports[1]) as cluster,
        ):
            for port in ports:  # not the first requests
                drive(f"http://127.0.0.1:{port}{path}", bodies, 4, 2)
            for _ in range(options.rounds):
                for connections in (1, 16):
                    for name, port in zip(measured, ports, strict=True):
                        load = drive(
                            f"http://127.0.0.1:{port}{path}", bodies, connections, options.seconds
                        )
                        measured[name][connections].append(load)
            print("| host | p50 µs, 1 connection | p99 µs | over granian | req/s, 16 connections |")
            print("|---|---|---|---|---|")
            best = statistics.median(load.p50_s for load in measured["granian"][1]) * 1e6
            print(told("granian", measured["granian"], None))
            print(told("Ray Serve", measured["Ray Serve"], best), flush=True)
            count = options.requests
            failed, never, longest_s = kill_a_node(cluster, ports[1], path, bodies[0], count)
            print(
                f"\nA node killed under {count:,} requests: {failed} ({failed / count:.2%}) failed "
                f"at first, {never} of those that are asked again up to {TRIES} times; the longest "
                f"took {longest_s:.1f} s."
            )


if __name__ == "__main__":
    main()
