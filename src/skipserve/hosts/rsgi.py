"""The application behind RSGI 1.6, the interface of granian."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from skipserve.hosts.application import Application
from skipserve.hosts.client import BODY_S, Client
from skipserve.hosts.routes import Infer
from skipserve.protocols.messages import MAX_BODY_BYTES, Headers, Reply
from skipserve.service.arrivals import Arrivals

# Status for a closed connection; granian requires one.
NOBODY = 499


class Rsgi:
    """The RSGI application.

    Args:
        make: Opens the models; called in the event loop before anything is accepted.
        close: Called when the process shall end, its requests answered.
        retired: Whether each reply shall be the last of its connection. HTTP/2 says so itself.
        body_s: Seconds that a request's body may take.
        arrivals: Counts requests whose bodies are not here.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[Application]],
        close: Callable[[], None],
        retired: Callable[[], bool] = lambda: False,
        body_s: float = BODY_S,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._make = make
        self._close = close
        self._retired = retired
        self._body_s = body_s
        self._arrivals = arrivals or Arrivals()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        async def make() -> None:
            self._application = await self._make()

        loop.run_until_complete(make())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        application, method, headers = self._application, scope.method, scope.headers
        begun = application.begin(method, scope.path, headers)
        if isinstance(begun, Reply):
            reply = begun
        else:
            reply = await self._inferred(begun, headers, protocol)
        if self._retired() and scope.http_version.startswith("1"):
            reply.headers["connection"] = "close"
        if method == "HEAD" or not reply.body:
            reply.headers["content-length"] = str(len(reply.body))
            protocol.response_empty(reply.status, list(reply.headers.items()))
        else:
            protocol.response_bytes(reply.status, list(reply.headers.items()), reply.body)

    async def _inferred(self, infer: Infer, headers: Headers, protocol: Any) -> Reply:
        application, client = self._application, Client(protocol.client_disconnect, self._body_s)
        try:
            self._arrivals.begin()
            try:
                body = await _body(headers, protocol, infer.model.most_bytes)
            finally:
                self._arrivals.end()
            client.has_sent()
            if body is None:
                return application.too_long(infer, headers)
            return await application.ask(infer, headers, body)
        except asyncio.CancelledError:
            if client.is_slow:
                return application.too_slow(infer, headers, self._body_s)
            if client.is_gone:
                return Reply(b"", NOBODY)
            raise
        finally:
            client.close()


async def _body(headers: Headers, protocol: Any, most: int) -> bytes | None:
    """The body; ``None`` if it is longer than ``most`` bytes."""
    length = headers.get("content-length", "")
    if length.isdigit():
        if int(length) <= most:
            body: bytes = await protocol()
            return body
        if int(length) > MAX_BODY_BYTES:
            return None
    # A client whose body is not read may not read the reply.
    parts, total = [], 0
    async for part in protocol:
        total += len(part)
        if total > MAX_BODY_BYTES:
            return None
        if total <= most:
            parts.append(part)
        else:
            parts.clear()
    return b"".join(parts) if total <= most else None
