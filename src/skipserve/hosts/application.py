"""Answers requests by the table of routes; rsgi.py and asgi.py put it behind servers."""

from __future__ import annotations

import gzip
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from skipserve.errors import InputError
from skipserve.hosts.access import OPEN, AccessControl
from skipserve.hosts.cross_origin import CrossOrigin
from skipserve.hosts.models import Model
from skipserve.hosts.openapi import document, document_route
from skipserve.hosts.routes import Endpoint, Infer, Route, refused, routes_of, served
from skipserve.protocols.compatible import kinds_at
from skipserve.protocols.messages import Headers, RawRequest, Reply
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
        access: Checks keys; by default every request is let in.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        ready: Callable[[], bool] = lambda: True,
        origins: Sequence[str] = (),
        access: AccessControl | None = None,
    ) -> None:
        self._models = models
        self._access = access
        self._cross_origin = CrossOrigin(origins)
        self._openapi = b""
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

    def begin(self, method: str, path: str, headers: Headers) -> Infer | Reply:
        """The reply to a request; or who answers it with the body that follows."""
        found = self._at(path)
        if self._access is not None and method != "OPTIONS":
            denied = self._denied(method, path, headers, found)
            if denied is not None:
                return denied
        if found is None:
            return self._finished(self._unknown(path), headers)
        endpoint = found.get(method)
        if isinstance(endpoint, Infer):
            return endpoint
        if method == "OPTIONS":
            return self._cross_origin.preflight(headers, self._allowed(found))
        endpoint = found.get("GET" if method == "HEAD" else method)
        if endpoint is None or isinstance(endpoint, Infer):
            allowed = self._allowed(found)
            reply = refused(path, "wrong_method", f"{path} takes {allowed}, not {method}")
            reply.headers["allow"] = allowed
        else:
            reply = endpoint()
        return self._finished(reply, headers)

    async def ask(self, infer: Infer, headers: Headers, body: bytes) -> Reply:
        """Answer a request to a model."""
        request = RawRequest(body, headers, self._name(headers), infer.protocol)
        return self._finished(await infer.by.answer(request), headers)

    def too_long(self, infer: Infer, headers: Headers) -> Reply:
        """Refuse a body by its length."""
        error = InputError(
            "too_many_rows",
            f"the body has more than the {infer.model.most_bytes} bytes allowed; at most "
            f"{infer.model.max_rows} rows are answered at once; split the request",
        )
        return self._refused(infer, headers, error)

    def too_slow(self, infer: Infer, headers: Headers, body_s: float) -> Reply:
        """Refuse a body that did not come in so many seconds."""
        error = InputError("too_slow", f"the body did not come within {body_s:g} s; send it anew")
        reply = self._refused(infer, headers, error)
        reply.headers["connection"] = "close"
        return reply

    def _refused(self, infer: Infer, headers: Headers, error: InputError) -> Reply:
        request = RawRequest(b"", headers, self._name(headers), infer.protocol)
        return self._finished(infer.by.turn_away(request, error), headers)

    def _denied(
        self, method: str, path: str, headers: Headers, found: Mapping[str, Endpoint] | None
    ) -> Reply | None:
        """The reply to a request without a valid key; ``None`` if it may go on."""
        assert self._access is not None
        if path.rstrip("/") in OPEN:
            return None
        denied = self._access.check(headers)
        if denied is None:
            return None
        endpoint = None if found is None else found.get(method)
        if isinstance(endpoint, Infer):
            reply = self._refused(endpoint, headers, denied.error)
        else:
            error = denied.error
            reply = self._finished(refused(path, error.code, error.message), headers)
        reply.headers |= denied.headers
        return reply

    def _name(self, headers: Headers) -> str:
        return request_id(headers, "") or f"{self._made}{next(self._count):x}"

    def _at(self, path: str) -> Mapping[str, Endpoint] | None:
        # A slash at the end changes nothing.
        return self._routes.get(path) or self._routes.get(path.rstrip("/"))

    def _finished(self, reply: Reply, headers: Headers) -> Reply:
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
        if not self._openapi:
            self._openapi = msgspec.json.encode(
                document(self._all, self._models, self._access is not None)
            )
        return Reply(self._openapi)

    @staticmethod
    def _allowed(found: Mapping[str, Endpoint]) -> str:
        methods = [*found, "OPTIONS"] + (["HEAD"] if "GET" in found else [])
        return ", ".join(sorted(methods))
