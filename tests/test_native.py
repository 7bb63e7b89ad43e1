"""The native protocol: what is answered, and what every kind of bad request is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.runtime.engine import Engine
from skipserve.serving.messages import RawRequest
from skipserve.serving.native import NativeProtocol

MAX_ROWS = 8
JSON = "application/json"

Decode = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="module")
def protocol(artifact: Artifact) -> NativeProtocol:
    return NativeProtocol(artifact.manifest, MAX_ROWS)


@pytest.fixture(scope="module")
def decode(protocol: NativeProtocol, engine: Engine) -> Decode:
    """A body to the rows that would run; both steps that can refuse it."""

    def decode(body: bytes | None, kind: str = JSON) -> NDArray[np.float32]:
        return engine.check(protocol.decode(RawRequest(body, {"content-type": kind})).rows)

    return decode


def request(rows: object, **fields: object) -> bytes:
    return json.dumps({"inputs": rows, **fields}).encode()


# --- good requests ---


@pytest.mark.parametrize(
    "rows",
    [[[0.5, -0.25]], [[1, 2]], [[float(i), -0.0] for i in range(MAX_ROWS)], [[-3.4e38, 1e-45]]],
    ids=["one row", "integers", "as many rows as allowed", "ends of float32"],
)
def test_rows_arrive_as_float32(decode: Decode, rows: list[list[float]]) -> None:
    decoded = decode(request(rows))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, np.float32(rows))


@pytest.mark.parametrize(
    "parameters", [None, {}, {"router": None}, {"router": "off"}], ids=json.dumps
)
def test_full_depth_may_be_asked_for_or_left_unsaid(decode: Decode, parameters: object) -> None:
    assert decode(request([[1, 2]], parameters=parameters)).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", ["", JSON, "Application/JSON", "application/json; charset=utf-8"])
def test_json_by_any_spelling_of_its_content_type(decode: Decode, kind: str) -> None:
    assert decode(b'{"inputs": [[1, 2]]}', kind).tolist() == [[1, 2]]


def test_a_request_without_content_type_is_taken_for_json(protocol: NativeProtocol) -> None:
    assert protocol.decode(RawRequest(b'{"inputs": [[1, 2]]}', {})).rows.tolist() == [[1, 2]]


def test_a_bytearray_is_a_body_too(protocol: NativeProtocol) -> None:
    assert protocol.decode(RawRequest(bytearray(b'{"inputs": [[1, 2]]}'), {})).rows.shape == (1, 2)


def test_a_byte_order_mark_is_no_part_of_the_json(decode: Decode) -> None:
    assert decode(b'\xef\xbb\xbf{"inputs": [[1, 2]]}').tolist() == [[1, 2]]


def test_integers_beyond_64_bits_are_numbers(decode: Decode) -> None:
    assert decode(request([[2**70, -(2**70)]])).tolist() == [[2.0**70, -(2.0**70)]]


def test_rows_of_higher_rank(artifact: Artifact) -> None:
    spec = artifact.manifest.inputs[0].model_copy(update={"shape": (-1, 2, 3)})
    images = NativeProtocol(artifact.manifest.model_copy(update={"inputs": (spec,)}), MAX_ROWS)
    rows = np.arange(12.0).reshape(2, 2, 3)
    decoded = images.decode(RawRequest(request(rows.tolist()), {})).rows
    np.testing.assert_array_equal(decoded, rows)
    with pytest.raises(InputError, match="rows of 2×3 numbers each") as caught:
        images.decode(RawRequest(request([[[1, 2, 3], [4, 5]]]), {}))
    assert (caught.value.code, caught.value.row) == ("wrong_shape", 0)


def test_the_reply_says_label_probabilities_and_depth_run(
    protocol: NativeProtocol, engine: Engine, rows: NDArray[np.float32]
) -> None:
    prediction = engine.run(rows[:3])
    reply = protocol.encode(prediction, engine.off)
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)
    body = json.loads(reply.body)
    outputs = body.pop("outputs")
    assert body == {"model": "small", "depth": 4, "router": "off"}
    assert [output["label"] for output in outputs] == prediction.labels.tolist()
    assert [output["depth_run"] for output in outputs] == [4, 4, 4]
    probabilities = np.float32([output["probabilities"] for output in outputs])
    np.testing.assert_array_equal(probabilities, prediction.probabilities)


# --- bad requests ---

SHAPE = '"inputs" must be a list of rows of 2 numbers each'
FINITE = "expected finite numbers"
NOT_JSON = "the body is not JSON"
FIELDS = 'the fields are "inputs" and "parameters", which may hold "router"'
PARAMETERS = '"parameters" may hold "router": "on", "off" or {"risk": 0.01}'
ROUTER = 'leave "router" out or send "off"'
DEEP = b"[" * 60_000


def asking(**parameters: object) -> bytes:
    return request([[1, 2]], parameters=parameters)


# (code, status, what the message says): {name: (body, row)}
BAD_BODIES: dict[tuple[str, int, str], dict[str, tuple[bytes, int | None]]] = {
    ("wrong_shape", 400, SHAPE): {
        "row too short": (request([[1, 2], [3]]), 1),
        "row too long": (request([[1, 2], [3, 4, 5]]), 1),
        "row empty": (request([[]]), 0),
        "row a number": (request([1, 2]), 0),
        "row null": (request([[1, 2], None]), 1),
        "rows nested too deep": (request([[[1], [2]]]), 0),
        "inputs a number": (request(5), None),
        "inputs null": (request(None), None),
        "inputs a string": (request("[[1, 2]]"), None),
        "inputs an object": (request({"0": [1, 2]}), None),
        "100,000 levels in inputs": (b'{"inputs": ' + DEEP, 0),
    },
    ("wrong_type", 400, SHAPE): {
        "a list": (b"[[1, 2]]", None),
        "100,000 levels": (DEEP, None),
        "inputs missing": (b"{}", None),
        "bool among numbers": (request([[1, 2], [3, True]]), 1),
        "null among numbers": (request([[1, 2], [None, 3]]), 1),
        "string among numbers": (request([[1, "2"]]), 0),
        "object among numbers": (request([[1, {}]]), 0),
    },
    ("not_finite", 400, FINITE): {
        "beyond float32": (b'{"inputs": [[1, 2], [1, -1e39]]}', 1),
        "integer beyond float32": (request([[1, 10**50]]), 0),
        "beyond float64": (b'{"inputs": [[1, 2], [1, 1e400]]}', 1),
        "integer beyond float64": (request([[10**400, 1]]), 0),
    },
    ("invalid_json", 400, NOT_JSON): {
        "NaN": (b'{"inputs": [[1, NaN]]}', None),
        "Infinity": (b'{"inputs": [[1, -Infinity]]}', None),
        "not JSON": (b"hello", None),
        "JSON and more": (b'{"inputs": [[1, 2]]} x', None),
        "JSON cut short": (b'{"inputs": [[1, 2]', None),
        "two byte order marks": (b'\xef\xbb\xbf\xef\xbb\xbf{"inputs": [[1, 2]]}', None),
        "a byte order mark alone": (b"\xef\xbb\xbf", None),
        "not UTF-8": (b'{"inp\xffuts": [[1, 2]]}', None),
        "half a surrogate pair": (rb'{"\udc00": 1}', None),
    },
    ("empty", 400, 'expected {"inputs": [[…], …]}'): {"no body": (b"", None)},
    ("empty", 400, "send at least one"): {"no rows": (request([]), None)},
    ("too_many_rows", 413, f"at most {MAX_ROWS}"): {
        "one row too many": (request([[1, 2]] * (MAX_ROWS + 1)), None),
        "a million rows": (b'{"inputs": [' + b"[1,2]," * 999_999 + b"[1,2]]}", None),
    },
    ("unknown_field", 400, FIELDS): {
        "unknown field": (request([[1, 2]], instances=[]), None),
        "unknown field 100,000 levels deep": (b'{"x": ' + DEEP, None),
        "unknown parameter": (asking(depth=2), None),
    },
    ("invalid_parameter", 400, PARAMETERS): {
        "parameters a number": (request([[1, 2]], parameters=3), None),
        "router a word": (asking(router="fast"), None),
        "router a bool": (asking(router=True), None),
        "risk a string": (asking(router={"risk": "1%"}), None),
        "risk missing": (asking(router={}), None),
    },
    ("no_router", 400, ROUTER): {
        "router on": (asking(router="on"), None),
        "router at a risk": (asking(router={"risk": 0.01}), None),
    },
}

# What a client writes must not be taken for a place or a problem in the decoder's own message.
IMPOSTORS: dict[tuple[str, int, str], dict[str, tuple[bytes, int | None]]] = {
    ("unknown_field", 400, FIELDS): {
        "field named like a row": (b'{"$.inputs[7]": 1}', None),
        "field named like a very far row": (b'{"$.inputs[' + b"9" * 5000 + b']": 1}', None),
        "field named like a parameter": (b'{"$.parameters": 1}', None),
        "field named like a place": (b'{"x` - at `$.inputs[3]": 1}', None),
    },
    ("invalid_parameter", 400, PARAMETERS): {
        "router named like a row": (asking(router="$.inputs[3]"), None),
        "router named like another problem": (asking(router="unknown field"), None),
    },
}


@pytest.mark.parametrize(
    ("body", "row", "code", "status", "says"),
    [
        pytest.param(body, row, *expected, id=name)
        for table in (BAD_BODIES, IMPOSTORS)
        for expected, bodies in table.items()
        for name, (body, row) in bodies.items()
    ],
)
def test_a_bad_body_is_told_what_was_expected(
    protocol: NativeProtocol,
    decode: Decode,
    body: bytes,
    row: int | None,
    code: str,
    status: int,
    says: str,
) -> None:
    with pytest.raises(InputError) as caught:
        decode(body)
    reply = protocol.refuse(caught.value)
    error = json.loads(reply.body)["error"]
    assert (error["code"], error.get("row"), reply.status) == (code, row, status)
    assert says in error["message"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"inputs=1", "application/x-www-form-urlencoded"),
        (None, "application/x-www-form-urlencoded"),
        (None, "multipart/form-data; boundary=x"),
        (None, ""),
        (b'{"inputs": [[1, 2]]}', "text/plain"),
        (b"\x93NUMPY", "application/octet-stream"),
    ],
)
def test_another_content_type_is_told_which_one_to_send(
    protocol: NativeProtocol, decode: Decode, body: bytes | None, kind: str
) -> None:
    with pytest.raises(InputError, match="-H 'Content-Type: application/json'") as caught:
        decode(body, kind)
    reply = protocol.refuse(caught.value)
    assert (reply.status, caught.value.code) == (415, "unsupported_media_type")
    assert (kind.partition(";")[0] or "missing") in caught.value.message


# --- anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
near_misses = st.fixed_dictionaries(
    {}, optional={"inputs": json_values, "parameters": json_values, "id": json_values}
)
damaged = st.builds(
    lambda start, noise, cut: request([[1.5, 2]])[:start] + noise + request([[1.5, 2]])[cut:],
    st.integers(0, 24),
    st.binary(max_size=6),
    st.integers(0, 24),
)


@given(body=st.binary() | damaged | st.builds(lambda v: json.dumps(v).encode(), near_misses))
@example(body=b"\x00")
def test_no_body_raises_anything_but_an_input_error(decode: Decode, body: bytes) -> None:
    try:
        rows = decode(body)
    except InputError as error:
        assert error.code
        assert error.message
    else:
        assert rows.shape[1:] == (2,)
        assert np.isfinite(rows).all()


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(float32s, float32s), min_size=1, max_size=MAX_ROWS))
def test_float32_survives_the_text(decode: Decode, rows: list[tuple[float, float]]) -> None:
    assert decode(request(rows)).tobytes() == np.float32(rows).tobytes()
