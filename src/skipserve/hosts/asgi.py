"""The application as an ASGI 3 application, for uvicorn, hypercorn and Ray Serve.

SKIPSERVE_MODEL_STORE=model_store uvicorn --factory skipserve.hosts.asgi:application
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from skipserve.artifacts.versions import archives_in
from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.access import AccessControl, check_limit
from skipserve.hosts.application import Application
from skipserve.hosts.client import BODY_S, Client
from skipserve.hosts.config import KEYS_VARIABLE
from skipserve.hosts.keys import read_keys
from skipserve.hosts.routes import Infer
from skipserve.hosts.standalone import Standalone
from skipserve.protocols.messages import MAX_BODY_BYTES, Reply
from skipserve.protocols.request_id import HEADER as REQUEST_ID

STORE_VARIABLE = "SKIPSERVE_MODEL_STORE"

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Asgi:
    """The ASGI 3 application.

    Args:
        make: Opens the models; called in the event loop before anything is accepted.
        close: Called when the server stops, its requests answered.
        names: Whether replies get their ``X-Request-ID`` here, and not by the server.
    """

    def __init__(
        self, make: Callable[[], Application], close: Callable[[], None], names: bool = True
    ) -> None:
        self._make = make
        self._close = close
        self._names = names
        self._application: Application | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:  # a web socket that is closed before it is accepted gets a 403
            await send({"type": f"{scope['type']}.close"})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._application = self._make()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        application = self._application
        if application is None:
            raise LaunchError(
                "no model is open: the server did not tell this application that it starts; "
                "have it do so (uvicorn: --lifespan on), or the application that mounts this one"
            )
        method, path, headers = scope["method"], _path(scope), _headers(scope["headers"])
        begun = application.begin(method, path, headers)
        if isinstance(begun, Reply):
            reply = begun
        else:
            found = await _inferred(application, begun, headers, receive)
            if found is None:
                return
            reply = found
        await self._send(reply, method, send)

    async def _send(self, reply: Reply, method: str, send: Send) -> None:
        if not self._names:
            reply.headers.pop(REQUEST_ID, None)
        if reply.status != 204:  # no content length for an empty body
            reply.headers["content-length"] = str(len(reply.body))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        body = b"" if method == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})


def _path(scope: Message) -> str:
    # For an application mounted below a prefix, ASGI 3 gives both paths.
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] or "/" if root and path.startswith(root) else path


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        # The first of several, as granian gives it.
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


async def _inferred(
    application: Application, infer: Infer, headers: Mapping[str, str], receive: Receive
) -> Reply | None:
    """The reply; ``None`` if the client disconnected before."""

    async def gone() -> None:
        while (await receive())["type"] == "http.request":
            pass

    client = Client(gone)
    try:
        body, stayed = await _body(receive, infer.model.most_bytes)
        client.has_sent()
        if not stayed:
            return None
        if body is None:
            return application.too_long(infer, headers)
        return await application.ask(infer, headers, body)
    except asyncio.CancelledError:
        if client.is_slow:
            return application.too_slow(infer, headers, BODY_S)
        if client.is_gone:
            return None
        raise
    finally:
        client.close()


async def _body(receive: Receive, most: int) -> tuple[bytes | None, bool]:
    """The body, ``None`` if it is longer than ``most`` bytes; and whether the client stayed."""
    parts, total, more = [], 0, True
    # A client whose body is not read may not read the reply.
    while more and total <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None, False
        part = message.get("body", b"")
        total += len(part)
        if total <= most:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)
    if total > most:
        return None, True
    return parts[0] if len(parts) == 1 else b"".join(parts), True


def application(
    archives: Sequence[Path] | None = None,
    origins: Sequence[str] = (),
    keys: Path | None = None,
    rate_limit: float | None = None,
) -> Asgi:
    """An ASGI application that opens archives when its server starts.

    Each of the server's processes has models, metrics and an alarm of its own.

    Args:
        archives: ``.mar`` files; by default all in the folder that ``SKIPSERVE_MODEL_STORE`` names.
        origins: Web pages that may ask from a browser.
        keys: File of the keys that clients must show; by default the one that ``SKIPSERVE_KEYS``
            names, if it names one.
        rate_limit: Requests a second that a key may make, of each process.

    Raises:
        ConfigError: If there is no archive, the file has no keys, or a limit has no file.
    """
    if archives is None:
        store = os.environ.get(STORE_VARIABLE)
        if not store:
            raise ConfigError(
                f"{STORE_VARIABLE} is not set; let it name the folder of the .mar files to serve"
            )
        archives = archives_in(Path(store))
    standalone = Standalone(archives)
    if keys is None and (named := os.environ.get(KEYS_VARIABLE)):
        keys = Path(named)
    check_limit(rate_limit, keys, "rate_limit", f"keys, or with {KEYS_VARIABLE}")
    if keys is not None:
        read_keys(keys)
    access = None if keys is None else AccessControl(keys, rate_limit)

    def make() -> Application:
        return Application(standalone.open(), lambda: not standalone.hanging(), origins, access)

    return Asgi(make, standalone.close)
