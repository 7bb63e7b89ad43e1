"""Ray Serve as a host, on a real cluster of three nodes on this machine (ray_cluster.py).

The tests stand in the order in which they leave less of the cluster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from in_process import in_process
from running import JSON, free_ports, until
from transcript import asks_of, compare, over

pytestmark = pytest.mark.server
HERE = Path(__file__).parent
# A loaded machine takes its time to start the nine processes that replicas and proxies are.
START_S = 180
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
    # How long a node waits for a head that is gone; by default a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
}
MODELS = ("moons_plain", "small")
QUESTION = json.dumps({"inputs": [[0.5, -0.25]]}).encode()


@dataclass
class Cluster:
    """A cluster that serves, as its clients and its operator see it."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    port: int
    store: Path

    def order(self, *words: str) -> None:
        """Have something done, and wait until it is."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        assert json.loads(self.process.stdout.readline())["done"] == words[0]

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, JSON)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/ready")[0] == 200
        except (OSError, HTTPException):
            return False

    def metrics(self) -> str:
        """What Ray's agents show, on every node."""
        texts = []
        for port in self.told["metrics"]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
                texts.append(reply.read().decode())
        return "\n".join(texts)

    def log(self) -> str:
        """What replicas and fronts wrote."""
        files = (Path(self.told["logs"]) / "logs").glob("worker-*.err")
        return "\n".join(file.read_text(errors="replace") for file in files)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=START_S)


@pytest.fixture(scope="module")
def cluster(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    store = tmp_path_factory.mktemp("store")
    for name in MODELS:
        shutil.copy(project / "model_store" / f"{name}.mar", store)
    port, _ = free_ports()
    file = store / "serve.json"
    arguments = {
        "model_store": str(store),
        **{"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1},
        **{"num_cpus": 0.5, "health_check_period_s": 1},
    }
    application = {"name": "skipserve", "route_prefix": "/", "args": arguments}
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                **application,
                "import_path": "skipserve.hosts.ray:app",
                # What one model alone shall have.
                "deployments": [
                    {
                        "name": "moons_plain",
                        "autoscaling_config": {"min_replicas": 1, "max_replicas": 2},
                    }
                ],
            }
        ],
    }
    file.write_text(json.dumps(config))
    with (
        (store / "cluster.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(HERE / "ray_cluster.py"), "2"],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (store / "cluster.log").read_text()
            running = Cluster(process, json.loads(line), port, store)
            address = running.told["address"]
            done = serve("run", f"--address={address}", "--non-blocking", str(file))
            assert done.returncode == 0, done.stderr
            until(running.is_ready, START_S)
            yield running
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def test_the_same_bytes_as_in_one_process(cluster: Cluster) -> None:
    asks = asks_of("ray serve")
    archives = [cluster.store / f"{name}.mar" for name in MODELS]
    compare(asks, over(cluster.port, asks.values()), in_process(archives, asks.values()))


def test_what_replicas_count_is_seen_through_rays_agents(cluster: Cluster) -> None:
    for _ in range(5):
        assert cluster.ask("POST", "/predictions/moons_plain", QUESTION)[0] == 200
    pattern = r'skipserve_requests_total\{[^}]*code="200"[^}]*model="moons_plain"[^}]*\} (\S+)'

    def counted() -> bool:
        text = cluster.metrics()
        assert 'deployment="front-door"' in text
        return sum(map(float, re.findall(pattern, text))) == 5

    until(counted, START_S)
    assert "ray_skipserve_queue_wait_seconds_bucket" in cluster.metrics()


def test_a_node_is_killed_and_whoever_asks_again_loses_nothing(cluster: Cluster) -> None:
    each, lost, unanswered = 60, [0] * 8, [0] * 8
    begun = threading.Semaphore(0)

    def client(number: int) -> None:
        for i in range(each):
            for _ in range(40):
                if cluster.ask("POST", "/predictions/small", QUESTION)[0] == 200:
                    break
                lost[number] += 1
                time.sleep(0.5)
            else:
                unanswered[number] += 1
            if i == each // 4:
                begun.release()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(lost))]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=START_S)
    cluster.order("kill", "0")
    for thread in threads:
        thread.join()
    assert sum(unanswered) == 0
    # Those that were on their way in the front that was killed, and no more.
    assert sum(lost) <= 2 * len(lost)
    until(cluster.is_ready, START_S)


def test_a_head_that_is_gone_is_told_and_nothing_is_ready(cluster: Cluster) -> None:
    assert cluster.ask("POST", "/predictions/small", QUESTION)[0] == 200
    cluster.order("behead")
    until(lambda: cluster.ask("GET", "/ready")[0] == 503, START_S)
    assert cluster.ask("GET", "/live")[0] == 200
    assert cluster.ask("POST", "/predictions/small", QUESTION)[0] == 200
    line = f"not ready: Ray's head at {cluster.told['address']} is gone"
    until(lambda: line in cluster.log())


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a word for a number": (("max_replicas=many",), "max_replicas = 'many'"),
    "more at least than at most": (("min_replicas=3",), "max_replicas 1 is less than min_replicas"),
    "an unknown name": (("replicas=3",), "unknown key 'replicas'; did you mean"),
    "a part of a path": (("model_store=here",), "an absolute path, the same on every node"),
    "an empty folder": ((), "holds no .mar; make one with `skipserve build`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_one_line(name: str, tmp_path: Path) -> None:
    given, expected = WRONG[name]
    arguments = [f"model_store={tmp_path}", *given]
    done = serve("run", "skipserve.hosts.ray:app", *arguments)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "scripts.py" not in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("Error: ")
    assert expected in said[0]
