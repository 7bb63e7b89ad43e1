"""Answers requests by the table of routes; rsgi.py and asgi.py put it behind servers."""

from __future__ import annotations

import gzip
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from skipserve.errors import InputError
from skipserve.hosts.cross_origin import CrossOrigin
from skipserve.hosts.models import Model
from skipserve.hosts.openapi import document, document_route
from skipserve.hosts.routes import Endpoint, Infer, Route, refused, routes_of, served
from skipserve.protocols.compatible import kinds_at
from skipserve.protocols.messages import MAX_BODY_BYTES, Headers, RawRequest, Reply
from skipserve.protocols.request_id import request_id

# Shorter replies are not worth packing.
PACKED_BYTES = 1024
# A path that names a version.
_VERSION = re.compile(
    r"/(?:predictions/(?P<model>[^/]+)|v[12]/models/(?P<of>[^/]+)/versions)/(?P<version>[^/:]+)"
)


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
        self._cross_origin = CrossOrigin(origins)
        self._told = b""
        self._all = [*routes_of(models, ready), document_route(self._document)]
        self._routes: dict[str, dict[str, Endpoint]] = {}
        for route in self._all:
            self._routes.setdefault(route.path, {})[route.method] = route.endpoint
        # Unlike those of any other process, and cheap.
        self._made = f"{os.getpid():x}-{os.urandom(6).hex()}-"
        self._count = itertools.count(1)

    @property
    def routes(self) -> Sequence[Route]:
        """All that is answered."""
        return self._all

    def infer(self, method: str, path: str) -> Infer | None:
        """Who answers a request with the body that follows it; ``None``: :meth:`answer` does."""
        found = self._at(path)
        endpoint = None if found is None else found.get(method)
        return endpoint if isinstance(endpoint, Infer) else None

    async def ask(self, infer: Infer, headers: Headers, body: bytes) -> Reply:
        """Answer a request to a model."""
        request = RawRequest(body, headers, self._name(headers), infer.protocol)
        return self._dressed(await infer.by.answer(request), headers)

    def answer(self, method: str, path: str, headers: Headers) -> Reply:
        """Answer a request whose body, if it has one, does not matter."""
        found = self._at(path)
        if found is None:
            return self._dressed(self._unknown(path), headers)
        if method == "OPTIONS":
            return self._cross_origin.preflight(headers, self._allowed(found))
        endpoint = found.get("GET" if method == "HEAD" else method)
        if endpoint is None or isinstance(endpoint, Infer):
            allowed = self._allowed(found)
            reply = refused(path, "wrong_method", f"{path} takes {allowed}, not {method}")
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
        request = RawRequest(b"", headers, self._name(headers), infer.protocol)
        return self._dressed(infer.by.refuse(request, error), headers)

    def _name(self, headers: Headers) -> str:
        return request_id(headers, "") or f"{self._made}{next(self._count):x}"

    def _at(self, path: str) -> Mapping[str, Endpoint] | None:
        # A slash at the end changes nothing.
        return self._routes.get(path) or self._routes.get(path.rstrip("/"))

    def _dressed(self, reply: Reply, headers: Headers) -> Reply:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if len(body) >= PACKED_BYTES and "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1, mtime=0)  # equal answers are equal bytes
            reply.headers["content-encoding"] = "gzip"
            reply.headers["vary"] = "accept-encoding"
        reply.body = body
        self._cross_origin.allow(reply, headers)
        return reply

    def _unknown(self, path: str) -> Reply:
        known = served(self._models)
        asked = _VERSION.match(path)
        model = asked and (asked["model"] or asked["of"])
        if asked and model in known and asked["version"] not in known[model]:
            message = (
                f"version {asked['version']} of {model} is not served, only "
                f"{', '.join(known[model])}"
            )
        elif kinds := kinds_at(path):
            message = (
                f"no model here answers {path}: that takes texts or tokens, and a task of kind "
                f"{' or '.join(kinds)}; this service has {', '.join(known)}"
            )
        else:
            message = (
                f"nothing is at {path}; this service has the models {', '.join(known)}, see "
                "/openapi.json"
            )
        return refused(path, "not_found", message)

    def _document(self) -> Reply:
        # Few ask for it, so it is not made before somebody does.
        if not self._told:
            self._told = msgspec.json.encode(document(self._all, self._models))
        return Reply(self._told)

    @staticmethod
    def _allowed(found: Mapping[str, Endpoint]) -> str:
        methods = [*found, "OPTIONS"] + (["HEAD"] if "GET" in found else [])
        return ", ".join(sorted(methods))
