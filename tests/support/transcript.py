"""A transcript of requests to the model `small`; every host answers the same bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection

import numpy as np
from hosts import can

JSON = {"Content-Type": "application/json"}
ROWS = [[0.5, -0.25], [2.0, -0.5]]
# Of a reply; the others are the host's own, or tell of times.
COMPARED = ("content-type", "content-encoding", "inference-header-content-length", "allow", "vary")


@dataclass(frozen=True)
class Ask:
    """A request, and the row of docs/hosts.md without which a host cannot answer it."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    in_chunks: bool = False


@dataclass(frozen=True)
class Told:
    status: int
    headers: dict[str, str]
    body: bytes


def told(status: int, headers: list[tuple[str, str]], body: bytes) -> Told:
    kept = {name.lower(): value for name, value in headers if name.lower() in COMPARED}
    return Told(status, kept, body)


def over(port: int, asks: list[Ask]) -> list[Told]:
    """One connection, one request after the other."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    answers = []
    for ask in asks:
        parts = iter((ask.body[:9], ask.body[9:])) if ask.in_chunks else None
        connection.request(ask.method, ask.path, parts or ask.body or None, ask.headers)
        reply = connection.getresponse()
        answers.append(told(reply.status, reply.getheaders(), reply.read()))
    connection.close()
    return answers


def asks_of(host: str) -> dict[str, Ask]:
    """What a host can be asked."""
    return {name: ask for name, ask in TRANSCRIPT.items() if not ask.needs or can(host, ask.needs)}


def compare(asks: Iterable[str], answers: Sequence[Told], expected: Sequence[Told]) -> None:
    for name, one, other in zip(asks, answers, expected, strict=True):
        assert one == other, name


def _post(path: str, value: object, headers: dict[str, str] = JSON, needs: str = "") -> Ask:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Ask("POST", path, body, headers, needs)


def _get(path: str) -> Ask:
    return Ask("GET", path, needs=_ABOUT)


def _tensor(**fields: object) -> dict[str, object]:
    return {"name": "inputs", "datatype": "FP32", "shape": [2, 2], **fields}


_CHUNK = np.float32(ROWS).tobytes()
_HEADER = json.dumps(
    {
        "inputs": [_tensor(parameters={"binary_data_size": len(_CHUNK)})],
        "parameters": {"binary_data_output": True},
    }
).encode()
_BINARY = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": str(len(_HEADER)),
}
_OFF = {"parameters": {"router": "off"}}
_ABOUT = "liveness, readiness and metadata on the inference port"
_VERSIONS = "versions in a path"
_CHUNKS = "bodies in chunks, and `Expect: 100-continue`"
_METHODS = "`HEAD` and `OPTIONS`"
_SHAPE = "404 and 405 in our shape of an error"
_NATIVE, _OIP, _V1 = "/predictions/small", "/v2/models/small/infer", "/v1/models/small:predict"

TRANSCRIPT: dict[str, Ask] = {
    "native": _post(_NATIVE, {"inputs": ROWS}),
    "native, in chunks": Ask(
        "POST", _NATIVE, json.dumps({"inputs": ROWS}).encode(), JSON, _CHUNKS, in_chunks=True
    ),
    "native, router off": _post(_NATIVE, {"inputs": ROWS, **_OFF}),
    "native, packed": _post(
        _NATIVE,
        gzip.compress(json.dumps({"inputs": ROWS}).encode(), mtime=0),
        JSON | {"Content-Encoding": "gzip"},
    ),
    "native, a long reply packed": _post(
        _NATIVE, {"inputs": ROWS * 32}, JSON | {"Accept-Encoding": "gzip"}, "compressed replies"
    ),
    "native, a short row": _post(_NATIVE, {"inputs": [[1.0, 2.0], [3.0]]}),
    "native, no JSON": _post(_NATIVE, b"\xff"),
    "native, an empty body": _post(_NATIVE, b""),
    "native, another content type": _post(_NATIVE, b"<a/>", {"Content-Type": "text/xml"}),
    "native, too many rows": _post(_NATIVE, {"inputs": ROWS * 1000}),
    "tensors as JSON": _post(_OIP, {"inputs": [_tensor(data=ROWS)]}),
    "tensors as bytes": _post(_OIP, _HEADER + _CHUNK, _BINARY),
    "tensors by version": _post(
        "/v2/models/small/versions/1/infer", {"inputs": [_tensor(data=ROWS)]}, needs=_VERSIONS
    ),
    "tensors, another shape": _post(_OIP, {"inputs": [_tensor(data=ROWS, shape=[1, 3])]}),
    "instances": _post(_V1, {"instances": ROWS}),
    "instances, none": _post(_V1, {"instances": 1}),
    "metadata": _get("/v2/models/small"),
    "server metadata": _get("/v2"),
    "models": _get("/v1/models"),
    "model": _get("/v1/models/small"),
    "live": _get("/v2/health/live"),
    "ready": _get("/v2/models/small/ready"),
    "ping": _get("/ping"),
    "the document": Ask("GET", "/openapi.json", needs="`/openapi.json`"),
    "the head alone": Ask("HEAD", "/v2/models/small", needs=_METHODS),
    "the head of what takes rows": Ask("HEAD", _NATIVE, needs=_METHODS),
    "options": Ask("OPTIONS", _NATIVE, needs=_METHODS),
    "another method": Ask("PUT", _NATIVE, needs=_SHAPE),
    "a slash at the end": _post(f"{_NATIVE}/", {"inputs": ROWS}, needs=_SHAPE),
    "a letter as its number": _post("/predictions/sm%61ll", {"inputs": ROWS}, needs=_SHAPE),
    "a question behind the path": _post(f"{_NATIVE}?a=b", {"inputs": ROWS}),
    "nothing there": Ask("GET", "/predictions/other", needs=_SHAPE),
    "no model of that name": _post("/v2/models/other/infer", {}, needs=_SHAPE),
}
