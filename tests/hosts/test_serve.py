"""From build to request, as a user does it, behind each host."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from hosts import can
from in_process import in_process
from running import JSON, Running, example, question, serving, until
from small_project import MODELS
from transcript import asks_of, compare, over

import skipserve

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def batching(project: Path, host: str) -> Iterator[Running]:
    options = ("moons_residual", "--batch-size", "16", "--max-batch-delay-ms", "20")
    with serving(project, *options, host=host) as running:
        yield running


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers_its_example(server, project, model):
    row = example(project, model)
    status, headers, reply = server.ask(model, question(row))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert re.fullmatch(r"decode;dur=[\d.]+, inference;dur=[\d.]+", headers["server-timing"])
    assert reply.pop("outputs") == [
        {
            "label": int(np.argmax(row["answer"])),
            "probabilities": pytest.approx(row["answer"], abs=1e-4),
            "depth_run": 20,
        }
    ]
    assert reply == {"model": model, "depth": 20, "router": "off"}


def test_the_curl_line_it_prints_works(server):
    command = next(line for line in server.printed.splitlines() if line.startswith("curl"))
    done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    # One row, or two of different depth where the archive knows such.
    assert len(json.loads(done.stdout)["outputs"]) in (1, 2)


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
    workers = {process.pid for process in server.workers()}
    found, _, reply = server.ask("moons_residual", body, headers)
    assert found == status
    assert set(reply) == {"error"}
    assert reply["error"]["code"] == (code or "unsupported_media_type")
    assert server.ask("moons_residual", {"inputs": [[0.5, 0.5]]})[0] == 200
    assert {process.pid for process in server.workers()} == workers


def test_an_unknown_model_is_a_404(server):
    status, _, reply = server.ask("nowhere", {"inputs": [[0.5, 0.5]]})
    assert status == 404
    if can(server.host, "404 and 405 in our shape of an error"):
        assert reply["error"]["code"] == "not_found"
        reply = reply["error"]
    assert "nowhere" in reply["message"]


def test_every_host_answers_the_same_bytes(server: Running, project: Path) -> None:
    """One transcript (Ray Serve: test_ray.py)."""
    asks = asks_of(server.host)
    archives = sorted((project / "model_store").glob("*.mar"))
    compare(asks, over(server.port, asks.values()), in_process(archives, asks.values()))


def test_two_on_one_port_are_one_line_with_the_remedy(server, refused, host):
    for setting, port in (("SKIPSERVE_PORT", server.port),):
        said = refused("--server", host, "--port", str(port))
        assert f"cannot listen on 127.0.0.1:{port}" in said
        assert setting in said
    said = refused("--server", host, "--metrics-port", str(server.metrics_port))
    assert f"cannot listen on 127.0.0.1:{server.metrics_port}" in said
    assert "SKIPSERVE_METRICS_PORT" in said
    assert server.ask("moons_plain", {"inputs": [[0.5, 0.5]]})[0] == 200


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
                expected.answers,
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
    runs = r'backend="onnxruntime",checkpoint="\w+",model="moons_plain",precision="fp32"'
    assert re.search(rf'skipserve_model_info{{{runs},provider="\w+",task="classify"', text)
    assert server.get("/ready") == "ready\n"
    assert server.get("/live") == "live\n"


def test_the_management_api_is_off(server):
    listening = {
        connection.laddr.port
        for process in server.descendants()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    # granian's main process holds the port and its workers have it from there.
    assert server.port in listening
    for port in listening:  # 8081 or wherever it might have gone; gRPC does not speak HTTP/1
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", "/models")
            reply = connection.getresponse()
            reply.read()
            assert reply.status >= 400


@pytest.mark.parametrize(
    ("host", "backend", "precision"),
    [
        ("granian", "onnxruntime", "fp16"),
        ("granian", "torchscript", "fp32"),
        # The engine is the same: one more file shows that the option gets there.
        ("torchserve", "torchscript", "fp16"),
    ],
    indirect=["host"],
)
def test_every_backend_and_precision_serves(project, host, backend, precision, tmp_path):
    options = ("moons_residual", "--backend", backend, "--precision", precision)
    row = example(project, "moons_residual")
    # Nor does it matter where temporary files belong: too long for a socket, and not in Latin-1.
    odd = tmp_path / ("lü文" * 15)
    odd.mkdir()
    with serving(project, *options, host=host, environment={"TMPDIR": str(odd)}) as running:
        reply = running.ask("moons_residual", question(row))[2]
        tolerance = 1e-4 if precision == "fp32" else 2e-2
        assert reply["outputs"][0]["probabilities"] == pytest.approx(row["answer"], abs=tolerance)
        assert f'backend="{backend}"' in running.get("/metrics")
        assert f'precision="{precision}"' in running.get("/metrics")
        if precision == "fp16":
            is_run_in_full_where_it_overflows(running, question(row))


def is_run_in_full_where_it_overflows(running, near):
    """Rows that FP16 cannot hold run at full depth in FP32; one that nothing can is an error."""
    ((name, (alone,)),) = near["inputs"].items()
    off = {"parameters": {"router": "off"}}
    expected = running.ask("moons_residual", {**near, **off})[2]
    rows = [alone, [1e6, -2e6], alone, [3e5, 1e7]]
    for parameters in ({}, off):
        status, _, reply = running.ask("moons_residual", {"inputs": {name: rows}, **parameters})
        assert status == 200
        near_by, far = reply["outputs"][::2], reply["outputs"][1::2]
        assert [one["depth_run"] for one in far] == [reply["depth"]] * 2
        assert np.isfinite([one["probabilities"] for one in far]).all()
        known = expected["outputs"][0]["probabilities"]
        for one in near_by if parameters else ():
            assert one["probabilities"] == pytest.approx(known, abs=1e-3)
    beyond = {"inputs": {name: [alone, [3e38, -3e38]]}}
    status, _, reply = running.ask("moons_residual", beyond)
    assert (status, reply["error"]["code"], reply["error"]["row"]) == (400, "not_finite", 1)
    assert running.ask("moons_residual", {**near, **off})[2]["outputs"] == expected["outputs"]
    counted = 'skipserve_overflow_rows_total{answer="%s",model="moons_residual"} %d'
    until(lambda: counted % ("fp32", 4) in running.get("/metrics").replace(".0\n", "\n"))
    until(lambda: counted % ("refused", 1) in running.get("/metrics").replace(".0\n", "\n"))
