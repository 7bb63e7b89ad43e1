"""Deadlines of requests: the headers ``X-Request-Timeout`` and ``grpc-timeout`` of gRPC.

Source of the units: gRPC over HTTP/2, *Requests*, ``Timeout``: at most eight digits and a letter.
"""

from __future__ import annotations

import math
import re

from skipserve.errors import InputError, quoted
from skipserve.protocols.messages import Headers

HEADERS = ("x-request-timeout", "grpc-timeout")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_WITH_UNIT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = re.compile(r"[0-9]{1,8}(\.[0-9]{1,9})?")
PATTERN = r"^([0-9]{1,8}(\.[0-9]{1,9})?|[0-9]{1,8}[HMSmun])$"


def time_allowed(headers: Headers) -> float:
    """Seconds that a request may take; infinite without such a header.

    Args:
        headers: Names in lower case.

    Raises:
        InputError: If it says so in no way that is known.
    """
    for name in HEADERS:
        asked = headers.get(name)
        if asked is not None:
            return _seconds(name, asked)
    return math.inf


def _seconds(name: str, asked: str) -> float:
    if found := _WITH_UNIT.fullmatch(asked):
        return int(found[1]) * _UNITS_S[found[2]]
    if _SECONDS.fullmatch(asked):
        return float(asked)
    raise InputError(
        "invalid_timeout",
        f"{name} is {quoted(asked)}, expected seconds such as 0.25, or a number of at most 8 "
        "digits and a unit (H, M, S, m, u, n) such as 150m for 150 milliseconds",
    )


def deadline_exceeded(allowed_s: float) -> InputError:
    """The error for a request whose deadline passed before it ran."""
    return InputError(
        "deadline_exceeded",
        f"the {allowed_s:g} s that the request allows passed before it could run, and it was not "
        "run; allow more, or ask less often",
    )
