"""A certificate earned on traffic, end to end: a real server, a constant rate, a drift, a kill.

    python benchmarks/earned.py --artifact artifacts/mnist1d_resnet [--rate 300]

The artifact is packaged without its certificates and served by granian with two workers. Clients
send single rows at a constant rate throughout: ordinary ones until a certificate is earned, then
mixtures of two signals until it is withdrawn, then ordinary ones until one is earned again; in the
middle of that a worker is killed (SIGKILL), and at the end the whole service, which goes on where
it was. A request whose connection breaks is sent once more, as HTTP clients do.

The same artifact with its offline certificate is served first, under the same traffic and the same
share of evidence: what rows at full depth cost is in both figures. Prints a table and one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import read_certificates, write_certificates
from skipserve.artifacts.manifest import write_manifest
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import HANDLER
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve.packaging import package
from skipserve.routing.config import Earning
from skipserve.safety.standing import STATE_VARIABLE
from skipserve.training.recipes import open_recipe

Rows = NDArray[np.float32]
THREADS = 8
# Rows that say whether the router is on.
ENOUGH = 50
EPSILON = 0.01
# One row in a hundred runs everything: in 20 s chance alone moves a run rate by a twentieth.
WINDOW_S = 60
MODEL = "mnist1d_resnet"
OFFLINE, LATER = "run rate of the offline certificate", "run rate a minute later"


class Traffic:
    """Single rows at a constant rate from a few threads; whoever watches swaps the rows.

    Args:
        url: Host and port.
        path: Of the model.
        rows: To begin with.
        rate: Requests a second.
    """

    def __init__(self, host: str, port: int, path: str, rows: Rows, rate: float) -> None:
        self._target, self._path = (host, port), path
        self.rows = rows
        self._pause_s = THREADS / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.sent = self.failed = self.again = 0
        self.depths: list[int] = []
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def window(self) -> list[int]:
        """Depths of the rows since the last call."""
        with self._lock:
            depths, self.depths = self.depths, []
        return depths

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        random = np.random.default_rng(number)
        connection = HTTPConnection(*self._target, timeout=30)
        due = time.perf_counter() + number * self._pause_s / THREADS
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            due += self._pause_s
            row = self.rows[random.integers(len(self.rows))]
            body = json.dumps({"inputs": [row.tolist()]}).encode()
            depth = self._ask(connection, body)
            with self._lock:
                self.sent += 1
                self.failed += depth is None
                if depth is not None:
                    self.depths.append(depth)

    def _ask(self, connection: HTTPConnection, body: bytes) -> int | None:
        for attempt in range(2):
            try:
                connection.request("POST", self._path, body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                return answer["outputs"][0]["depth_run"] if reply.status == 200 else None
            except (OSError, HTTPException):
                connection.close()
                with self._lock:
                    self.again += not attempt
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("artifacts/mnist1d_resnet"))
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--port", type=int, default=18_380)
    parser.add_argument("--eager-rows", type=int, help="by default what a build file gets")
    options = parser.parse_args()
    inputs = open_recipe("mnist1d").draw("test").inputs.numpy()
    mixed = (inputs + inputs[np.random.default_rng(0).permutation(len(inputs))]) / 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ[STATE_VARIABLE] = str(Path(folder) / "state-offline")
        offline = packaged(options.artifact, Path(folder) / "offline")
        found = {OFFLINE: served(offline, options, inputs, warm_s=5)}
        earning = {"certificate": "earned"}
        if options.eager_rows is not None:
            earning["eager_rows"] = options.eager_rows
        os.environ[STATE_VARIABLE] = str(Path(folder) / "state")
        archive = packaged(options.artifact, Path(folder) / "earned", earning)
        found |= run(archive, options, inputs, np.float32(mixed))
    found["over that of the offline certificate"] = found[LATER] / found[OFFLINE]
    found["run rate that the offline certificate says"] = said(options.artifact)
    print("| what | figure |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.3f} |" if isinstance(value, float) else f"| {name} | {value} |")
    print(json.dumps({"benchmark": "earned", **found}))


def run(archive: Path, options: Any, ordinary: Rows, mixed: Rows) -> dict[str, Any]:
    found: dict[str, Any] = {}
    config = HostConfig(Address("127.0.0.1", options.port, options.port + 1), workers=2)
    server = Server([archive], config)
    depth = server.manifests[0].depth
    traffic = Traffic("127.0.0.1", options.port, f"/predictions/{MODEL}", ordinary, options.rate)
    try:
        time.sleep(2)
        found["run rate at first"] = np.mean(traffic.window()) / depth
        found["seconds until the router is on"] = wait(lambda: routed(traffic, depth), 120)
        time.sleep(60)
        traffic.window()
        time.sleep(WINDOW_S)
        found[LATER] = np.mean(traffic.window()) / depth
        traffic.rows = mixed
        found["seconds from the drift to full depth"] = wait(
            lambda: not routed(traffic, depth), 240
        )
        traffic.rows = ordinary
        time.sleep(2)
        os.kill(workers()[0], signal.SIGKILL)
        found["seconds until it is earned again, a worker killed"] = wait(
            lambda: routed(traffic, depth), 240
        )
    finally:
        traffic.close()
        server.close()
    found |= {
        "requests": traffic.sent,
        "failed": traffic.failed,
        "sent once more": traffic.again,
    }
    found["run rate after a restart"] = served(archive, options, ordinary)
    return found


def served(archive: Path, options: Any, rows: Rows, warm_s: float = 0.0) -> float:
    """Run rate of a service under the traffic, evidence included."""
    config = HostConfig(Address("127.0.0.1", options.port, options.port + 1), workers=2)
    with Server([archive], config) as server:
        path = f"/predictions/{MODEL}"
        traffic = Traffic("127.0.0.1", options.port, path, rows, options.rate)
        try:
            time.sleep(warm_s)
            traffic.window()
            time.sleep(WINDOW_S)
            return float(np.mean(traffic.window())) / server.manifests[0].depth
        finally:
            traffic.close()


def routed(traffic: Traffic, depth: int) -> bool:
    """Whether most rows of the last moment left early; waits until some were answered."""
    depths: list[int] = []
    while len(depths) < ENOUGH:
        time.sleep(0.5)
        depths += traffic.window()
    return float(np.mean(depths)) < 0.7 * depth


def wait(done: Callable[[], bool], most_s: float) -> float:
    start = time.perf_counter()
    while not done():
        if time.perf_counter() - start > most_s:
            print(f"not within {most_s:g} s", file=sys.stderr)
            return float("nan")
    return time.perf_counter() - start


def workers() -> list[int]:
    """The processes that serve: the leaves of the launcher's tree, the largest first."""
    leaves = [one for one in psutil.Process().children(recursive=True) if not one.children()]
    return [one.pid for one in sorted(leaves, key=lambda one: -one.memory_info().rss)]


def packaged(artifact: Path, folder: Path, earning: dict[str, Any] | None = None) -> Path:
    """The archive of an artifact; without its certificates where they shall be earned.

    Args:
        artifact: With candidates and certificates.
        folder: Where it is put.
        earning: What the build file says of earning; ``None``: the artifact stays as it is.
    """
    copy = folder / artifact.name
    shutil.copytree(artifact, copy)
    if earning is not None:
        made = read_certificates(copy)
        write_certificates(copy, made.model_copy(update={"certificates": (), "refusals": ()}))
        manifest = open_artifact(copy).manifest
        assert manifest.router is not None
        # The settings that a build file gets, and not those that the artifact was made with.
        spec = manifest.router.model_copy(update=dict(Earning(**earning)))
        write_manifest(copy, manifest.model_copy(update={"router": spec}))
    serving = ServingConfig(risk=EPSILON, batch_size=16)
    return package(copy, HANDLER, serving, folder / "store")


def said(artifact: Path) -> float:
    """Run rate that the artifact's own certificate says, of routed rows; NaN without one."""
    opened = open_artifact(artifact)
    files = opened.hashes("onnx", "fp32")
    rates = [
        one.run_rate
        for one in opened.certificates.certificates
        if (one.risk, one.measure, one.files) == (EPSILON, "disagreement", files)
    ]
    return rates[0] if rates else float("nan")


if __name__ == "__main__":
    main()
