"""Listening sockets: the launcher holds them, the workers of granian accept from them.

Each worker has its own, all on one port, so that the kernel deals the connections out. A worker
that ends or is replaced leaves its socket, with the queued connections, to the next.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from skipserve.address import cannot_listen, family_of

# As many as granian asks for.
BACKLOG = 1024
# Tells a worker which of them is its own.
DESCRIPTOR_VARIABLE = "SKIPSERVE_LISTENER"


class Listeners:
    """Sockets on one port that do not listen before :func:`listen`.

    Args:
        ip: To bind, without brackets.
        port: To bind.
        count: How many.

    Raises:
        LaunchError: If the port is taken.
    """

    def __init__(self, ip: str, port: int, count: int) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                self._sockets.append(_bound(ip, port, shared=count > 1))
        except OSError as error:
            self.close()
            raise cannot_listen(ip, port, "SKIPSERVE_PORT", error) from None

    @property
    def descriptors(self) -> Sequence[int]:
        """One a worker."""
        return [one.fileno() for one in self._sockets]

    def close(self) -> None:
        """Close the sockets of the launcher."""
        for one in self._sockets:
            one.close()


def listen(descriptor: int) -> None:
    """Listen on an inherited socket; connections queue until they are accepted."""
    with socket.socket(fileno=os.dup(descriptor)) as one:
        one.listen(BACKLOG)


def accept_no_more(descriptor: int) -> None:
    """Stop accepting from an inherited socket; other processes still do.

    granian accepts until it ends, and drops a connection then that it has accepted but not yet
    read from. So the socket behind its file descriptors is exchanged for one that nobody knows.
    """
    own = os.fstat(descriptor).st_ino
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        deaf.setblocking(False)
        for entry in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):
                if os.fstat(int(entry.name)).st_ino == own:
                    os.dup2(deaf.fileno(), int(entry.name), inheritable=False)


def _bound(ip: str, port: int, shared: bool) -> socket.socket:
    made = socket.socket(family_of(ip))
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setblocking(False)
        made.bind((ip, port))
    except OSError:
        made.close()
        raise
    return made
