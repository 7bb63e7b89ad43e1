"""The ASGI application without a server, whose replies those of hosts are compared with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
from transcript import Ask, Told, told

from skipserve.hosts.asgi import Asgi, application
from skipserve.telemetry.series import INFO


@contextlib.asynccontextmanager
async def lived(app: Asgi) -> AsyncIterator[list[dict[str, Any]]]:
    """An application between startup and shutdown, and what it said of them."""
    INFO.clear()  # other tests in this process have opened models of these names on other files
    said: list[dict[str, Any]] = []
    stop, spoke = asyncio.Event(), asyncio.Event()
    begun = False

    async def receive() -> dict[str, Any]:
        nonlocal begun
        if begun:
            await stop.wait()
            return {"type": "lifespan.shutdown"}
        begun = True
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)
        spoke.set()

    task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    await spoke.wait()
    try:
        yield said
    finally:
        stop.set()
        await task


async def asked_here(app: Asgi, asks: Iterable[Ask]) -> list[Told]:
    async with lived(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://small") as client:
            client.headers.clear()
            answers = []
            for ask in asks:
                request = client.build_request(
                    ask.method, ask.path, content=ask.body, headers=ask.headers
                )
                reply = await client.send(request, stream=True)
                raw = b"".join([part async for part in reply.aiter_raw()])
                answers.append(told(reply.status_code, reply.headers.multi_items(), raw))
            return answers


def in_process(
    archives: Sequence[Path], asks: Iterable[Ask], origins: Sequence[str] = ()
) -> list[Told]:
    """What the application answers."""
    return asyncio.run(asked_here(application(archives, origins), asks))
