"""Clients that ask all the time, and what became of each of their requests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from running import CLOSED, JSON, Running, until

PATH = "/predictions/small"
ROW = json.dumps({"inputs": [[0.5, -0.25]]}).encode()
CLIENTS = 16


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        sent_s: When it had been sent.
        status: Of its reply; :data:`CLOSED` if its connection ended without one.
        retry_after: When its client was told to come back; empty if it was not.
        took_s: Seconds until its reply was there.
    """

    sent_s: float
    status: int
    retry_after: str
    took_s: float


class Load:
    """Clients in a closed loop, each on a connection that it keeps; use as a context manager.

    Args:
        port: Of whoever is asked.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._asking = [self._pool.submit(self._ask) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._asking:
            one.result()
        self._pool.shutdown()

    @property
    def statuses(self) -> set[int]:
        """All that were seen."""
        return {one.status for one in self.outcomes}

    def answered(self, least: int) -> None:
        """Wait for so many answers more."""
        before = len(self.outcomes)
        until(lambda: len(self.outcomes) >= before + least, seconds=600)

    def _ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        with contextlib.closing(connection):
            while not self._stop.is_set():
                sent_s, status, retry_after = time.monotonic(), CLOSED, ""
                try:
                    connection.request("POST", PATH, ROW, JSON)
                    sent_s = time.monotonic()
                    reply = connection.getresponse()
                    reply.read()
                    status, retry_after = reply.status, reply.headers.get("Retry-After", "")
                except (HTTPException, ConnectionError):
                    connection.close()
                took_s = time.monotonic() - sent_s
                self.outcomes.append(Outcome(sent_s, status, retry_after, took_s))
                if status != 200:
                    time.sleep(0.01)


class Unbroken:
    """Clients that ask until told to stop, and what became of it."""

    def __init__(self, server: Running, keep: bool) -> None:
        self._server = server
        self._keep = keep
        self._lock = threading.Lock()
        self.statuses: dict[int, int] = {}
        self.last = 0

    def run(self, stop: threading.Event) -> None:
        """One client, which takes a refusal or a connection that ends for a failure."""
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        with contextlib.closing(connection):
            while not stop.is_set():
                # Connects by itself where the last reply said that it was the last.
                connection.request("POST", "/predictions/small", ROW, JSON)
                reply = connection.getresponse()
                reply.read()
                with self._lock:
                    self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
                    self.last += reply.getheader("connection") == "close"
                if not self._keep:
                    connection.close()
                stop.wait(0.005)  # each new connection takes a port for a minute

    @property
    def answered(self) -> int:
        return self.statuses.get(200, 0)
