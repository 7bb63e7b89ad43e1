"""How long a service takes until it is ready, and what it holds then.

Starts `skipserve serve` anew for every round, with nothing cached but by the operating system, asks
`/ready` until it says so, has every model answer its example some times, and adds up the memory of
all processes: their PSS, which counts a page that is shared among the processes once. Prints a
table, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import Request

import psutil

from skipserve.artifacts.artifact import MANIFEST
from skipserve.artifacts.manifest import Manifest
from skipserve.direct import open_directly
from skipserve.schema import parse

PORT, METRICS_PORT = 18080, 18081
ANSWERS = 200


@dataclass(frozen=True)
class Started:
    """One start.

    Attributes:
        ready_s: Seconds from the command to the first `/ready` that says yes.
        pss_mb: Of each process, by what it is.
    """

    ready_s: float
    pss_mb: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="all of the store by default")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--skipserve", default=shutil.which("skipserve"), help="the command")
    parser.add_argument("--server", default="granian", help="granian or torchserve")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    store, models = options.model_store, options.models
    manifests = [manifest(store / f"{name}.mar") for name in models or names(store)]
    command = [options.skipserve, "serve", *models, "--model-store", str(store)]
    command += ["--port", str(PORT), "--metrics-port", str(METRICS_PORT)]
    command += ["--server", options.server]
    report([start(command, manifests) for _ in range(options.rounds)], manifests)


def names(store: Path) -> list[str]:
    return sorted(archive.stem for archive in store.glob("*.mar"))


def manifest(archive: Path) -> Manifest:
    with zipfile.ZipFile(archive) as content:
        return parse(Manifest, json.loads(content.read(MANIFEST)), str(archive))


def start(command: list[str], manifests: list[Manifest]) -> Started:
    with tempfile.TemporaryFile() as log:
        begun = time.perf_counter()
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not answers(f"http://127.0.0.1:{METRICS_PORT}/ready"):
                if running.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.01)
            ready_s = time.perf_counter() - begun
            for one in manifests:
                body = json.dumps(one.request_of(one.example.inputs)).encode()
                url = f"http://127.0.0.1:{PORT}/predictions/{one.name}"
                for _ in range(ANSWERS):
                    assert answers(Request(url, body, {"content-type": "application/json"}))
            return Started(ready_s, memory(running.pid))
        finally:
            running.terminate()
            running.wait(60)


def answers(asked: str | Request) -> bool:
    try:
        with open_directly(asked, 10) as reply:
            reply.read()
    except (URLError, ConnectionError):
        return False
    return True


def memory(pid: int) -> dict[str, float]:
    """PSS of a launcher and of all below it, in MB."""
    launcher = psutil.Process(pid)
    found = {"launcher": pss(launcher)}
    for host in launcher.children():
        found["host"] = pss(host)
        for i, worker in enumerate(host.children(recursive=True)):
            found[f"worker {i + 1}"] = pss(worker)
    return found


def pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6


def report(started: list[Started], manifests: list[Manifest]) -> None:
    ready = sorted(one.ready_s for one in started)
    parts = {part: median(one.pss_mb[part] for one in started) for part in started[0].pss_mb}
    total = median(sum(one.pss_mb.values()) for one in started)
    models = [one.name for one in manifests]
    print(f"{', '.join(models)}; {len(started)} starts")
    print(f"ready after {median(ready):.2f} s (fastest {ready[0]:.2f}, slowest {ready[-1]:.2f})")
    print(f"{total:.0f} MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in parts.items()))
    row = {"models": models, "ready_s": ready, "pss_mb": parts, "total_mb": total}
    print(json.dumps({"benchmark": "cold_start", **row}))


if __name__ == "__main__":
    main()
