"""The worker's own loop: what it gathers, what it answers, and what ends it."""

from __future__ import annotations

import faulthandler
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ts.service import Service

from skipserve.serving.pipeline import Pipeline, answer
from skipserve.serving.torchserve_patches import BufferedReader

END = struct.pack("!i", -1)


def field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def message(*names: str) -> bytes:
    """An inference message of the frontend with a request of each name."""
    requests = (
        field(name.encode()) + END + field(b"body") + field(b"") + field(name.encode()) + END
        for name in names
    )
    return b"I" + b"".join(requests) + END


def names(requests: list[dict[str, Any]]) -> list[str]:
    return [request["requestId"].decode() for request in requests]


def replies(content: bytes) -> dict[str, tuple[int, bytes]]:
    """Status and body by name, of messages as the frontend reads them."""
    found: dict[str, tuple[int, bytes]] = {}
    place = 0

    def number() -> int:
        nonlocal place
        place += 4
        return int(struct.unpack_from("!i", content, place - 4)[0])

    def text(length: int) -> bytes:
        nonlocal place
        place += length
        return content[place - length : place]

    while place < len(content):
        assert number() == 200  # any other is the frontend's answer to all that are on their way
        text(number())
        while (length := number()) >= 0:
            name = text(length).decode()
            text(number())  # content type
            status = number()
            text(number())  # reason
            for _ in range(number()):
                text(number()), text(number())
            assert name not in found
            found[name] = status, text(number())
    return found


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What the frontend writes to and what the worker reads from."""
    frontend, worker = socket.socketpair()
    with frontend, worker:
        yield frontend, worker


def test_a_batch_is_what_has_come_in_and_no_more_than_asked(ends):
    frontend, worker = ends
    reader = BufferedReader()
    frontend.sendall(b"".join(message(f"r{i}") for i in range(5)))
    assert names(reader.gather(worker, 3, 0.0)) == ["r0", "r1", "r2"]
    assert reader.message_waits()
    assert names(reader.gather(worker, 3, 0.0)) == ["r3", "r4"]
    assert not reader.message_waits()
    frontend.sendall(message("r5", "r6"))
    assert names(reader.gather(worker, 1, 0.0)) == ["r5", "r6"]


def test_a_batch_waits_as_long_as_it_may(ends):
    frontend, worker = ends
    reader = BufferedReader()
    frontend.sendall(message("first"))
    later = threading.Timer(0.05, frontend.sendall, (message("later"),))
    later.start()
    assert names(reader.gather(worker, 2, 30.0)) == ["first", "later"]
    frontend.sendall(message("alone"))
    assert names(reader.gather(worker, 2, 0.01)) == ["alone"]


@given(places=st.lists(st.integers(0, 200), max_size=20), most=st.integers(1, 6))
def test_requests_are_whole_and_in_order_wherever_their_messages_were_cut(places, most):
    content = b"".join(message(f"r{i}") for i in range(4))
    bounds = [0, *sorted({place % len(content) for place in places}), len(content)]
    frontend, worker = socket.socketpair()
    with frontend, worker:

        def send() -> None:
            for start, end in pairwise(bounds):
                frontend.sendall(content[start:end])

        sender = threading.Thread(target=send)
        sender.start()
        reader, found = BufferedReader(), []
        while len(found) < 4:
            batch = names(reader.gather(worker, most, 0.0))
            assert 1 <= len(batch) <= most
            found += batch
        sender.join()
    assert found == ["r0", "r1", "r2", "r3"]


def test_a_message_of_another_kind_is_an_error_that_says_so(ends):
    frontend, worker = ends
    frontend.sendall(b"X")
    with pytest.raises(ValueError, match="b'X' is not b'I'"):
        BufferedReader().gather(worker, 1, 0.0)


def service_of(handle: Callable[[list[Any], Any], list[bytes]]) -> Service:
    return Service("small", "nowhere", None, handle, None, 1)


def requests_of(ends, *names: str) -> list[dict[str, Any]]:
    frontend, worker = ends
    frontend.sendall(message(*names))
    return BufferedReader().gather(worker, 1, 0.0)


def shout(data: list[Any], context: Any) -> list[bytes]:
    if b"refused" in [bytes(item["body"]) for item in data]:
        context.set_response_status(400, "wrong", len(data) - 1)
    return [bytes(item["body"]).upper() for item in data]


def test_every_request_gets_its_own_reply(ends):
    reply = answer(service_of(shout), requests_of(ends, "one", "two", "refused"))
    assert replies(reply) == {
        "one": (200, b"ONE"),
        "two": (200, b"TWO"),
        "refused": (400, b"REFUSED"),
    }


def test_nothing_of_a_reply_is_left_to_the_next(ends):
    service = service_of(shout)
    answer(service, requests_of(ends, "one", "refused"))
    assert replies(answer(service, requests_of(ends, "two", "three"))) == {
        "two": (200, b"TWO"),
        "three": (200, b"THREE"),
    }


@pytest.mark.parametrize("problem", [ValueError("no"), MemoryError()])
def test_a_handler_that_raises_costs_its_batch_and_no_other(ends, caplog, problem):
    def fail(data: list[Any], context: Any) -> list[bytes]:
        raise problem

    assert_failed(answer(service_of(fail), requests_of(ends, "one", "two")), caplog)


@pytest.mark.parametrize("wrong", [None, [b"one"], [b"one", {"two": 2}], b"12"])
def test_a_handler_that_replies_with_something_else_does_too(ends, caplog, wrong):
    assert_failed(answer(service_of(lambda *_: wrong), requests_of(ends, "one", "two")), caplog)


def assert_failed(reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert b"application/json" in reply
    found = replies(reply)
    assert {status for status, _ in found.values()} == {500}
    assert b'"internal"' in found["one"][1]
    assert "a batch of 2 requests failed" in caplog.text


def test_it_answers_until_the_frontend_is_gone_and_then_does_what_was_put_off(ends):
    frontend, worker = ends
    reader = BufferedReader()
    done: list[int] = []

    def handle(data: list[Any], context: Any) -> list[bytes]:
        reader.when_idle(lambda: done.append(len(data)))
        return shout(data, context)

    service = service_of(handle)
    service.set_cl_socket(worker)
    frontend.sendall(b"".join(map(message, ("one", "two", "three", "four"))))
    frontend.shutdown(socket.SHUT_WR)
    try:
        with pytest.raises(SystemExit) as ended:
            Pipeline(reader, 2, 0.0, 60.0).run(service)
    finally:
        faulthandler.unregister(signal.SIGALRM)
    assert ended.value.code == 0
    assert done == [2, 2]
    assert set(replies(frontend.recv(1 << 16))) == {"one", "two", "three", "four"}
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


HANGS = """
    import socket
    from ts.service import Service
    from skipserve.serving.pipeline import Pipeline
    from skipserve.serving.torchserve_patches import BufferedReader

    def hang(data, context):  # without giving up the interpreter's lock
        sum(range(1 << 62))

    frontend, worker = socket.socketpair()
    service = Service("small", "nowhere", None, hang, None, 1)
    service.set_cl_socket(worker)
    frontend.sendall({message!r})
    Pipeline(BufferedReader(), 1, 0.0, 0.5).run(service)
"""


def test_a_batch_that_takes_too_long_ends_the_process_and_says_where_it_was():
    code = textwrap.dedent(HANGS).format(message=message("one"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == -signal.SIGALRM
    assert "in hang" in done.stderr
