"""Hostile requests, byte for byte, each beside good ones."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from running import Running, serving, until

pytestmark = pytest.mark.server
FILES = sorted((Path(__file__).parent / "hostile" / "requests").glob("*.http"))
PATH = "/predictions/small"
# At full depth: with the router on a row may be run there, too, to give evidence.
ROW = {"inputs": [[0.5, -0.25]], "parameters": {"router": "off"}}
# Above what a service of one small model has by itself; one bomb unpacked would be more.
GROWTH_BYTES = 100 << 20
# Kept open at once; fewer where a process may not have as many files.
IDLE = 10_000


@pytest.fixture(scope="module")
def server(routed_project: tuple[Path, list[str]]) -> Iterator[Running]:
    with serving(routed_project[0], "--batch-size", "16", "--body-timeout", "1") as running:
        yield running


@pytest.fixture(scope="module")
def right(server: Running) -> object:
    """What a good request is answered."""
    return answer(server)


def answer(server: Running) -> object:
    """Up to the order in which a batch adds up."""
    status, _, content = server.ask("small", ROW)
    assert status == 200, content
    (row,) = content["outputs"]
    return row["label"], row["depth_run"], [round(one, 4) for one in row["probabilities"]]


@contextlib.contextmanager
def unharmed(server: Running, right: object, pause_s: float = 0.0) -> Iterator[None]:
    """Good requests go on meanwhile and get their own answer; no worker ends, none grows."""
    (worker,) = server.workers()
    before = worker.memory_info().rss
    stop = threading.Event()

    def ask() -> int:
        for count in range(1_000_000):
            if stop.is_set():
                return count
            assert answer(server) == right
            time.sleep(pause_s)
        raise AssertionError

    with ThreadPoolExecutor(2) as neighbours:
        asking = [neighbours.submit(ask) for _ in range(2)]
        try:
            yield
        finally:
            stop.set()
        assert all(one.result() for one in asking)
    assert server.restarts() == 0
    assert answer(server) == right
    (after,) = server.workers()
    assert after.pid == worker.pid
    assert after.memory_info().rss - before < GROWTH_BYTES


def sent(port: int, content: bytes, seconds: float = 20.0) -> bytes:
    """All that comes back until nothing does."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while packet := connection.recv(1 << 16):
                received += packet
                connection.settimeout(0.3)
    return received


def statuses(received: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


def test_no_file_of_the_folder_harms_anybody(server: Running, right: object) -> None:
    assert len(FILES) > 50
    found: dict[str, list[int]] = {}
    with unharmed(server, right, 0.01), ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda file: sent(server.port, file.read_bytes(), 3.0), FILES)
        for file, received in zip(FILES, answers, strict=True):
            found[file.stem] = statuses(received)
            assert b"Traceback" not in received, file.stem
    assert not {name: codes for name, codes in found.items() if any(one >= 500 for one in codes)}
    # One question, one answer: what stands in a body or behind it is none.
    pipelined = {name for name in found if name.startswith("pipelined_")}
    several = {name for name, codes in found.items() if len(codes) > 1}
    assert several <= {"smuggled_in_the_body", *pipelined}
    assert [found[name] for name in sorted(pipelined)] == [[200, 200], [200, 404]]
    # Far rows are answered, or are an error of their own.
    assert {*found["far_rows"], *found["far_value_among_near"]} <= {200, 400}
    # And what is refused is refused at once, or when its body is overdue.
    silent = {name for name, codes in found.items() if not codes}
    assert silent <= {"only_line_ends", "http_2_preface_then_noise"}
    assert "Traceback" not in server.printed


def test_bodies_that_are_too_long_are_not_kept(server: Running, right: object) -> None:
    """24 at once of 31 MB: a model of two numbers a row takes 128 KB."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {31 << 20}\r\n\r\n".encode()
    body = b" " * (31 << 20)
    with unharmed(server, right, 0.01), ThreadPoolExecutor(24) as clients:
        received = list(clients.map(lambda _: sent(server.port, head + body, 60.0), range(24)))
    # On a slow machine their time is over before they are whole.
    assert {tuple(statuses(one)) for one in received} <= {(413,), (408,)}
    assert all(b"at most 1024 rows" in one or b"did not come" in one for one in received)


def test_who_sends_slowly_keeps_nobody_waiting(server: Running, right: object) -> None:
    """Slowloris: half a header, half a body, a byte at a time; 300 at once."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\n".encode()
    with unharmed(server, right, 0.005), contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
            for _ in range(300)
        ]
        for i, one in enumerate(slow):
            one.sendall(head + (b"Content-Length: 500\r\n\r\n{" if i % 2 else b"X-A: "))
        for _ in range(10):
            for one in slow:
                with contextlib.suppress(ConnectionError):
                    one.sendall(b" ")
            time.sleep(0.05)
        # A body that is overdue is told so; a header has granian's 30 seconds.
        assert all(one.recv(64).startswith(b"HTTP/1.1 408") for one in slow[1::2])


def test_ten_thousand_that_say_nothing_are_borne(server: Running, right: object) -> None:
    (worker,) = server.workers()
    most = min(psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[0], IDLE + 500) - 500
    with unharmed(server, right, 0.01), contextlib.ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
        until(lambda: worker.num_fds() > most)
        assert server.ask("small", ROW)[0] == 200
    until(lambda: worker.num_fds() < 200)


def test_requests_in_one_write_are_answered_in_order_whatever_is_among_them(
    server: Running, right: object
) -> None:
    good = json.dumps(ROW).encode()
    lines = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"

    def asked(i: int, body: bytes) -> bytes:
        return f"{lines}X-Request-ID: n{i}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    inner = asked(99, good)  # a request within a body is a body
    bodies = [good, b'{"inputs": 3}', inner, good, b"", good]
    with unharmed(server, right, 0.01):
        received = sent(server.port, b"".join(asked(i, body) for i, body in enumerate(bodies)))
    assert statuses(received) == [200, 400, 400, 200, 400, 200]
    assert re.findall(rb"x-request-id: (n[0-9]+)", received) == [b"n%d" % i for i in range(6)]


def test_clients_that_leave_in_the_middle_leave_nothing(server: Running, right: object) -> None:
    (worker,) = server.workers()
    body = json.dumps(ROW).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    before = worker.num_fds()
    with unharmed(server, right, 0.005):
        for i in range(500):
            with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
                connection.sendall((head + body)[: 20 + i % (len(head) + len(body) - 19)])
                if i % 2:  # a reset in place of an end
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: worker.num_fds() <= before + 2)
    assert "Traceback" not in server.printed
