"""CORS: which web pages may send requests (Fetch standard, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from skipserve.protocols.messages import DEPTH_HEADER, RETRY_AFTER, RISK_HEADER, Headers, Reply

# Reply headers that scripts of a page may read.
EXPOSED = (
    f"server-timing, x-request-id, {RISK_HEADER}, {DEPTH_HEADER}, {RETRY_AFTER}, "
    "inference-header-content-length"
)
PREFLIGHT_S = 600


class CrossOrigin:
    """Adds CORS headers for the configured origins.

    Args:
        origins: Such as ``https://example.org``; ``*`` names all.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def allow(self, reply: Reply, headers: Headers) -> None:
        """Allow the page of a request to read the reply, if its origin is configured."""
        if not self._origins:
            return
        reply.headers["vary"] = ", ".join(filter(None, (reply.headers.get("vary"), "origin")))
        origin = headers.get("origin")
        if origin is not None and (origin in self._origins or "*" in self._origins):
            reply.headers["access-control-allow-origin"] = origin
            reply.headers["access-control-expose-headers"] = EXPOSED

    def preflight(self, headers: Headers, methods: str) -> Reply:
        """Answer a preflight request (``OPTIONS``).

        Args:
            headers: Of the request.
            methods: That the path takes.
        """
        reply = Reply(b"", 204, {"allow": methods})
        self.allow(reply, headers)
        if "access-control-allow-origin" in reply.headers:
            reply.headers["access-control-allow-methods"] = methods
            asked = headers.get("access-control-request-headers")
            if asked is not None:
                reply.headers["access-control-allow-headers"] = asked
            reply.headers["access-control-max-age"] = str(PREFLIGHT_S)
        return reply
