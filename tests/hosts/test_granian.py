"""Features of granian that TorchServe lacks, over real connections (docs/hosts.md)."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from command_line import CommandLine
from running import JSON, Running, free_ports, serving

from skipserve.protocols.messages import MAX_BODY_BYTES

pytestmark = pytest.mark.server
PAGE = "https://page.example"
BODY = json.dumps({"inputs": [[0.5, 0.5]]}).encode()
PATH = "/predictions/small"


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]]) -> Iterator[Running]:
    with serving(routed_project[0], "--allow-origin", PAGE) as running:
        yield running


def talk(server: Running, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while packet := connection.recv(1 << 16):
            received += packet
        return received


def request(body: bytes, *headers: str, close: bool = False) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: here", "Content-Type: application/json", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_head_is_get_without_its_body(server: Running) -> None:
    got, asked = server.send("GET", "/v2"), server.send("HEAD", "/v2")
    assert (asked[0], asked[2]) == (200, b"")
    assert asked[1]["content-length"] == got[1]["content-length"] == str(len(got[2]))


def test_a_page_that_is_named_may_ask_and_no_other(server: Running) -> None:
    preflight = {"Origin": PAGE, "Access_Control_Request_Headers": "content-type"}
    status, headers, _ = server.send("OPTIONS", PATH, **preflight)
    assert (status, headers["access-control-allow-origin"]) == (204, PAGE)
    assert headers["access-control-allow-headers"] == "content-type"
    assert "POST" in headers["access-control-allow-methods"]
    for origin, allowed in ((PAGE, True), ("https://other.example", False)):
        status, headers, _ = server.send("POST", PATH, BODY, Origin=origin, **JSON)
        assert status == 200
        assert ("access-control-allow-origin" in headers) == allowed


def test_requests_that_do_not_wait_are_answered_in_order(server: Running) -> None:
    count = 30
    bodies = [BODY if i % 3 else b'{"inputs": 3}' for i in range(count)]  # bad ones among them
    sent = [
        request(body, f"Content-Length: {len(body)}", f"X-Request-ID: n{i}", close=i == count - 1)
        for i, body in enumerate(bodies)
    ]
    received = talk(server, b"".join(sent)).decode()
    found = [
        line.partition(": ")[2]
        for line in received.splitlines()
        if line.lower().startswith("x-request-id")
    ]
    assert found == [f"n{i}" for i in range(count)]


def test_a_body_in_chunks_and_one_that_waits_to_be_asked_for(server: Running) -> None:
    half = len(BODY) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in (BODY[:half], BODY[half:]))
    received = talk(
        server, request(chunks + b"0\r\n\r\n", "Transfer-Encoding: chunked", close=True)
    )
    assert received.startswith(b"HTTP/1.1 200")
    expecting = (f"Content-Length: {len(BODY)}", "Expect: 100-continue")
    received = talk(server, request(BODY, *expecting, close=True))
    assert received.startswith((b"HTTP/1.1 100", b"HTTP/1.1 200"))
    assert b"HTTP/1.1 200" in received


def test_bodies_are_packed_both_ways(server: Running) -> None:
    rows = json.dumps({"inputs": [[0.5, 0.5]] * 100}).encode()
    plain = server.send("POST", PATH, rows, **JSON)
    packed = server.send(
        "POST", PATH, gzip.compress(rows), Content_Encoding="gzip", Accept_Encoding="gzip", **JSON
    )
    assert packed[1]["content-encoding"] == "gzip"
    assert "accept-encoding" in packed[1]["vary"]
    assert gzip.decompress(packed[2]) == plain[2]


def test_a_body_that_is_too_long_is_told_so_and_its_name(server: Running) -> None:
    long = str(MAX_BODY_BYTES + 1)
    lines = (f"Content-Length: {long}", "X-Request-ID: long-1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request(b"", *lines))
        piece = bytes(1 << 20)
        try:
            for _ in range(MAX_BODY_BYTES // len(piece) + 1):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = connection.recv(1 << 16)
    assert received.startswith(b"HTTP/1.1 413")
    assert b"x-request-id: long-1" in received.lower()
    assert server.send("POST", PATH, BODY, **JSON)[0] == 200


def test_http_2_is_answered(server: Running) -> None:
    url = f"http://127.0.0.1:{server.port}{PATH}"
    done = subprocess.run(
        [
            *("curl", "-s", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"),
            *("-H", "Content-Type: application/json", "-d", BODY.decode(), url),
        ],
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith(" 2 200"), done


def test_a_websocket_is_not_opened(server: Running) -> None:
    lines = (
        *("GET /ws HTTP/1.1", "Host: here", "Connection: Upgrade, close", "Upgrade: websocket"),
        *("Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13", "", ""),
    )
    assert not talk(server, "\r\n".join(lines).encode()).startswith(b"HTTP/1.1 101")


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(chain), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certified(tmp_path_factory.mktemp("tls"))


def test_tls(routed_project: tuple[Path, list[str]], certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    options = ("--tls-certificate", str(chain), "--tls-key", str(key))
    with serving(routed_project[0], *options) as running:
        trusted = ssl.create_default_context(cafile=str(chain))
        connection = HTTPSConnection("127.0.0.1", running.port, timeout=60, context=trusted)
        connection.request("POST", PATH, BODY, JSON)
        assert connection.getresponse().status == 200
        connection.close()
        assert f"https://127.0.0.1:{running.port}{PATH}" in running.printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-key", "{key}"], "https takes both --tls-certificate and --tls-key"),
        (["--tls-certificate", "{chain}", "--tls-key", "none.pem"], "--tls-key none.pem cannot be"),
        (["--tls-certificate", "{readme}", "--tls-key", "{key}"], "is no PEM file"),
        (["--tls-certificate", "{chain}", "--tls-key", "{other}"], "do not belong together"),
        (["--tls-certificate", "{chain}", "--tls-key", "{locked}"], "is encrypted; write it"),
        (["--tls-certificate", "{chain}", "--tls-key", "{chain}"], "cannot be used"),
    ],
)
def test_a_key_that_is_missing_or_of_no_use_is_one_line(
    routed_project: tuple[Path, list[str]],
    certificate: tuple[Path, Path],
    command_line: CommandLine,
    tmp_path: Path,
    options: list[str],
    says: str,
) -> None:
    chain, key = certificate
    _, other = certified(tmp_path)
    locked = tmp_path / "locked.pem"
    lock = [
        "openssl",
        "pkey",
        "-aes256",
        "-passout",
        "pass:x",
        "-in",
        str(key),
        "-out",
        str(locked),
    ]
    subprocess.run(lock, check=True, capture_output=True)
    readme = Path(__file__).parents[2] / "README.md"
    files = {"chain": chain, "key": key, "other": other, "locked": locked, "readme": readme}
    filled = [one.format_map(files) for one in options]
    port, metrics_port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    ended = command_line("serve", *ports, *filled, folder=routed_project[0])
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert says in line
