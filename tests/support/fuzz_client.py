"""A connection on which nearly valid requests and good ones take turns."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse

import numpy as np
from fuzzing import FuzzRequest
from running import JSON, Running

ROW = {"inputs": [[0.5, -0.25]], "parameters": {"router": "off"}}


def right(server: Running) -> list[float]:
    status, _, answer = server.ask("small", ROW)
    assert status == 200
    probabilities: list[float] = answer["outputs"][0]["probabilities"]
    return probabilities


class Client:
    """Keeps one connection, on which every fourth request is a good one."""

    def __init__(self, server: Running, expected: Sequence[float]) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._expected = expected
        self.seen = Counter[int]()
        self.bad = list[tuple[FuzzRequest, int, bytes]]()

    def ask(self, asked: FuzzRequest) -> None:
        headers = {name: value.encode("utf-8") for name, value in asked.headers.items()}
        self._connection.request(asked.method, asked.path, asked.body, headers)  # type: ignore[arg-type]
        reply = self._connection.getresponse()
        content = reply.read()
        self.seen[reply.status] += 1
        if reply.status >= 500:
            self.bad.append((asked, reply.status, content))
        elif content and reply.headers["Content-Type"] == "application/json":
            if reply.headers["Content-Encoding"] == "gzip":
                content = gzip.decompress(content)
            json.loads(content)

    def good(self) -> None:
        try:
            reply = self._asked()
        except (HTTPException, ConnectionError):  # what was before it had it closed
            self._connection.close()
            reply = self._asked()
        answer = json.loads(reply.read())
        assert reply.status == 200, answer
        found = answer["outputs"][0]["probabilities"]
        assert np.abs(np.subtract(found, self._expected)).max() < 1e-5
        assert answer["outputs"][0]["depth_run"] == 4

    def _asked(self) -> HTTPResponse:
        self._connection.request("POST", "/predictions/small", json.dumps(ROW), JSON)
        return self._connection.getresponse()

    def run(self, requests: Iterator[FuzzRequest]) -> None:
        with contextlib.closing(self._connection):
            for i, asked in enumerate(requests):
                try:
                    self.ask(asked)
                except (HTTPException, ConnectionError) as error:  # refused before it was read
                    self._connection.close()
                    self.seen[0] += 1
                    # Of all that this client has asked, over several runs.
                    assert self.seen[0] < 5 + self.seen.total() // 20, (asked, error)
                if i % 4 == 0:
                    self.good()
