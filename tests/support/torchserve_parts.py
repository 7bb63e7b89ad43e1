"""The connection between TorchServe's frontend and its worker, and messages on it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What the frontend writes to and what the worker reads from."""
    frontend, worker = socket.socketpair()
    with frontend, worker:
        yield frontend, worker


JSON_TYPE = b"application/json"


def field(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


def inference_message(*bodies: bytes) -> bytes:
    """A batch as TorchServe's frontend encodes it, one header and one body a request."""
    end = struct.pack("!i", -1)
    requests = (
        field(b"id%d" % i)
        + (field(b"content-type") + field(b"application/json") + end)
        + (field(b"body") + field(b"application/octet-stream") + field(body) + end)
        for i, body in enumerate(bodies)
    )
    return b"I" + b"".join(requests) + end
