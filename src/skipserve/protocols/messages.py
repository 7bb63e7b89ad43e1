"""Requests and replies, independent of protocol and server."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, overload

import msgspec
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.errors import InputError
from skipserve.preprocessing.config import Preprocessing
from skipserve.protocols.answers import Answer
from skipserve.signature import Signature

# Rows by input [B, …], of any number type.
Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class Risk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The risk that a request asks for.

    Attributes:
        risk: ε.
        measure: ``disagreement`` with full depth, or ``accuracy_lost``.
    """

    risk: float
    measure: Measure = "disagreement"


# What a request asks of the router: a risk, "on" (at the model's own risk), "off", or nothing.
RouterRequest: TypeAlias = Risk | Literal["on", "off"] | None

JSON = "application/json"
# Hosts refuse longer bodies.
MAX_BODY_BYTES = 32 << 20
# HTTP status by error code; all other codes are 400.
STATUSES = {
    "no_key": 401,
    "wrong_key": 403,
    "not_found": 404,
    "model_not_found": 404,
    "no_explanations": 404,
    "wrong_method": 405,
    "too_slow": 408,
    "too_many_rows": 413,
    "too_long": 413,
    "picture_too_large": 413,
    "unsupported_media_type": 415,
    "unsupported_encoding": 415,
    "too_often": 429,
    "internal": 500,
    "overloaded": 503,
    "waited_too_long": 503,
    "deadline_exceeded": 504,
}
# Replies with these statuses have a Retry-After header.
ASK_AGAIN = frozenset({429, 503})
RETRY_AFTER = "retry-after"
# ε in force for a request, whatever its protocol; absent at full depth.
RISK_HEADER = "x-skipserve-risk"
# Blocks run, row by row, where a protocol's body has no place for them.
DEPTH_HEADER = "x-skipserve-depth"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Headers(Protocol):
    """Headers of a request; names in lower case."""

    def __contains__(self, name: str, /) -> bool: ...

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, default: str, /) -> str: ...


class RawRequest(msgspec.Struct, frozen=True):
    """A request as it arrived.

    Attributes:
        body: The body; ``None`` if the server parsed it as a form.
        headers: Names in lower case.
        id: The request id in the reply, in the log and in traces; may be empty.
        protocol: Name of its codec, from the path; empty where the content decides.
        explain: Whether the path asks for explanations, which are not supported.
    """

    body: bytes | bytearray | None
    headers: Headers
    id: str = ""
    protocol: str = ""
    explain: bool = False


class Values(msgspec.Struct, frozen=True):
    """Texts or pictures as a client sent them, for preprocessing.

    Attributes:
        values: One a row, at least one.
    """

    values: Sequence[object]


class ParsedRequest(msgspec.Struct, frozen=True):
    """A request that a codec has read.

    Attributes:
        rows: Unchecked rows by input, or values for preprocessing.
        router: The router request.
        encode: Makes the reply.
        of_slice: Its value of the parameter by which traffic is sliced, if any.
        tokenize: Run only the tokenizer, with or without special tokens; ``None``: the model.
    """

    rows: Tensors | Values
    router: RouterRequest
    encode: Callable[[Answer], Reply]
    of_slice: str | None = None
    tokenize: bool | None = None


class Codec(Protocol):
    """Reads requests and writes errors of one protocol for one model."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read a request.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        ...

    def refuse(self, error: InputError) -> Reply:
        """The protocol's own error body."""
        ...


def most_bytes(
    max_rows: int, signature: Signature, preprocessing: Preprocessing | None = None
) -> int:
    """Largest body in bytes: 32 for each number and 64 KiB for the rest, within the global limit.

    Where a dimension is free, or texts or pictures may stand, only the listener's own bound is
    known.
    """
    if preprocessing is not None:
        return MAX_BODY_BYTES
    sizes = [size for spec in signature.inputs for size in spec.row_shape]
    if any(isinstance(size, str) for size in sizes):
        return MAX_BODY_BYTES
    numbers = sum(math.prod(map(int, spec.row_shape)) for spec in signature.inputs)
    return min(MAX_BODY_BYTES, max_rows * numbers * 32 + (64 << 10))


def check_size(request: RawRequest, max_rows: int, most: int) -> None:
    """Refuse a body that is too long, before it is decoded.

    Args:
        request: With the body.
        max_rows: Most rows that it may hold.
        most: Bytes that these can have.

    Raises:
        InputError: If it is longer than the rows allowed can be.
    """
    if request.body is not None and len(request.body) > most:
        raise InputError(
            "too_many_rows",
            f"the body has {len(request.body)} bytes, more than the {most} allowed; "
            f"at most {max_rows} rows are answered at once; split the request",
        )


def without_mark(text: bytes | bytearray) -> bytes | bytearray:
    """JSON without the UTF-8 byte order mark that some clients send."""
    return text[len(_BYTE_ORDER_MARK) :] if text.startswith(_BYTE_ORDER_MARK) else text


def has_field(body: bytes | bytearray | None, name: bytes, field: re.Pattern[bytes]) -> bool:
    """Whether a JSON body has a field, at any depth.

    Args:
        body: The body.
        name: That every match begins with; found much faster in a long body than the pattern.
        field: Matches the field.
    """
    if body is None:
        return False
    at = body.find(name)
    while at >= 0:
        if field.match(body, at):
            return True
        at = body.find(name, at + 1)
    return False


@dataclass
class Reply:
    """An answer or an error, ready to be sent."""

    body: bytes | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": JSON})
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status in ASK_AGAIN:
            self.headers.setdefault(RETRY_AFTER, "1")


def status_of(error: InputError) -> int:
    """HTTP status of an input error."""
    return STATUSES.get(error.code, 400)


def error_reply(status: int, code: str, message: str, row: int | None = None) -> Reply:
    """The error body of the HTTP interface: ``{"error": {"code", "message"[, "row"]}}``."""
    error: dict[str, object] = {"code": code, "message": message}
    if row is not None:
        error["row"] = row
    return Reply(msgspec.json.encode({"error": error}), status, reason=code)


def text_error(error: InputError) -> Reply:
    """The error body of protocols with text errors: ``{"error": "[code] message"}``."""
    body = msgspec.json.encode({"error": f"[{error.code}] {error.message}"})
    return Reply(body, status_of(error), reason=error.code)
