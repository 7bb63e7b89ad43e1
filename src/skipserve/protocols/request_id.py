"""Request ids: in the header of the reply, in the log and in traces."""

from __future__ import annotations

import re

from skipserve.protocols.messages import Headers

HEADER = "x-request-id"

# No space, quote or control character: it is copied into headers and logs.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


def request_id(headers: Headers, made: str) -> str:
    """The ``X-Request-ID`` of the client if it is short and well-formed, else ``made``.

    Args:
        headers: Names in lower case.
        made: What the server calls the request.
    """
    asked = headers.get(HEADER)
    return asked if asked is not None and _WELL_FORMED.fullmatch(asked) else made
