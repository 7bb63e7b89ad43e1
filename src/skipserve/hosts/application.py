"""Every HTTP route of a service, once; rsgi.py and asgi.py put it behind what listens.

Models are known when it is made, so every path that is answered stands in one table.
"""

from __future__ import annotations

import gzip
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from skipserve.errors import InputError
from skipserve.hosts.cross_origin import CrossOrigin
from skipserve.hosts.metadata import model_metadata, server_metadata
from skipserve.hosts.models import Model
from skipserve.protocols.messages import (
    MAX_BODY_BYTES,
    Headers,
    RawRequest,
    Reply,
    error_reply,
    text_error,
)
from skipserve.protocols.request_id import request_id

# Shorter replies are not worth packing.
PACKED_BYTES = 1024


@dataclass(frozen=True)
class Infer:
    """A route that a model answers."""

    model: Model
    protocol: Literal["", "oip", "v1"]


Endpoint: TypeAlias = Infer | Callable[[], Reply]


class Application:
    """Answers requests with the models of one process.

    Args:
        models: By name.
        ready: Whether the whole service is ready.
        origins: Web pages that may ask from a browser.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        ready: Callable[[], bool] = lambda: True,
        origins: Sequence[str] = (),
    ) -> None:
        self._models = models
        self._ready = ready
        self._cross_origin = CrossOrigin(origins)
        self._routes = self._table()
        # Unlike those of any other process, and cheap.
        self._made = f"{os.getpid():x}-{os.urandom(6).hex()}-"
        self._count = itertools.count(1)

    def infer(self, method: str, path: str) -> Infer | None:
        """Who answers a request with the body that follows it; ``None``: :meth:`answer` does."""
        found = self._routes.get(path)
        endpoint = None if found is None else found.get(method)
        return endpoint if isinstance(endpoint, Infer) else None

    async def ask(self, infer: Infer, headers: Headers, body: bytes) -> Reply:
        """Answer a request to a model."""
        name = request_id(headers, "") or f"{self._made}{next(self._count):x}"
        reply = await infer.model.batcher.answer(RawRequest(body, headers, name, infer.protocol))
        return self._dressed(reply, headers)

    def answer(self, method: str, path: str, headers: Headers) -> Reply:
        """Answer a request whose body, if it has one, does not matter."""
        found = self._routes.get(path) or self._routes.get(path.rstrip("/") or "/")
        if found is None:
            return self._dressed(self._unknown(path), headers)
        if method == "OPTIONS":
            return self._cross_origin.preflight(headers, self._allowed(found))
        endpoint = found.get("GET" if method == "HEAD" else method)
        if endpoint is None or isinstance(endpoint, Infer):
            allowed = self._allowed(found)
            reply = error_reply(405, "wrong_method", f"{path} takes {allowed}, not {method}")
            reply.headers["allow"] = allowed
        else:
            reply = endpoint()
        return self._dressed(reply, headers)

    def too_long(self, infer: Infer, headers: Headers) -> Reply:
        """Refuse a body by its length."""
        error = InputError(
            "too_many_rows",
            f"the body has more than the {MAX_BODY_BYTES} bytes allowed; split the request",
        )
        refused = infer.model.batcher.refuse(RawRequest(b"", headers, "", infer.protocol), error)
        return self._dressed(refused, headers)

    def _dressed(self, reply: Reply, headers: Headers) -> Reply:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if len(body) >= PACKED_BYTES and "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            reply.headers["content-encoding"] = "gzip"
            reply.headers["vary"] = "accept-encoding"
        reply.body = body
        self._cross_origin.allow(reply, headers)
        return reply

    def _unknown(self, path: str) -> Reply:
        known = ", ".join(self._models)
        message = f"nothing is at {path}; this service has the models {known}, see /openapi.json"
        if path.startswith(("/v1/", "/v2")):
            return text_error(InputError("not_found", message))
        return error_reply(404, "not_found", message)

    @staticmethod
    def _allowed(found: Mapping[str, Endpoint]) -> str:
        methods = [*found, "OPTIONS"] + (["HEAD"] if "GET" in found else [])
        return ", ".join(sorted(methods))

    def _table(self) -> dict[str, dict[str, Endpoint]]:
        def health(word: str) -> Callable[[], Reply]:
            return lambda: _json({word: True}) if self._ready() else _json({word: False}, 503)

        routes: dict[str, dict[str, Endpoint]] = {
            "/ping": {"GET": self._ping},
            "/live": {"GET": lambda: _json({"live": True})},
            "/ready": {"GET": health("ready")},
            "/v1/models": {"GET": lambda: _json({"models": list(self._models)})},
            "/v2": {"GET": lambda: _json(server_metadata())},
            "/v2/health/live": {"GET": lambda: _json({"live": True})},
            "/v2/health/ready": {"GET": health("ready")},
        }
        for name, model in self._models.items():
            metadata = model_metadata(model.manifest, [model.version])
            here: dict[str, dict[str, Endpoint]] = {
                f"/predictions/{name}": {"POST": Infer(model, "")},
                f"/v1/models/{name}": {"GET": health_v1(name, self._ready)},
                f"/v1/models/{name}:predict": {"POST": Infer(model, "v1")},
            }
            for root in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{model.version}"):
                here[root] = {"GET": lambda metadata=metadata: _json(metadata)}  # type: ignore[misc]
                here[f"{root}/ready"] = {"GET": health("ready")}
                here[f"{root}/infer"] = {"POST": Infer(model, "oip")}
            routes |= here
        return routes

    def _ping(self) -> Reply:
        if self._ready():
            return _json({"status": "Healthy"})
        return _json({"status": "Unhealthy"}, 503)


def health_v1(name: str, ready: Callable[[], bool]) -> Callable[[], Reply]:
    """KServe's V1 answer about one model."""
    return lambda: _json({"name": name, "ready": ready()}, 200 if ready() else 503)


def _json(body: object, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(body), status)
