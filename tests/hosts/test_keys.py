"""API keys of a service: access, rate limits, and changes without a restart."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from key_files import FIRST, SECOND, THIRD, write
from running import JSON, Running, free_ports, serving, until

pytestmark = pytest.mark.server
PATH = "/predictions/small"
BODY = json.dumps({"inputs": [[0.5, 0.5]]}).encode()
# Every way a model is asked, and what only tells of it.
WAYS = (
    ("POST", PATH),
    ("POST", "/v1/models/small:predict"),
    ("POST", "/v2/models/small/infer"),
    ("GET", "/v2"),
    ("GET", "/v1/models"),
    ("GET", "/v2/models/small"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/nothing/there"),
    ("PUT", PATH),
)
PROBES = ("/ping", "/health", "/live", "/ready", "/v2/health/live", "/v2/health/ready", "/live/")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    write(file, FIRST, SECOND)
    return file


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]], keys: Path) -> Iterator[Running]:
    options = ("--rate-limit", "40", "--workers", "2", "--allow-origin", "https://page.example")
    environment = {"SKIPSERVE_KEYS": str(keys)}
    with serving(routed_project[0], *options, environment=environment) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def code_in(body: bytes) -> str:
    error = json.loads(body)["error"]
    return str(error["code"] if isinstance(error, dict) else error.partition("]")[0][1:])


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_without_a_key_nothing_is_answered(server: Running, method: str, path: str) -> None:
    status, headers, body = server.send(method, path, BODY, **JSON)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    if method != "HEAD":
        assert code_in(body) == "no_key"
        assert b"small" not in body.replace(path.encode(), b"")
    status, _, body = server.send(method, path, BODY, **JSON, **bearer("wrong-0123456789abcdef"))
    assert status == 403
    if method != "HEAD":
        assert code_in(body) == "wrong_key"


@pytest.mark.parametrize(
    "headers",
    [
        bearer(FIRST),
        {"Authorization": f"bearer  {SECOND} "},
        {"X-API-Key": SECOND},
        {"Authorization": "Basic eDp5", "X-API-Key": FIRST},
    ],
)
def test_each_key_opens_in_either_header(server: Running, headers: dict[str, str]) -> None:
    assert server.send("POST", PATH, BODY, **JSON, **headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer"},
        {"Authorization": FIRST},
    ],
)
def test_what_is_no_key_is_none(server: Running, headers: dict[str, str]) -> None:
    assert server.send("POST", PATH, BODY, **JSON, **headers)[0] == 401


@pytest.mark.parametrize("shown", [FIRST[:-1], FIRST + "0", FIRST.upper(), "", "\xff" * 20])
def test_nearly_a_key_is_none(server: Running, shown: str) -> None:
    assert server.send("POST", PATH, BODY, **JSON, X_API_Key=shown)[0] in (401, 403)


@pytest.mark.parametrize("path", PROBES)
def test_probes_need_none(server: Running, path: str) -> None:
    assert server.send("GET", path)[0] == 200
    assert server.is_ready()


def test_a_preflight_needs_none_for_browsers_cannot_show_one(server: Running) -> None:
    asked = {"Origin": "https://page.example", "Access_Control_Request_Headers": "authorization"}
    status, headers, _ = server.send("OPTIONS", PATH, **asked)
    assert (status, headers["access-control-allow-headers"]) == (204, "authorization")


def test_the_document_says_so(server: Running) -> None:
    document = json.loads(server.send("GET", "/openapi.json", **bearer(SECOND))[2])
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert document["paths"]["/live"]["get"]["security"] == []
    assert {"401", "403", "429", "504"} <= set(document["paths"][PATH]["post"]["responses"])


def test_keys_are_in_neither_log_nor_plan(server: Running) -> None:
    assert FIRST not in server.printed
    assert "Authorization: Bearer YOUR_KEY" in server.printed
    for process in server.descendants():
        assert FIRST not in " ".join(process.cmdline())


def test_one_key_asks_too_often_and_the_other_goes_on(server: Running, keys: Path) -> None:
    """Whichever of the two workers is asked."""
    write(keys, FIRST, SECOND, THIRD)
    until(  # both workers know it
        lambda: {server.send("GET", "/v2", **bearer(THIRD))[0] for _ in range(12)} <= {200, 429}
    )
    request = f"GET /v2 HTTP/1.1\r\nHost: here\r\nX-API-Key: {THIRD}\r\n\r\n".encode()
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    received, began_s = b"", time.monotonic()
    for _ in range(8):  # a connection is one worker's
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(request * 40 + last)
            while packet := connection.recv(1 << 16):
                received += packet
    let_in, kept_out = (received.count(b"HTTP/1.1 %d " % code) for code in (200, 429))
    assert let_in + kept_out == 8 * 41
    assert 0 < let_in <= 41 + 40 * (time.monotonic() - began_s)
    assert kept_out
    assert received.count(b"retry-after: 1\r\n") == kept_out
    assert b"this key may make 40 requests a second" in received
    assert server.send("POST", PATH, BODY, **JSON, **bearer(SECOND))[0] == 200
    until(lambda: server.send("POST", PATH, BODY, **JSON, **bearer(THIRD))[0] == 200)


def test_keys_are_rotated_without_a_restart(server: Running, keys: Path) -> None:
    def status(key: str) -> set[int]:
        return {server.send("GET", "/v2", **bearer(key))[0] for _ in range(6)}

    pids = {one.pid for one in server.workers()}
    write(keys, SECOND, THIRD)
    until(lambda: status(FIRST) == {403} and status(THIRD) <= {200, 429})
    # What nobody can read changes nothing.
    keys.write_text("short\n")
    until(lambda: status(SECOND) <= {200, 429} and "line 1 is no key" in server.printed)
    assert "short" not in server.printed
    keys.unlink()
    until(lambda: status(SECOND) <= {200, 429} and "cannot be read" in server.printed)
    write(keys, FIRST, SECOND)
    until(lambda: status(FIRST) <= {200, 429} and status(THIRD) == {403})
    assert {one.pid for one in server.workers()} == pids


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keys", "nowhere"], "--keys nowhere cannot be read"),
        (["--keys", "keys", "--server", "torchserve"], "and without keys; put a proxy before it"),
    ],
)
def test_a_start_that_would_not_be_what_was_meant_is_refused(
    routed_project: tuple[Path, list[str]],
    command_line: CommandLine,
    options: list[str],
    says: str,
) -> None:
    write(routed_project[0] / "keys", FIRST)
    port, metrics_port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    ended = command_line("serve", *ports, *options, folder=routed_project[0])
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.splitlines()) == 1


def test_open_to_the_network_without_keys_is_said(routed_project: tuple[Path, list[str]]) -> None:
    with serving(routed_project[0], "--host", "0.0.0.0") as running:
        assert "may use every model: it is not on loopback and needs no key" in running.printed
        assert running.send("POST", PATH, BODY, **JSON)[0] == 200
