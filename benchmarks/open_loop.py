"""Requests at the times that they are due, whether or not the last ones were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TimedReply:
    """When a request was due, and what came back.

    Attributes:
        due_s: When it was due, on a clock that never jumps.
        took_s: Seconds from then until its reply was there.
        status: Of its reply; 0 if its connection ended without one.
        retry_after: Whether it says when to come back.
    """

    due_s: float
    took_s: float
    status: int
    retry_after: bool


class Clients:
    """As many connections to a service as its requests need, each kept until the last is answered.

    Args:
        port: On this machine.
        path: Of the model.
        bodies: JSON, sent in turn.
    """

    def __init__(self, port: int, path: str, bodies: Sequence[bytes]) -> None:
        self._port = port
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        self._requests = [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies
        ]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._sent = 0

    async def closed(self, clients: int, seconds: float) -> list[TimedReply]:
        """So many clients that ask again as soon as they are answered."""
        end_s = time.monotonic() + seconds
        found: list[TimedReply] = []

        async def one() -> None:
            while (now_s := time.monotonic()) < end_s:
                found.append(await self._ask(now_s))

        await asyncio.gather(*(one() for _ in range(clients)))
        self._close()
        return found

    async def open(self, rate: float, seconds: float) -> list[TimedReply]:
        """So many requests a second, at random times."""
        pick = random.Random(0)
        begin_s = due_s = time.monotonic()
        asking = []
        while (due_s := due_s + pick.expovariate(rate)) < begin_s + seconds:
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            asking.append(asyncio.ensure_future(self._ask(due_s)))
        found = list(await asyncio.gather(*asking))
        self._close()
        return found

    def _close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _ask(self, due_s: float) -> TimedReply:
        self._sent += 1
        status, headers = 0, b""
        try:
            streams = self._idle.pop() if self._idle else None
            reader, writer = streams or await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(self._requests[self._sent % len(self._requests)])
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(headers[9:12])
            self._idle.append((reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        return TimedReply(due_s, time.monotonic() - due_s, status, b"\nretry-after:" in headers)


def quantile_ms(some: Sequence[TimedReply], share: float) -> float:
    """Milliseconds within which so large a share of them was answered; NaN of none."""
    return float(np.quantile([one.took_s for one in some], share)) * 1e3 if some else float("nan")
