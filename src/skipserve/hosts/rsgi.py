"""The application behind granian's own interface, RSGI 1.6."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from skipserve.hosts.application import Application
from skipserve.hosts.routes import Infer
from skipserve.protocols.messages import MAX_BODY_BYTES, Headers, Reply


class Rsgi:
    """What granian calls.

    Args:
        make: Opens the models; called in the event loop before anything is accepted.
        close: Called when the process shall end, its requests answered.
        retired: Whether each reply shall be the last of its connection. HTTP/2 says so itself.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[Application]],
        close: Callable[[], None],
        retired: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make = make
        self._close = close
        self._retired = retired

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
        infer = application.infer(method, scope.path)
        if infer is None:
            reply = application.answer(method, scope.path, headers)
        else:
            reply = await _inferred(application, infer, headers, protocol)
        if self._retired() and scope.http_version.startswith("1"):
            reply.headers["connection"] = "close"
        if method == "HEAD" or not reply.body:
            reply.headers["content-length"] = str(len(reply.body))
            protocol.response_empty(reply.status, list(reply.headers.items()))
        else:
            protocol.response_bytes(reply.status, list(reply.headers.items()), reply.body)


async def _inferred(
    application: Application, infer: Infer, headers: Headers, protocol: Any
) -> Reply:
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) <= MAX_BODY_BYTES:
        return await application.ask(infer, headers, await protocol())
    parts, total = [], 0
    async for part in protocol:
        total += len(part)
        if total > MAX_BODY_BYTES:
            return application.too_long(infer, headers)
        parts.append(part)
    return await application.ask(infer, headers, b"".join(parts))
