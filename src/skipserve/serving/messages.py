"""What comes in and what goes out, whatever the protocol and whatever the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from skipserve.errors import InputError

JSON = "application/json"
# Everything else a client gets wrong is a plain 400.
STATUSES = {"too_many_rows": 413, "unsupported_media_type": 415}


@dataclass(frozen=True)
class RawRequest:
    """A request as it arrived.

    Attributes:
        body: The bytes after the headers; ``None`` if the server took them for a form.
        headers: Names in lower case.
    """

    body: bytes | bytearray | None
    headers: Mapping[str, str]


@dataclass
class Reply:
    """An answer or an error, ready to be sent."""

    body: bytes | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": JSON})
    reason: str = ""


def status_of(error: InputError) -> int:
    """HTTP status of an input error."""
    return STATUSES.get(error.code, 400)


def error_reply(status: int, code: str, message: str, row: int | None = None) -> Reply:
    """The error body of the HTTP interface: ``{"error": {"code", "message"[, "row"]}}``."""
    error: dict[str, object] = {"code": code, "message": message}
    if row is not None:
        error["row"] = row
    return Reply(msgspec.json.encode({"error": error}), status, reason=code)
