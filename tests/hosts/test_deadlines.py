"""Deadlines: abandoned requests do not run, and slow bodies are not awaited."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from running import JSON, Running, serving, until
from signatures import spec, taking

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import InputError
from skipserve.hosts.models import Model
from skipserve.protocols.deadline import HEADERS, time_allowed
from skipserve.protocols.messages import MAX_BODY_BYTES, error_reply, most_bytes
from skipserve.service.batcher import Batcher

PATH = "/predictions/small"
BODY = json.dumps({"inputs": [[0.5, 0.5]]}).encode()


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("0.25", 0.25),
        ("2", 2.0),
        ("150m", 0.15),
        ("2S", 2.0),
        ("1M", 60.0),
        ("1H", 3600.0),
        ("7u", 7e-6),
        ("7n", 7e-9),
        ("0", 0.0),
    ],
)
@pytest.mark.parametrize("name", HEADERS)
def test_both_spellings_are_seconds(name: str, asked: str, seconds: float) -> None:
    assert time_allowed({name: asked}) == pytest.approx(seconds)


@settings(max_examples=examples(30))
@given(st.text(max_size=20))
def test_anything_else_is_said_to_be_wrong(asked: str) -> None:
    try:
        assert 0 <= time_allowed({"x-request-timeout": asked}) < 1e12
    except InputError as error:
        assert error.code == "invalid_timeout"
        assert "150m" in error.message


def test_without_one_there_is_no_end() -> None:
    assert time_allowed({}) == float("inf")


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]]) -> Iterator[Running]:
    """A batch waits two seconds for more: what comes alone stays in the queue so long."""
    options = ("--batch-size", "64", "--max-batch-delay-ms", "2000", "--body-timeout", "0.5")
    with serving(routed_project[0], *options) as running:
        yield running


def not_run(server: Running, reason: str) -> float:
    pattern = rf'skipserve_requests_not_run_total{{model="small",reason="{reason}"}} (\S+)'
    found = re.search(pattern, server.get("/metrics"))
    assert found is not None
    return float(found[1])


def rows_run(server: Running) -> float:
    found = re.findall(r'skipserve_rows_total{model="small",.*} (\S+)', server.get("/metrics"))
    return sum(map(float, found))


@pytest.mark.parametrize(
    "path", [PATH, "/v1/models/small:predict", "/v2/models/small/infer"], ids=["native", "v1", "v2"]
)
@pytest.mark.parametrize("name", ["X-Request-Timeout", "grpc-timeout"])
def test_what_is_over_is_not_run_and_says_so(server: Running, path: str, name: str) -> None:
    before, ran = not_run(server, "deadline_exceeded"), rows_run(server)
    status, _, body = server.send("POST", path, BODY, **JSON, **{name: "50m"})
    assert status == 504
    assert b"deadline_exceeded" in body
    assert b"0.05 s that the request allows" in body
    until(lambda: not_run(server, "deadline_exceeded") == before + 1)
    assert rows_run(server) == ran


def test_enough_time_is_enough_and_a_wrong_one_is_said(server: Running) -> None:
    assert server.send("POST", PATH, BODY, **JSON, X_Request_Timeout="30")[0] == 200
    status, _, body = server.send("POST", PATH, BODY, **JSON, X_Request_Timeout="soon")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_timeout")
    assert server.send("POST", PATH, BODY, **JSON, X_Request_Timeout="0")[0] == 504


def test_whoever_hangs_up_is_taken_out_of_the_queue(server: Running) -> None:
    before, ran = not_run(server, "abandoned"), rows_run(server)
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(BODY)}\r\n".encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + b"Content-Type: application/json\r\n\r\n" + BODY)
            # Of a body that has not come nothing would be in the queue.
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
    until(lambda: not_run(server, "abandoned") == before + 5)
    assert server.send("POST", PATH, BODY, **JSON)[0] == 200
    until(lambda: rows_run(server) == ran + 1)
    assert server.restarts() == 0


def test_a_body_that_does_not_come_is_told_so_and_closed(server: Running) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(BODY)}\r\n"
    chunked = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n"
    for lines, part in ((head, BODY[:5]), (chunked, b"5\r\n" + BODY[:5] + b"\r\n")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(lines.encode() + b"\r\n" + part)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert received.startswith(b"HTTP/1.1 408")
        assert b"did not come within 0.5 s" in received


def test_a_refusal_that_may_pass_says_when_to_come_back() -> None:
    assert error_reply(503, "overloaded", "x").headers["retry-after"] == "1"
    assert error_reply(429, "too_often", "x").headers["retry-after"] == "1"
    assert "retry-after" not in error_reply(400, "x", "x").headers


def test_many_at_once_lose_nobody_else(server: Running) -> None:
    """Some leave, some have no time, the others get their own answer."""

    def one(i: int) -> int:
        headers = {"X_Request_Timeout": "20m"} if i % 3 == 0 else {}
        return server.send("POST", PATH, BODY, **JSON, **headers)[0]

    with ThreadPoolExecutor(12) as clients:
        statuses = list(clients.map(one, range(12)))
    assert statuses == [504 if i % 3 == 0 else 200 for i in range(12)]


@pytest.mark.parametrize(
    ("size", "max_rows", "most"),
    [(2, 1024, 131_072), (150_528, 1024, MAX_BODY_BYTES), ("length", 1, MAX_BODY_BYTES)],
)
def test_a_body_may_have_what_its_rows_can_take_and_no_more_than_any(
    artifact: Artifact, size: int | str, max_rows: int, most: int
) -> None:
    manifest = taking(artifact, spec("x", "float32", size))
    assert Model(manifest, cast(Batcher, None), max_rows).most_bytes == most
    assert most_bytes(max_rows, manifest.signature) == most
