"""A reload, asked of a running service by this machine's user: by a socket in its directory.

The directory can be entered by its own user alone.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from skipserve.errors import LaunchError, SkipserveError
from skipserve.hosts.directory import require

SOCKET = "control.sock"
RELOAD = b"reload\n"
LONGEST = 1 << 16

logger = logging.getLogger(__name__)


class ReloadOutcome(msgspec.Struct, frozen=True):
    """What became of a request.

    Attributes:
        line: In one line.
        done: Whether it was done.
    """

    line: str
    done: bool


class Reloads:
    """Reloads when asked, one time after the other, in a thread that stays until :meth:`close`.

    Args:
        directory: Of the instance.
        reload: Does it, and says what was done; its errors are the answer.
    """

    def __init__(self, directory: Path, reload: Callable[[], str]) -> None:
        self._reload = reload
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(directory / SOCKET))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more; waits for the one that is being done."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            # Who asked need not wait for the answer, which is in the log, too.
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1.0)
                if connection.recv(LONGEST) == RELOAD:
                    connection.sendall(msgspec.json.encode(self._outcome()))

    def _outcome(self) -> ReloadOutcome:
        try:
            line = self._reload()
        except Exception as error:
            if not isinstance(error, SkipserveError):
                logger.exception("the reload failed")
            line = " ".join(str(error).split()) or repr(error)
            logger.error("not reloaded, serving as before: %s", line)
            return ReloadOutcome(line, False)
        logger.info("%s", line)
        return ReloadOutcome(line, True)


def ask_to_reload(metrics_port: int) -> str:
    """Have the service on a port reload, and wait for it; what was done, in one line.

    Raises:
        LaunchError: If there is no such service, or it goes on with what it had open.
    """
    directory = require(metrics_port)
    try:
        with _asked(directory) as connection:
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(LONGEST), b""))
        outcome = msgspec.json.decode(answer, type=ReloadOutcome)
    except (OSError, msgspec.MsgspecError):
        raise LaunchError(
            f"the service on metrics port {metrics_port} did not answer; it is just starting or "
            "ending, see its log"
        ) from None
    if not outcome.done:
        raise LaunchError(f"not reloaded, serving as before: {outcome.line}")
    return outcome.line


def reload_soon(directory: Path) -> None:
    """Have the service in a directory reload; what becomes of it is in its log."""
    try:
        _asked(directory).close()
    except OSError as error:  # somebody cleaned the folder
        logger.error("not reloaded: %s: %s", directory / SOCKET, error.strerror)


def _asked(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(directory / SOCKET))
    connection.sendall(RELOAD)
    return connection
