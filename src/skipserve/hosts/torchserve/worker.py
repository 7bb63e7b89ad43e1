"""What hurts in TorchServe 0.12.0's worker and can be mended from inside it.

Upstream is archived at this version, so the patches are for exactly it and no other.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Protocol

from skipserve.artifacts.serving import ServingConfig
from skipserve.hosts.pulse import NoPulse, Pulse, pulse_of
from skipserve.schema import parse
from skipserve.service.idle import Idle, Immediate

PATCHED_VERSION = "0.12.0"
# Some eighty small requests.
BUFFER_BYTES = 1 << 15
_LENGTH = struct.Struct("!i")

logger = logging.getLogger(__name__)


def apply() -> Worker:
    """Mend the worker this is called in; leaves any other version alone.

    Returns:
        What puts work off until the worker is idle.
    """
    import ts
    from ts.protocol import otf_message_handler

    if ts.__version__.strip() != PATCHED_VERSION:
        logger.warning(
            "TorchServe %s is not %s: its worker is left as it is", ts.__version__, PATCHED_VERSION
        )
        return UnpatchedWorker()
    reader = BufferedReader()
    otf_message_handler._retrieve_buffer = reader.read
    otf_message_handler._retrieve_inference_msg = reader.requests
    return reader


class Worker(Idle, Protocol):
    """TorchServe's worker, as the handler sees it."""

    def open_pulse(self, model: str) -> None:
        """Tell the launcher, from now on, that this worker serves a model and comes round."""


class UnpatchedWorker(Immediate):
    """A worker that was left as it is: whether its loop comes round nobody knows."""

    def open_pulse(self, model: str) -> None:
        """Tell that it is there."""
        pulse_of(model, beats=False)


def service_settings(context: Any) -> ServingConfig:
    """Our part of the archive's ``model-config.yaml``, which TorchServe has read.

    Raises:
        ConfigError: If there is something in it that we do not know.
    """
    values = (context.model_yaml_config or {}).get("skipserve", {})
    return parse(ServingConfig, values, "model-config.yaml")


class BufferedReader:
    """Reads the frontend's messages with one ``recv`` where the worker makes some fifty.

    While it would only wait for the next message it does the work that was put off, so that
    metrics cost no client any time: the frontend takes longer than they do to pass on a reply.
    """

    def __init__(self) -> None:
        self._idle_work: list[Callable[[], None]] = []
        self._buffer = bytearray()
        self._start = 0
        self._connection: socket.socket | None = None
        self._pulse: Pulse = NoPulse()

    def read(self, connection: socket.socket, length: int) -> bytearray:
        """Exactly ``length`` bytes; ends the process when the frontend is gone, as the original."""
        self._connection = connection
        end = self._start + length
        if end > len(self._buffer):
            del self._buffer[: self._start]
            self._start, end = 0, length
            while len(self._buffer) < length:
                self._work()
                self._pulse.wait(connection)
                packet = connection.recv(max(BUFFER_BYTES, length - len(self._buffer)))
                if not packet:
                    sys.exit(0)
                self._buffer += packet
        data = self._buffer[self._start : end]
        self._start = end
        return data

    def requests(self, connection: socket.socket) -> list[dict[str, Any]]:
        """A batch as the original reads it, in half its time; bodies stay bytes.

        A list of requests, each an id, a list of headers and a list of parameters; every string
        has its length before it, and -1 ends a list.
        """
        field = self._field
        requests = []
        while (request_id := field(connection)) is not None:
            headers = []
            while (name := field(connection)) is not None:
                headers.append({"name": name, "value": field(connection)})
            parameters = []
            while (name := field(connection)) is not None:
                kind = field(connection) or b""
                parameters.append(
                    {
                        "name": name.decode(),
                        "contentType": kind.decode(),
                        "value": field(connection),
                    }
                )
            requests.append({"requestId": request_id, "headers": headers, "parameters": parameters})
        return requests

    def _field(self, connection: socket.socket) -> bytearray | None:
        start = self._start
        try:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
        except struct.error:  # not all of it is here yet
            (length,) = _LENGTH.unpack(self.read(connection, 4))
            return self.read(connection, length) if length >= 0 else None
        start += 4
        if length < 0:
            self._start = start
            return None
        end = start + length
        if end > len(self._buffer):
            self._start = start
            return self.read(connection, length)
        self._start = end
        return self._buffer[start:end]

    def open_pulse(self, model: str) -> None:
        """Tell the launcher that this worker is there, and each time that it comes to read."""
        self._pulse = pulse_of(model)

    def when_idle(self, work: Callable[[], None]) -> None:
        """Do ``work`` before the next wait; an error in it is logged and ends nothing."""
        self._idle_work.append(work)

    def _work(self) -> None:
        """Do what was put off."""
        while self._idle_work:
            try:
                self._idle_work.pop(0)()
            except Exception:
                logger.exception("work that was put off failed")
