"""The native protocol: a bad body is refused with what was expected."""

from __future__ import annotations

import json

import pytest
from native_requests import MAX_ROWS, Decode, request

from skipserve.errors import InputError
from skipserve.protocols.native import NativeProtocol

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
        "100,000 levels in inputs": (b'{"inputs": ' + DEEP, 0),
    },
    ("unknown_input", 400, "small takes 'inputs'"): {
        "inputs of another name": (request({"0": [1, 2]}), None),
    },
    ("wrong_shape", 400, '"inputs" must be a list of rows of 2 numbers each'): {
        "row too short, by name": (request({"inputs": [[1, 2], [3]]}), 1),
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
        "field named like all inputs": (b'{"x` - at `$.inputs": 1}', None),
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
    native: NativeProtocol,
    decode_native: Decode,
    body: bytes,
    row: int | None,
    code: str,
    status: int,
    says: str,
) -> None:
    with pytest.raises(InputError) as caught:
        decode_native(body)
    reply = native.refuse(caught.value)
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
    native: NativeProtocol, decode_native: Decode, body: bytes | None, kind: str
) -> None:
    with pytest.raises(InputError, match="-H 'Content-Type: application/json'") as caught:
        decode_native(body, kind)
    reply = native.refuse(caught.value)
    assert (reply.status, caught.value.code) == (415, "unsupported_media_type")
    assert (kind.partition(";")[0] or "missing") in caught.value.message
