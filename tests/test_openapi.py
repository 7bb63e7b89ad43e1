"""The document at /openapi.json and the routes it describes, on the real granian."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from running import Running, serving

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]]) -> Iterator[Running]:
    with serving(routed_project[0]) as running:
        yield running


def ask(server: Running, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, content, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_every_path_of_the_document_answers_and_its_examples_are_good(server: Running) -> None:
    status, document = ask(server, "GET", "/openapi.json")
    assert status == 200
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            body = None
            if method == "post":
                body = told["requestBody"]["content"]["application/json"]["example"]
            assert ask(server, method.upper(), path, body)[0] == 200, (method, path)


def test_a_slash_at_the_end_changes_nothing(server: Running) -> None:
    assert ask(server, "POST", "/predictions/small/", {"inputs": [[0.5, 0.5]]})[0] == 200


@pytest.mark.parametrize("root", ["/v1/models", "/v2/models"])
def test_failures_of_text_protocols_are_text(server: Running, root: str) -> None:
    for method, path, expected in (("GET", f"{root}/none", 404), ("PUT", f"{root}/small", 405)):
        status, reply = ask(server, method, path)
        assert status == expected
        assert isinstance(reply["error"], str)


def test_a_form_is_refused_in_the_shape_of_the_path(server: Running) -> None:
    for path in ("/v1/models/small:predict", "/v2/models/small/infer"):
        status, _, content = server.send("POST", path, b"a=b", Content_Encoding="br")
        assert status == 415
        assert isinstance(json.loads(content)["error"], str), path


def test_equal_answers_are_equal_bytes_when_packed(server: Running) -> None:
    packed = [server.send("GET", "/openapi.json", Accept_Encoding="gzip")[2] for _ in range(2)]
    assert packed[0][:2] == b"\x1f\x8b"
    assert packed[0][4:8] == bytes(4)  # the time in gzip's header
    assert packed[0] == packed[1]


def test_the_document_has_every_route(server: Running) -> None:
    _, document = ask(server, "GET", "/openapi.json")
    for path in ("/ping", "/v2", "/v2/models/small/infer", "/openapi.json", "/predictions/small"):
        assert path in document["paths"]


def test_the_column_format_is_answered_with_outputs(server: Running) -> None:
    status, reply = ask(server, "POST", "/v1/models/small:predict", {"inputs": [[0.5, 0.5]]})
    assert status == 200, reply
    assert len(reply["outputs"]) == 1


def test_v1_status_serves_clients_of_kserve_and_of_tensorflow_serving(server: Running) -> None:
    assert ask(server, "GET", "/v1/models/small") == (
        200,
        {
            "name": "small",
            "ready": True,
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ],
        },
    )


@pytest.mark.parametrize("version", ["", "1"])
def test_tritons_client_finds_all_it_asks_for(server: Running, version: str) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("small", version)
        assert not client.is_model_ready("none")
        assert client.get_server_metadata()["name"] == "skipserve"
        metadata = client.get_model_metadata("small", version)
        assert metadata["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 2]}]
        tensor = triton.InferInput("inputs", [1, 2], "FP32")
        for binary in (False, True):
            tensor.set_data_from_numpy(np.float32([[0.5, 0.5]]), binary_data=binary)
            result = client.infer("small", [tensor], version, request_id="7")
            assert result.as_numpy("label").shape == (1,)
            assert result.get_response()["id"] == "7"
    assert ask(server, "GET", "/v2/models/small/ready") == (200, {"name": "small", "ready": True})
