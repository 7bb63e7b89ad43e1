"""Ray Serve as a host, on a real cluster of three nodes on this machine (ray_cluster.py).

The tests stand in the order in which they leave less of the cluster.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import in_process
from ray_service import ENVIRONMENT, START_S, Cluster, serve
from running import JSON, free_ports, until
from transcript import asks_of, compare, over

from skipserve.protocols.messages import MAX_BODY_BYTES

pytestmark = pytest.mark.server
SUPPORT = Path(__file__).parents[1] / "support"
MODELS = ("moons_plain", "small")
PAGE = "https://page.example"
QUESTION = json.dumps({"inputs": [[0.5, -0.25]]}).encode()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Of Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ray.") as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(
    project: Path, place: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    store = tmp_path_factory.mktemp("store")
    for name in MODELS:
        shutil.copy(project / "model_store" / f"{name}.mar", store)
    port, _ = free_ports()
    file = store / "serve.json"
    arguments = {
        "model_store": str(store),
        **{"min_replicas": 2, "max_replicas": 2, "max_replicas_per_node": 1},
        **{"num_cpus": 0.5, "health_check_period_s": 1, "origins": [PAGE]},
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
                        **{"max_ongoing_requests": 1, "max_queued_requests": 1},
                        "autoscaling_config": {
                            **{"min_replicas": 1, "max_replicas": 1},
                            "target_ongoing_requests": 1,
                        },
                    }
                ],
            }
        ],
    }
    file.write_text(json.dumps(config))
    with (
        (store / "cluster.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(SUPPORT / "ray_cluster.py"), "2"],
            env={**ENVIRONMENT, "RAY_TMPDIR": place},
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
            done = serve(
                "run", f"--address={address}", "--non-blocking", str(file), RAY_TMPDIR=place
            )
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
    expected = in_process(archives, asks.values(), [PAGE])
    compare(asks, over(cluster.port, asks.values()), expected)


def test_a_page_that_is_named_may_ask_and_requests_keep_their_names(cluster: Cluster) -> None:
    connection = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    headers = {**JSON, "Origin": PAGE, "X-Request-ID": "mine-1"}
    connection.request("POST", "/predictions/small", QUESTION, headers)
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.getheader("access-control-allow-origin") == PAGE
    assert reply.headers.get_all("x-request-id") == ["mine-1"]
    connection.close()


def test_a_body_that_is_too_long_is_told_so(cluster: Cluster) -> None:
    connection = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    # A server that has refused it may read no further.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/predictions/small", bytes(MAX_BODY_BYTES + 1), JSON)
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["error"]["code"] == "too_many_rows"
    connection.close()


def test_what_replicas_count_is_seen_through_rays_agents(cluster: Cluster) -> None:
    for _ in range(5):
        # This model takes one at once, and Ray may count one for a moment after it is answered.
        until(lambda: cluster.ask("POST", "/predictions/moons_plain", QUESTION)[0] == 200)
    pattern = r'ray_skipserve_requests_total\{[^}]*code="200"[^}]*model="moons_plain"[^}]*\} (\S+)'

    def counted() -> bool:
        return sum(map(float, re.findall(pattern, cluster.metrics()))) == 5

    until(counted, START_S)
    assert "ray_skipserve_queue_wait_seconds_bucket" in cluster.metrics()


def test_a_full_queue_is_told_in_the_shape_of_the_path(cluster: Cluster) -> None:
    body = json.dumps({"instances": [[0.5, -0.25]] * 1000}).encode()

    def ask(_: int) -> tuple[int, bytes]:
        return cluster.ask("POST", "/v1/models/moons_plain:predict", body)

    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(ask, range(48)))
    refused = [reply for status, reply in replies if status == 503]
    assert refused
    assert {status for status, _ in replies} <= {200, 503}
    for reply in refused:
        assert json.loads(reply)["error"].startswith("[overloaded]"), reply


def test_a_node_is_killed_and_whoever_asks_again_loses_nothing(cluster: Cluster) -> None:
    clients, each = 8, 60
    begun = threading.Semaphore(0)

    def client(number: int) -> list[int]:
        """How often each request had to be asked."""
        tries = []
        for i in range(each):
            tries.append(1)
            while cluster.ask("POST", "/predictions/small", QUESTION)[0] != 200:
                tries[-1] += 1
                assert tries[-1] < 100
                time.sleep(0.5)
            if i == each // 4:
                begun.release()
        return tries

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(client, number) for number in range(clients)]
        assert begun.acquire(timeout=START_S)
        cluster.order("kill", "0")
        again = [tries > 1 for one in asked for tries in one.result()]
    # Those on their way in the front that was killed, and what its proxy sent it before it knew.
    assert sum(again) < len(again) / 10
    until(cluster.is_ready, START_S)


def test_a_head_that_is_gone_is_told_and_nothing_is_ready(cluster: Cluster) -> None:
    assert cluster.ask("POST", "/predictions/small", QUESTION)[0] == 200
    cluster.order("behead")
    until(lambda: cluster.ask("GET", "/ready")[0] == 503, START_S)
    assert cluster.ask("GET", "/live")[0] == 200
    assert cluster.ask("POST", "/predictions/small", QUESTION)[0] == 200
    line = f"not ready: Ray's head at {cluster.told['address']} is gone"
    until(lambda: line in cluster.log())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a word for a number": ({"max_replicas": "many"}, "max_replicas = 'many'"),
    "more at least than at most": (
        {"min_replicas": "3"},
        "max_replicas 1 is less than min_replicas 3",
    ),
    "more wanted than may be": (
        {"target_ongoing_requests": 200},
        "max_ongoing_requests 100 is less than target_ongoing_requests 200",
    ),
    "an unknown name": ({"replicas": 3}, "unknown key 'replicas'; did you mean"),
    "a part of a path": ({"model_store": "here"}, "an absolute path, the same on every node"),
    "an empty folder": ({}, "holds no .mar; make one with `skipserve build`"),
    "no such model": ({"model_store": "STORE", "models": "nowhere"}, "holds no nowhere.mar"),
}
# In a process of its own: Ray stays for good in one that imports it.
TRIED = """
import json, sys
from skipserve.errors import ConfigError
from skipserve.hosts.ray import app
for arguments in json.load(sys.stdin):
    try:
        app(arguments)
    except ConfigError as error:
        print(error)
"""


def test_what_is_wrong_with_an_option_is_said_in_a_line(project: Path, tmp_path: Path) -> None:
    stores = {"STORE": str(project / "model_store"), "here": "here"}
    asked = [
        {**given, "model_store": stores.get(given.get("model_store", ""), str(tmp_path))}
        for given, _ in WRONG.values()
    ]
    command = [sys.executable, "-c", TRIED]
    tried = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    said = tried.stdout.splitlines()
    assert len(said) == len(WRONG), tried.stderr
    for line, (name, (_, expected)) in zip(said, WRONG.items(), strict=True):
        assert expected in line, name


def test_serve_run_prints_that_line_alone() -> None:
    done = serve("run", "skipserve.hosts.ray:app", "model_store=/", "max_replicas=many")
    said = [line for line in done.stderr.splitlines() if "scripts.py" not in line]
    assert (done.returncode, len(said)) == (1, 1), done.stderr
    assert said[0].startswith("Error: arguments: max_replicas = 'many'")


def test_serve_build_writes_a_deployment_for_every_model(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    store = str(project / "model_store")
    command = ("build", "skipserve.hosts.ray:application", "-o", str(file))
    done = serve(*command, SKIPSERVE_MODEL_STORE=store)
    assert done.returncode == 0, done.stderr
    (application,) = yaml.safe_load(file.read_text())["applications"]
    found = {one["name"]: one for one in application["deployments"]}
    assert set(found) == {"front-door", *(file.stem for file in Path(store).glob("*.mar"))}
    assert found["small"]["autoscaling_config"]["max_replicas"] == 1
    assert found["small"]["ray_actor_options"]["num_cpus"] == 1.0
