"""Compressed bodies in every protocol, within the limit of plain bodies."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signatures import spec

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.messages import RawRequest, most_bytes
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.signature import Signature

MAX_ROWS = 8
MOST = most_bytes(
    MAX_ROWS,
    Signature(
        inputs=(spec("inputs", "float32", 2),), outputs=(spec("probabilities", "float32", 2),)
    ),
)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "GZip ": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}
TENSOR = {"name": "inputs", "datatype": "FP32", "shape": [1, 2]}
CHUNK = np.float32([0.5, -0.25]).tobytes()
HEADER = json.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]}).encode()
# name: (body, headers)
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "native": (b'{"inputs": [[0.5, -0.25]]}', {"content-type": "application/json"}),
    "native, wrong": (b'{"inputs": [[0.5]]}', {"content-type": "application/json"}),
    "v1": (b'{"instances": [[0.5, -0.25]]}', {}),
    "JSON tensor": (json.dumps({"inputs": [TENSOR | {"data": [0.5, -0.25]}]}).encode(), {}),
    "binary tensor": (HEADER + CHUNK, {HEADER_LENGTH: str(len(HEADER))}),
    "raw tensor": (CHUNK, {HEADER_LENGTH: "0"}),
}


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, ServingConfig(max_rows=MAX_ROWS))


def coded(body: bytes, coding: str, **headers: str) -> RawRequest:
    return RawRequest(body, {"content-encoding": coding, **headers})


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("name", BODIES)
def test_a_compressed_body_is_answered_as_a_plain_one(
    service: Service, name: str, coding: str
) -> None:
    body, headers = BODIES[name]
    (expected,) = service.answer([RawRequest(body, headers)])
    (reply,) = service.answer([coded(PACK[coding](body), coding, **headers)])
    assert (reply.status, reply.body) == (expected.status, expected.body)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x", "gzip;q=1"])
def test_another_encoding_is_named(service: Service, coding: str) -> None:
    (reply,) = service.answer([coded(b"\x8b\x02\x80", coding)])
    assert reply.status == 415
    error = json.loads(reply.body)["error"]
    assert error["code"] == "unsupported_encoding"
    assert repr(coding) in error["message"]
    assert "gzip" in error["message"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda packed: b"hello", "is not {}"),
        (lambda packed: packed[:-1], "ends too early"),
        (lambda packed: packed + b"x", "bytes follow"),
        (lambda packed: packed + packed, "bytes follow"),
        (lambda packed: b"", "ends too early"),
    ],
    ids=["something else", "cut", "too long", "twice", "empty"],
)
def test_what_is_not_one_whole_stream_is_refused(
    coding: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    packed = damage(PACK[coding](BODIES["native"][0]))
    with pytest.raises(InputError, match=says.format(coding)) as caught:
        unpacked(coded(packed, coding), MOST)
    assert caught.value.code == "invalid_encoding"


def test_what_is_encoded_otherwise_than_it_says_is_refused() -> None:
    for says, packed in (("gzip", zlib.compress(b"x")), ("deflate", gzip.compress(b"x"))):
        with pytest.raises(InputError, match=f"is not {says}"):
            unpacked(coded(packed, says), MOST)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_goes_off(service: Service, coding: str) -> None:
    bomb = PACK[coding](bytes(64 << 20))
    assert len(bomb) < MOST
    tracemalloc.start()
    try:
        (reply,) = service.answer([coded(bomb, coding)])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reply.status == 413
    assert json.loads(reply.body)["error"]["code"] == "too_many_rows"
    assert most < 8 << 20


def test_a_body_may_be_as_long_as_a_plain_one_and_no_longer() -> None:
    assert len(unpacked(coded(gzip.compress(bytes(MOST)), "gzip"), MOST).body or b"") == MOST
    with pytest.raises(InputError, match=f"more than the {MOST} bytes"):
        unpacked(coded(gzip.compress(bytes(MOST + 1)), "gzip"), MOST)


def test_a_form_is_refused_as_one(service: Service) -> None:
    form = RawRequest(None, {"content-encoding": "gzip"})
    assert service.answer([form])[0].status == 415


@given(body=st.binary(max_size=64), coding=st.sampled_from([*PACK, "br"]) | st.text(max_size=6))
def test_no_body_raises_anything_but_an_input_error(body: bytes, coding: str) -> None:
    try:
        assert unpacked(coded(body, coding), MOST).body is not None
    except InputError as error:
        assert error.code in ("invalid_encoding", "unsupported_encoding")
