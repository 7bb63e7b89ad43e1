"""Requests of all kinds of clients to a running service, behind the real TorchServe too."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from running import Running, serving

ROWS = [[0.5, -0.25], [-0.5, 0.75], [1.5, 0.5]]
JSON = {"Content-Type": "application/json"}
DOCS = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]], host: str) -> Iterator[Running]:
    with serving(routed_project[0], "--batch-size", "16", host=host) as running:
        yield running


@pytest.fixture(scope="module")
def labels(server: Running) -> list[int]:
    """Of :data:`ROWS`, as the native protocol answers them."""
    _, _, reply = server.ask("small", {"inputs": ROWS})
    return [row["label"] for row in reply["outputs"]]


def ask(
    server: Running, path: str, body: object = b"", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, content, sent)
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def outputs(body: bytes) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in json.loads(body)["outputs"]}


def test_a_request_as_kserves_client_writes_it(server: Running, labels: list[int]) -> None:
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [3, 2], "parameters": None}
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor | {"data": ROWS}]}
    status, _, reply = ask(server, "/v2/models/small/infer", body)
    assert status == 200, reply
    assert outputs(reply)["label"] == labels


@pytest.mark.parametrize(
    ("datatype", "data", "says"),
    [
        ("UINT8", [300, -1.5], "300 is no UINT8"),
        ("FP16", [1, 100000], "100000 is beyond FP16"),
        ("INT32", [1, 2**31], "2147483648 is no INT32"),
    ],
)
def test_numbers_that_are_not_of_their_datatype(
    server: Running, datatype: str, data: list[float], says: str
) -> None:
    tensor = {"name": "inputs", "datatype": datatype, "shape": [1, 2], "data": data}
    status, _, reply = ask(server, "/v2/models/small/infer", {"inputs": [tensor]})
    assert status == 400
    assert says in json.loads(reply)["error"]


def test_raw_bytes_are_answered_in_bytes(server: Running, labels: list[int]) -> None:
    status, headers, reply = ask(
        server,
        "/v2/models/small/infer",
        np.float32(ROWS).tobytes(),
        Inference_Header_Content_Length="0",
        Content_Type="application/octet-stream",
    )
    assert status == 200, reply
    length = int(headers["inference-header-content-length"])
    result = triton.InferenceServerClient.parse_response_body(reply, header_length=length)
    assert result.as_numpy("label").tolist() == labels


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/explanations/small", {"inputs": ROWS}),
        ("/v1/models/small:explain", {"instances": ROWS}),
        (
            "/v2/models/small/explain",
            {
                "inputs": [
                    {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -0.25]}
                ]
            },
        ),
    ],
)
def test_there_are_no_explanations(server: Running, path: str, body: object) -> None:
    status, _, reply = ask(server, path, body)
    assert status == 404
    # TorchServe knows such paths, and the handler is asked; granian has none.
    assert {"granian": b"not_found", "torchserve": b"no_explanations"}[server.host] in reply


def test_a_header_of_the_clients_own_asks_for_no_explanation(server: Running) -> None:
    status, _, _ = ask(server, "/predictions/small", {"inputs": ROWS}, explain="True")
    assert status == 200


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_tritons_client_may_compress(
    server: Running, labels: list[int], algorithm: str, binary: bool
) -> None:
    tensor = triton.InferInput("inputs", [3, 2], "FP32")
    tensor.set_data_from_numpy(np.float32(ROWS), binary_data=binary)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        result = client.infer("small", [tensor], request_compression_algorithm=algorithm)
    assert result.as_numpy("label").tolist() == labels


def test_a_compressed_native_request(server: Running, labels: list[int]) -> None:
    body = gzip.compress(json.dumps({"inputs": ROWS}).encode())
    status, _, reply = ask(server, "/predictions/small", body, Content_Encoding="gzip")
    assert status == 200, reply
    assert [row["label"] for row in json.loads(reply)["outputs"]] == labels


def test_an_encoding_that_is_not_supported_is_named(server: Running) -> None:
    status, _, reply = ask(server, "/predictions/small", b"\x8b", Content_Encoding="br")
    assert status == 415
    assert "'br'" in json.loads(reply)["error"]["message"]


def test_a_byte_order_mark(server: Running, labels: list[int]) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"inputs": ROWS}).encode()
    status, _, reply = ask(server, "/predictions/small", body)
    assert status == 200, reply
    assert [row["label"] for row in json.loads(reply)["outputs"]] == labels


@pytest.mark.parametrize("path", ["/v1/models/small:predict", "/predictions/small"])
def test_instances_are_answered_with_predictions(
    server: Running, labels: list[int], path: str
) -> None:
    status, _, reply = ask(server, path, {"instances": ROWS})
    assert status == 200, reply
    predictions = json.loads(reply)["predictions"]
    assert [one["label"] for one in predictions] == labels
    assert all(one.keys() >= {"probabilities", "depth_run", "held_back"} for one in predictions)


def test_a_wrong_instance_is_told_so_in_the_protocols_shape(server: Running) -> None:
    status, _, reply = ask(server, "/v1/models/small:predict", {"instances": [[1.0]]})
    assert status == 400
    assert "instances" in json.loads(reply)["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/{model}"),
        ("GET", "/v2/models/{model}/ready"),
        ("POST", "/v2/models/{model}/versions/{version}/infer"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
    ],
)
def test_what_torchserve_has_no_route_for_stands_in_the_documentation(
    server: Running, method: str, path: str
) -> None:
    # TorchServe's own handlers for health would answer a hard-coded true.
    status, _, _ = ask(server, path.format(model="small", version="1"), method=method)
    assert (status == 404) == (server.host == "torchserve")
    assert f"`{method} {path}`" in DOCS


def test_a_page_of_another_origin_is_allowed_nothing(server: Running) -> None:
    origin = {"Origin": "http://elsewhere.example"}
    preflight = {"Access_Control_Request_Method": "POST", **origin}
    for method, headers in (("OPTIONS", preflight), ("POST", origin)):
        _, replied, _ = ask(server, "/predictions/small", {"inputs": ROWS}, method, **headers)
        assert not [name for name in replied if name.startswith("access-control-")]


def hang_up(port: int) -> int:
    """Keep four requests in flight, and reset the connection with some on their way."""
    body = json.dumps({"inputs": ROWS[:1]}).encode()
    head = b"POST /predictions/small HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    replies, sent = b"", 4
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(sent * request)
        while (replied := replies.count(b"HTTP/1.1 200")) < 200:
            connection.sendall((replied + 4 - sent) * request)
            sent = replied + 4
            replies += connection.recv(1 << 16)
    return replied


def test_clients_that_do_not_wait_for_replies_and_hang_up_end_no_worker(server: Running) -> None:
    workers = {worker.pid for worker in server.workers()}
    with ThreadPoolExecutor(4) as clients:
        assert min(clients.map(hang_up, [server.port] * 80)) >= 200
    assert server.ask("small", {"inputs": ROWS})[0] == 200
    assert {worker.pid for worker in server.workers()} == workers
    assert "skipserve_worker_restarts_total 0.0" in server.get("/metrics")
