"""Requests that are nearly right, over every protocol: what a fuzzer asks a model of two numbers.

Each starts from a good request and is changed in its structure, in its values, in its bytes, its
headers or its path. The same seed makes the same requests.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

# What stands where something else was expected.
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e38, 1e39, 1e-45),
    *(5e-324, 1e308, "", "x", "1", "NaN", "é\u202e\U0001f600", "\x00", "a" * 3000, [], {}, [[]]),
    *([None], [[[1.0]]], [[1.0, 2.0, 3.0]], {"a": 1}, {"b64": "AAAA"}, "AAAA", "../../etc/passwd"),
]
KEYS = [
    *("inputs", "outputs", "instances", "parameters", "name", "shape", "datatype", "data", "id"),
    *("router", "risk", "measure", "signature_name", "binary_data", "binary_data_size", "", "é"),
]
TYPES = ["FP32", "FP64", "FP16", "BF16", "INT8", "INT64", "UINT64", "BOOL", "BYTES", "STRING", ""]
PATHS = [
    *("/predictions/small", "/predictions/small/1", "/v1/models/small:predict"),
    *("/v2/models/small/infer", "/v2/models/small/versions/1/infer"),
]
HEADERS: list[tuple[str, list[str]]] = [
    (
        "Content-Type",
        [
            *("application/json", "application/octet-stream", "text/plain", "", "a/b; charset=é"),
            *("multipart/form-data; boundary=x", "application/json;charset=utf-16", "/", ";"),
        ],
    ),
    ("Content-Encoding", ["gzip", "deflate", "br", "identity", "gzip, gzip", "", "GZIP"]),
    ("Accept-Encoding", ["gzip", "gzip;q=0", "*", ""]),
    ("Inference-Header-Content-Length", ["0", "-1", "1", "50", "99999999", "x", "", "0x10", " 5"]),
    ("X-Request-ID", ["a", "a b", "é", "a" * 500, "", "a/b:c"]),
    ("X-Request-Timeout", ["30", "1H", "x", "", "-1", "99999999H", "1e3", "30S"]),
    ("grpc-timeout", ["30S", "999999999S", "m"]),
    ("Accept", ["text/html", "application/octet-stream", "*/*;q=0"]),
    ("Origin", ["null", "https://a.example"]),
]


@dataclass
class FuzzRequest:
    """One request."""

    path: str
    body: bytes
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


class Fuzzer:
    """Makes requests.

    Args:
        seed: Of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self._pick = random.Random(seed)

    def requests(self, count: int) -> Iterator[FuzzRequest]:
        """So many of them."""
        for _ in range(count):
            yield self._request()

    def _request(self) -> FuzzRequest:
        pick = self._pick
        path = pick.choice(PATHS)
        headers = {"Content-Type": "application/json"}
        if "/v2/" in path and pick.random() < 0.3:
            body, length = self._tensors()
            headers = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(length),
            }
        else:
            good = self._good(path)
            for _ in range(pick.choice((0, 1, 1, 1, 2, 3, 8))):
                good = self._changed(good)
            body = json.dumps(good, ensure_ascii=pick.random() < 0.5).encode(
                "utf-8", "surrogatepass"
            )
        if pick.random() < 0.25:
            body = self._bent(body)
        if pick.random() < 0.15:
            packed = gzip.compress(body, 1, mtime=0) if pick.random() < 0.5 else zlib.compress(body)
            body = self._bent(packed) if pick.random() < 0.3 else packed
            headers["Content-Encoding"] = pick.choice(("gzip", "deflate"))
        for _ in range(pick.choice((0, 0, 0, 1, 2))):
            name, values = pick.choice(HEADERS)
            headers[name] = pick.choice(values)
        if pick.random() < 0.03:
            path = self._other(path)
        method = pick.choice(("GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"))
        return FuzzRequest(path, body, method if pick.random() < 0.03 else "POST", headers)

    def _good(self, path: str) -> Any:
        pick = self._pick
        rows = [
            [pick.uniform(-2, 2), pick.uniform(-2, 2)] for _ in range(pick.choice((1, 1, 2, 7)))
        ]
        if "/v2/" in path:
            tensor = {"name": "inputs", "datatype": "FP32", "shape": [len(rows), 2], "data": rows}
            value: dict[str, Any] = {"id": "a", "inputs": [tensor], "outputs": [{"name": "label"}]}
            value["parameters"] = {"router": pick.choice(("on", "off"))}
        elif "/v1/" in path:
            value = {"instances": rows, "signature_name": "serving_default"}
        else:
            value = {"inputs": rows, "parameters": {"router": {"risk": 0.05}}}
        if pick.random() < 0.5:
            value.pop("outputs", None)
            value.pop("parameters", None)
            value.pop("signature_name", None)
        return value

    def _tensors(self) -> tuple[bytes, int]:
        """A body with binary tensors behind its JSON, and the length of that."""
        pick = self._pick
        rows = pick.choice((0, 1, 2, 5))
        data = struct.pack(f"<{2 * rows}f", *(pick.uniform(-2, 2) for _ in range(2 * rows)))
        size = len(data) if pick.random() < 0.7 else pick.choice((0, 1, -4, 2**62, len(data) + 1))
        tensor = {
            "name": "inputs",
            "datatype": "FP32" if pick.random() < 0.7 else pick.choice(TYPES),
            "shape": [rows, 2] if pick.random() < 0.7 else [pick.choice((-1, 0, 2**40)), 2],
            "parameters": {"binary_data_size": size},
        }
        value: Any = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        if pick.random() < 0.3:
            value = self._changed(value)
        header = json.dumps(value).encode()
        return header + data, len(header)

    def _changed(self, value: Any) -> Any:
        """The same with one place of it changed."""
        pick, value = self._pick, deepcopy(value)
        places = list(_places(value))
        if not places:
            return pick.choice(ODD)
        holder, key = pick.choice(places)
        kind = pick.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = [holder[key]] * pick.choice((1, 2, 50))
        elif kind == 2 and isinstance(holder, dict):
            holder[pick.choice(KEYS)] = holder.pop(key)
        elif kind == 3 and isinstance(holder, dict):
            holder[pick.choice(KEYS)] = pick.choice(ODD)
        elif kind == 4 and key == "datatype":
            holder[key] = pick.choice(TYPES)
        else:
            holder[key] = pick.choice(ODD)
        return value

    def _bent(self, body: bytes) -> bytes:
        """Other bytes in it, fewer or more."""
        pick, bent = self._pick, bytearray(body)
        for _ in range(pick.choice((1, 1, 2, 10))):
            place = pick.randrange(len(bent) + 1)
            kind = pick.randrange(4)
            if kind == 0 and bent:
                bent[place % len(bent)] = pick.randrange(256)
            elif kind == 1:
                del bent[place : place + pick.choice((1, 4, 1000))]
            elif kind == 2:
                bent[place:place] = pick.randbytes(pick.choice((1, 4, 64)))
            else:
                bent[place:place] = pick.choice((b"[" * 500, b'"', b"\\u", b"1e", b"\xef\xbb\xbf"))
        return bytes(bent)

    def _other(self, path: str) -> str:
        pick = self._pick
        return pick.choice(
            [
                *(
                    path + "/",
                    path + "%00",
                    path.replace("small", "other"),
                    path.upper(),
                    "//" + path,
                ),
                *(path + "/../x", path.replace("1", "99"), path + "?a=" + "b" * 50, "/", "/%F0%9F"),
            ]
        )


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a value: what holds it, and its key there."""
    if not isinstance(value, dict | list):
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in list(pairs):
        yield value, key
        if isinstance(one, dict | list) and one:
            yield from _places(one)
