"""TorchServe's worker: the reader that is put into it, with TorchServe's own parts.

A real TorchServe is started in test_serve.py.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import ts
from hypothesis import given
from hypothesis import strategies as st
from torchserve_parts import JSON_TYPE, connection, field, inference_message
from ts.protocol import otf_message_handler

from skipserve.hosts.torchserve import worker as torchserve_worker
from skipserve.hosts.torchserve.worker import BUFFER_BYTES, BufferedReader


class Trickle:
    """A connection on which each ``recv`` finds just the next piece, as a slow network gives it."""

    def __init__(self, frontend: socket.socket, worker: socket.socket, pieces: list[bytes]) -> None:
        self._frontend, self._worker, self._pieces = frontend, worker, pieces

    def recv(self, length: int) -> bytes:
        if self._pieces:
            self._frontend.sendall(self._pieces.pop(0))
        else:
            self._frontend.close()
        return self._worker.recv(length)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(content) + 1) for place in places}), len(content)]
    pieces = (content[a:b] for a, b in pairwise(bounds))
    return [piece for piece in pieces if piece]


@given(
    messages=st.lists(st.binary(max_size=40), max_size=12),
    places=st.lists(st.integers(0, 500), max_size=20),
)
def test_messages_are_whole_wherever_they_were_cut(
    messages: list[bytes], places: list[int]
) -> None:
    with connection() as (frontend, worker):
        trickle = Trickle(frontend, worker, cut(b"".join(messages), places))
        reader = BufferedReader()
        assert [reader.read(trickle, len(message)) for message in messages] == messages
        with pytest.raises(SystemExit):
            reader.read(trickle, 1)


@pytest.mark.parametrize("size", [BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5_000_000])
def test_a_message_larger_than_the_buffer_is_whole_and_so_is_the_next(size: int) -> None:
    content = np.random.default_rng(0).bytes(size)
    with connection() as (frontend, worker):
        sender = threading.Thread(target=frontend.sendall, args=(b"head" + content + b"tail",))
        sender.start()
        reader = BufferedReader()
        assert reader.read(worker, 4) == b"head"
        assert reader.read(worker, size) == content
        assert reader.read(worker, 4) == b"tail"
        sender.join()


@pytest.mark.parametrize("sent", [b"", b"half"])
def test_the_worker_ends_well_when_the_frontend_is_gone(sent: bytes) -> None:
    with connection() as (frontend, worker):
        frontend.sendall(sent)
        frontend.close()
        with pytest.raises(SystemExit) as caught:
            BufferedReader().read(worker, 8)
        assert caught.value.code == 0


def test_nothing_is_asked_of_the_socket_for_nothing() -> None:
    with connection() as (_, worker):
        worker.settimeout(0)
        assert BufferedReader().read(worker, 0) == b""


def test_what_was_read_is_the_callers_to_keep_and_change() -> None:
    with connection() as (frontend, worker):
        frontend.sendall(b"onetwo")
        reader = BufferedReader()
        one = reader.read(worker, 3)
        one[:] = b"___"
        assert reader.read(worker, 3) == b"two"
        assert one == b"___"


def test_work_that_was_put_off_is_done_before_the_next_wait_and_not_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []
    with connection() as (frontend, worker):
        frontend.sendall(b"onetwo")
        reader = BufferedReader()
        reader.read(worker, 3)
        reader.when_idle(lambda: done.append("first"))
        reader.when_idle(lambda: [][0])
        reader.when_idle(lambda: done.append("last"))
        assert reader.read(worker, 3) == b"two"
        assert done == []
        frontend.sendall(b"more")
        assert reader.read(worker, 4) == b"more"
        assert done == ["first", "last"]
        assert "IndexError" in caplog.text
        frontend.sendall(b"more")
        reader.read(worker, 4)
        assert done == ["first", "last"]


def test_the_patched_worker_reads_what_the_original_reads(
    original: Callable[..., bytearray],
) -> None:
    content = inference_message(b"", b"[[1, 2]]", bytes(range(256)) * 4)
    results = []
    for patch in (lambda: None, torchserve_worker.apply):
        patch()
        with connection() as (frontend, worker):
            frontend.sendall(content + content)
            results.append([otf_message_handler.retrieve_msg(worker) for _ in range(2)])
    assert otf_message_handler._retrieve_buffer is not original
    assert results[0] == results[1]
    assert [request["requestId"] for request in results[1][0][1]] == [b"id0", b"id1", b"id2"]


@given(places=st.lists(st.integers(0, 500), max_size=20))
def test_a_batch_is_whole_wherever_it_was_cut(places: list[int]) -> None:
    content = inference_message(b"", b"[[1, 2]]", bytes(range(64)))
    batches = []
    for pieces in ([content[1:]], cut(content[1:], places)):
        with connection() as (frontend, worker):
            batches.append(BufferedReader().requests(Trickle(frontend, worker, pieces)))
    assert batches[0] == batches[1]
    assert [request["requestId"] for request in batches[1]] == [b"id0", b"id1", b"id2"]


def test_a_body_stays_bytes_whatever_its_type(
    original: Callable[..., bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
    torchserve_worker.apply()
    content = inference_message(b"[1]").replace(
        field(b"application/octet-stream"), field(JSON_TYPE)
    )
    with connection() as (frontend, worker):
        frontend.sendall(content)
        _, (request,) = otf_message_handler.retrieve_msg(worker)
    assert request["parameters"][0]["value"] == b"[1]"


def test_another_torchserve_is_left_as_it_is(
    original: Callable[..., bytearray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ts, "__version__", "0.13.0")
    idle = torchserve_worker.apply()
    assert otf_message_handler._retrieve_buffer is original
    assert "TorchServe 0.13.0 is not 0.12.0" in caplog.text
    done: list[int] = []
    idle.when_idle(lambda: done.append(1))
    assert done == [1]
