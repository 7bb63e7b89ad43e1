"""What hurts in TorchServe 0.12.0's worker and can be mended from inside it.

Upstream is archived at this version, so the patches are for exactly it and no other.
"""

from __future__ import annotations

import logging
import socket
import sys

PATCHED_VERSION = "0.12.0"
BUFFER_BYTES = 1 << 18

logger = logging.getLogger(__name__)


def apply() -> None:
    """Mend the worker this is called in; leaves any other version alone."""
    import ts
    from ts.protocol import otf_message_handler

    if ts.__version__.strip() != PATCHED_VERSION:
        logger.warning(
            "TorchServe %s is not %s: its worker is left as it is", ts.__version__, PATCHED_VERSION
        )
        return
    otf_message_handler._retrieve_buffer = BufferedReader().read


class BufferedReader:
    """Reads the frontend's messages with one ``recv`` where the worker makes some fifty."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def read(self, connection: socket.socket, length: int) -> bytearray:
        """Exactly ``length`` bytes; ends the process when the frontend is gone, as the original."""
        end = self._start + length
        if end > len(self._buffer):
            del self._buffer[: self._start]
            self._start, end = 0, length
            while len(self._buffer) < length:
                packet = connection.recv(max(BUFFER_BYTES, length - len(self._buffer)))
                if not packet:
                    sys.exit(0)
                self._buffer += packet
        data = self._buffer[self._start : end]
        self._start = end
        return data
