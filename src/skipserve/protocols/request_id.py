"""The name of one request: in its reply's header, in the log and in traces."""

from __future__ import annotations

import re

from skipserve.protocols.messages import Headers

HEADER = "x-request-id"

# No space, quote or control character: it is copied into headers and logs.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


def request_id(headers: Headers, made: str) -> str:
    """The client's ``X-Request-ID`` if it is short and well-formed, else the server's name.

    Args:
        headers: Names in lower case.
        made: What the server calls the request.
    """
    asked = headers.get(HEADER)
    return asked if asked is not None and _WELL_FORMED.fullmatch(asked) else made
