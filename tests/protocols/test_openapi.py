"""The document at /openapi.json and the routes it describes, on the real granian."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from itertools import cycle, islice
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import schemathesis
import texts
import tritonclient.http as triton
from hypothesis import HealthCheck, assume, given, settings
from running import Running, serving
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from signatures import spec, taking

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.hosts.models import Model
from skipserve.hosts.openapi import document
from skipserve.hosts.routes import routes_of
from skipserve.protocols.deadline import time_allowed
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.service.batcher import Batcher

pytestmark = pytest.mark.server
# What a model is asked at: each protocol, of a model of one input of floats and of one of two of
# integers, of free length.
ASKED = [
    path.format(model)
    for model in ("small", "masked")
    for path in ("/predictions/{}", "/v1/models/{}:predict", "/v2/models/{}/versions/1/infer")
]


@pytest.fixture(scope="module")
def server(two_models: Path) -> Iterator[Running]:
    with serving(two_models) as running:
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
    status, told = ask(server, "GET", "/openapi.json")
    assert status == 200
    examples = told["components"]["examples"]
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            body = None
            if method == "post":
                (example,) = operation["requestBody"]["content"]["application/json"][
                    "examples"
                ].values()
                body = examples[example["$ref"].rpartition("/")[2]]["value"]
            assert ask(server, method.upper(), path, body)[0] == 200, (method, path)


@pytest.fixture(scope="module")
def api(server: Running) -> Any:
    """The document as schemathesis reads it."""
    checks = {"negative_data_rejection": {"expected-statuses": ["400", "413"]}}
    config = SchemathesisConfig.from_dict({"checks": checks})
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    return schemathesis.openapi.from_url(url, config=config)


def every(operation: Any, mode: GenerationMode, most: int, test: Callable[[Any], None]) -> None:
    """Run a test with so many cases at most, the same ones every time."""
    strategy = operation.as_strategy(generation_mode=mode)
    unhurried = list(HealthCheck)
    settings(max_examples=most, derandomize=True, database=None, suppress_health_check=unhurried)(
        given(strategy)(test)
    )()


def unhurried(case: Any) -> None:
    """Drop the time that a case allows where that is well said: it may be none at all."""
    with suppress(InputError):
        time_allowed({name.lower(): value for name, value in case.headers.items()})
        case.headers.pop("X-Request-Timeout", None)


def test_routes_that_tell_are_as_the_document_says(api: Any) -> None:
    def check(case: Any) -> None:
        case.call_and_validate()

    for operation in (found.ok() for found in api.get_all_operations()):
        if operation.method == "get":
            every(operation, GenerationMode.POSITIVE, 1, check)


def tokens_in(value: Any) -> list[int]:
    """The numbers in nested lists, as the network of texts knows them."""
    if isinstance(value, list):
        return [token for one in value for token in tokens_in(one)]
    return [int(value) % texts.TOKENS] if isinstance(value, int | float) else []


def fit(columns: dict[str, Any], sizes: Sequence[int]) -> None:
    """Give every input as many numbers as the sizes take, one after the other."""
    for name, found in columns.items():
        columns[name] = list(islice(cycle(tokens_in(found) or [1]), prod(sizes)))


def obey(body: Any) -> None:
    """Do to a request what the document's sentences say and its schemas cannot.

    Tensors have as many numbers as their shape says, the inputs of one request are of equal sizes,
    and integers stand without a point.
    """
    if "instances" in body:
        for row in body["instances"]:
            if len(row) == 2 and isinstance(row, dict):
                fit(row, [3])
    elif isinstance(inputs := body["inputs"], dict):
        if len(inputs) == 2:
            fit(inputs, [3])
            body["inputs"] = {name: [row] for name, row in inputs.items()}
    elif isinstance(inputs[0], dict):
        shape = [min(int(size), 3) for size in inputs[0]["shape"]]
        data = {tensor["name"]: tensor["data"] for tensor in inputs}
        fit(data, shape)
        for tensor in inputs:
            tensor["shape"], tensor["data"] = shape, data[tensor["name"]]


@pytest.mark.parametrize("path", ASKED)
def test_what_the_document_allows_is_answered(api: Any, path: str) -> None:
    statuses = Counter[int]()

    def check(case: Any) -> None:
        assume(case.media_type == "application/json")  # clients of Triton and KServe test bytes
        case.headers.pop(HEADER_LENGTH, None)
        unhurried(case)
        obey(case.body)
        reply = case.call()
        statuses[reply.status_code] += 1
        # What overflows inside a network is known once it ran.
        known = [] if b"not_finite" not in reply.content else [positive_data_acceptance]
        case.validate_response(reply, excluded_checks=known)

    every(api[path]["POST"], GenerationMode.POSITIVE, 25, check)
    assert statuses[200] > 5, statuses


@pytest.mark.parametrize("path", ASKED)
def test_what_the_document_does_not_allow_is_refused(api: Any, path: str) -> None:
    def check(case: Any) -> None:
        unhurried(case)
        case.call_and_validate()

    every(api[path]["POST"], GenerationMode.NEGATIVE, 25, check)


def test_a_slash_at_the_end_changes_nothing(server: Running) -> None:
    assert ask(server, "POST", "/predictions/small/", {"inputs": [[0.5, 0.5]]})[0] == 200


@pytest.mark.parametrize("root", ["/v1/models", "/v2/models"])
def test_failures_of_text_protocols_are_text(server: Running, root: str) -> None:
    wrong = [("GET", f"{root}/none", 404), ("GET", f"{root}/small/versions/7", 404)]
    wrong += [("POST", f"{root}/small/versions/7{word}", 404) for word in (":predict", "/infer")]
    for method, path, expected in [*wrong, ("PUT", f"{root}/small", 405)]:
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


@pytest.mark.parametrize(("size", "times"), [(100, 3), (784, 1), (100_000, 0)])
def test_an_example_of_long_rows_stands_there_once(
    artifact: Artifact, size: int, times: int
) -> None:
    """In each protocol while it is short, in one when it is not; and nowhere at all."""
    manifest = taking(artifact, spec("pixels", "float32", size))
    row = manifest.example.model_copy(update={"inputs": {"pixels": [0.25] * size}})
    manifest = manifest.model_copy(update={"example": row})
    models = {"small": Model(manifest, cast(Batcher, None), 8)}  # nobody asks it
    text = json.dumps(document(list(routes_of(models, lambda: True)), models))
    assert text.count("0.25") == times * size
    assert len(text) < 60_000


def test_the_column_format_is_answered_with_outputs(server: Running) -> None:
    asked = {"inputs": [[0.5, 0.5]], "signature_name": "serving_default"}
    status, reply = ask(server, "POST", "/v1/models/small:predict", asked)
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
            assert [result.get_response()["model_version"]] == metadata["versions"]
    assert ask(server, "GET", "/v2/models/small/ready") == (200, {"name": "small", "ready": True})
