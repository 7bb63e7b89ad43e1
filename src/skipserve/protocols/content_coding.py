"""Compressed request bodies: ``Content-Encoding`` (RFC 9110, section 8.4)."""

from __future__ import annotations

import zlib

from msgspec.structs import replace

from skipserve.errors import InputError, quoted
from skipserve.protocols.messages import RawRequest

# zlib's window sizes: +16 is a gzip header, without it a zlib header. x-gzip is gzip (8.4.1.3).
CODINGS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def unpacked(request: RawRequest, most: int) -> RawRequest:
    """The request with its body decompressed.

    Args:
        request: As it arrived.
        most: Bytes that an uncompressed body may have.

    Raises:
        InputError: If the encoding is not supported, the body is not encoded so, or becomes longer
            than ``most``; no more than that is ever unpacked.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity") or request.body is None:
        return request
    if coding not in CODINGS:
        raise InputError(
            "unsupported_encoding",
            f"content encoding {quoted(coding)} is not supported; "
            "compress the body with gzip or deflate, or not at all",
        )
    return replace(request, body=_inflate(request.body, coding, most))


def _inflate(packed: bytes | bytearray, coding: str, most: int) -> bytes:
    inflater = zlib.decompressobj(CODINGS[coding])
    try:
        body = inflater.decompress(packed, most + 1)
    except zlib.error as error:
        raise InputError(
            "invalid_encoding", f"the body is not {coding}, as Content-Encoding says: {error}"
        ) from None
    if len(body) > most:
        raise InputError(
            "too_many_rows",
            f"the body has more than the {most} bytes allowed once it is unpacked; "
            "split the request",
        )
    if not inflater.eof or inflater.unused_data:
        problem = "bytes follow its end" if inflater.eof else "it ends too early"
        raise InputError(
            "invalid_encoding", f"the body is not one whole {coding} stream: {problem}"
        )
    return body
