"""Pictures in every protocol: answered as their pixel values are."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import numpy as np
import picturing
import pytest
from pictures import bomb, drawn, saved
from PIL import Image

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.hosts.metadata import model_metadata
from skipserve.preprocessing.pictures import Pictures
from skipserve.protocols.messages import JSON, RawRequest, Reply
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.protocols.oip_schemas import oip
from skipserve.protocols.oip_values import BYTES
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service

pytestmark = pytest.mark.slow

IS_JSON = {"content-type": JSON}
FILES = picturing.files(3, seed=9)
SENT = [base64.b64encode(one).decode() for one in FILES]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return picturing.build(tmp_path_factory.mktemp("seen"), tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def engine(seeing: Artifact) -> Engine:
    return Engine(seeing, provider="cpu")


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, ServingConfig(max_rows=8))


@pytest.fixture(scope="module")
def expected(service: Service) -> list[dict[str, Any]]:
    """The answers to the pictures' values, sent as tensors."""
    ready = {name: one.tolist() for name, one in Pictures(picturing.CONFIG)(FILES).items()}
    answers = told(ask(service, {"inputs": ready}))["outputs"]
    assert len({tuple(one["probabilities"]) for one in answers}) == 3
    return answers


def ask(service: Service, body: object, headers: Mapping[str, str] = IS_JSON) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.answer([RawRequest(content, headers)])[0]


def told(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def test_pictures_are_answered_as_their_values_are(service, expected):
    urls = [f"data:image/png;base64,{one}" for one in SENT]
    pixels = [np.asarray(Image.open(_file(one)).convert("RGB")).tolist() for one in FILES]
    for values in (SENT, urls, pixels, [SENT[0], pixels[1], urls[2]]):
        assert told(ask(service, {"inputs": values}))["outputs"] == expected
        assert told(ask(service, {"instances": values}))["predictions"] == expected


def _file(data: bytes) -> Any:
    from io import BytesIO

    return BytesIO(data)


def test_open_inference_takes_bytes(service, expected):
    probabilities = [one["probabilities"] for one in expected]
    said = {"name": "picture", "datatype": BYTES, "shape": [3]}
    reply = told(ask(service, {"inputs": [{**said, "data": SENT}]}))
    (found,) = (one["data"] for one in reply["outputs"] if one["name"] == "probabilities")
    assert np.reshape(found, (3, 4)).tolist() == probabilities
    packed = b"".join(len(one).to_bytes(4, "little") + one for one in FILES)
    header = json.dumps(
        {"inputs": [{**said, "parameters": {"binary_data_size": len(packed)}}]}
    ).encode()
    reply = told(ask(service, header + packed, {HEADER_LENGTH: str(len(header))}))
    (found,) = (one["data"] for one in reply["outputs"] if one["name"] == "probabilities")
    assert np.reshape(found, (3, 4)).tolist() == probabilities


def test_a_body_of_bytes_alone_is_one_picture(service, expected):
    reply = ask(service, FILES[1], {HEADER_LENGTH: "0"})
    length = int(reply.headers[HEADER_LENGTH])
    assert reply.status == 200 and isinstance(reply.body, bytes)
    assert np.float32(expected[1]["probabilities"]).tobytes() in reply.body[length:]


HALF = base64.b64encode(FILES[0][: len(FILES[0]) // 2]).decode()
BAD: list[tuple[Any, int, str, str]] = [
    (HALF, 400, "invalid_picture", "row 1: the picture cannot be decoded"),
    ("great film!", 400, "invalid_picture", "row 1: the picture is not base64"),
    (7, 400, "wrong_type", "row 1: int is no picture; expected a picture (JPEG, PNG"),
    (base64.b64encode(bomb(9_000, 9_000)).decode(), 413, "picture_too_large", "50 million"),
]


@pytest.mark.parametrize(("value", "status", "code", "says"), BAD)
def test_a_bad_picture_names_its_row_and_harms_no_neighbour(
    service, expected, value, status, code, says
):
    good = RawRequest(json.dumps({"inputs": SENT}).encode(), IS_JSON)
    bad = RawRequest(json.dumps({"inputs": [SENT[0], value]}).encode(), IS_JSON)
    first, reply, last = service.answer([good, bad, good])
    for one in (first, last):
        labels = [row["label"] for row in told(one)["outputs"]]
        assert labels == [row["label"] for row in expected]
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["row"]) == (status, code, 1)
    assert says in error["message"]


def test_python_takes_pictures_too(engine, expected):
    found = engine.predict(FILES).answers
    np.testing.assert_allclose(found, [one["probabilities"] for one in expected], atol=1e-6)
    array = drawn(14, 15, 3, 4)
    np.testing.assert_array_equal(
        engine.predict([array]).answers,
        engine.predict([saved(Image.fromarray(array))]).answers,
    )


def test_schemas_and_metadata_say_it(seeing, service):
    manifest = seeing.manifest
    assert model_metadata(manifest, ["1"])["inputs"] == [
        {"name": "picture", "datatype": "BYTES", "shape": [-1]}
    ]
    for spoken in (native(manifest, 8), v1(manifest, 8), oip(manifest, 8)):
        schema = jsonschema.Draft202012Validator(spoken.requests[JSON])
        schema.validate(spoken.example)
        assert ask(service, spoken.example).status == 200
    takes = jsonschema.Draft202012Validator(native(manifest, 8).requests[JSON])
    grey, colours = drawn(3, 2, 1, 1)[..., 0].tolist(), drawn(3, 2, 3, 1).tolist()
    tensors = json.loads(json.dumps(manifest.request_of(manifest.example.inputs)["inputs"]))
    for values in (SENT, [grey], [colours], tensors):
        takes.validate({"inputs": values})
    for values in ([3], [[1, 2]], [[[0.5]]], [[[-1]]], "a"):
        assert not takes.is_valid({"inputs": values})
