"""The metrics port: ``/metrics``, ``/ready``, ``/live``, and a page at ``/``."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Protocol
from urllib.parse import urlsplit

from skipserve.address import family_of
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.series import COUNTED_S

PLAIN = "text/plain; charset=utf-8"
PAGE = files("skipserve.telemetry").joinpath("page.html").read_bytes()
# Timeout of a request line, in seconds.
IDLE_S = 30.0

logger = logging.getLogger(__name__)


class Flag(Protocol):
    """A flag."""

    def set(self) -> None:
        """Set it."""

    def clear(self) -> None:
        """Clear it."""

    def is_set(self) -> bool:
        """Whether it is set."""


class Probes:
    """Serves metrics and probes from a thread until closed.

    Args:
        address: IP address and port to bind.
        metrics: What ``/metrics`` shows.
        ready: Set once every model is warm, cleared while stopping.
        live: Whether the server process is there.
    """

    def __init__(
        self, address: tuple[str, int], metrics: Exposition, ready: Flag, live: Callable[[], bool]
    ) -> None:
        self.ready = ready

        class Handler(BaseHTTPRequestHandler):
            timeout = IDLE_S

            def do_GET(self) -> None:
                path = urlsplit(self.path).path.rstrip("/")
                if path == "/metrics":
                    self._metrics()
                elif not path:
                    self._send(200, PAGE, "text/html; charset=utf-8")
                elif path == "/ready":
                    self._probe(ready.is_set(), "ready", "not ready")
                elif path == "/live":
                    self._probe(live(), "live", "not live")
                else:
                    self._send(404, b"not found; try /, /metrics, /ready or /live\n", PLAIN)

            def do_HEAD(self) -> None:
                self.do_GET()

            def _metrics(self) -> None:
                # So that it shows every request that was answered before it was asked for.
                time.sleep(2 * COUNTED_S)
                try:
                    body, kind = metrics.text(self.headers.get("Accept", ""))
                except OSError as error:  # no number is better than a wrong one
                    self._send(503, f"{error}\n".encode(), PLAIN)
                else:
                    self._send(200, body, kind)

            def _probe(self, good: bool, yes: str, no: str) -> None:
                self._send(200 if good else 503, f"{yes if good else no}\n".encode(), PLAIN)

            def _send(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """One line per scrape would bury everything else."""

        self._server = _Server(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = family_of(address[0])
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind ``::`` to every address, IPv4 included, as Java does."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        # The library prints a traceback; a client that hangs up is no error of ours.
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logger.exception("a request to the metrics port failed")
