"""The V1 protocol of TensorFlow Serving and KServe: ``{"instances": […]}`` to ``{"predictions"}``.

Source: TensorFlow Serving's RESTful API, row format; KServe's V1 protocol, which took it over.
A request is recognised by its content, on any path.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.json_rows import JsonRows
from skipserve.protocols.messages import (
    ParsedRequest,
    RawRequest,
    Reply,
    has_field,
    text_error,
)
from skipserve.protocols.native import NativeProtocol

# Matches a field, not a text: quotes inside texts are escaped.
_INSTANCES, _INPUTS = re.compile(rb'"instances"\s*:'), re.compile(rb'"inputs"\s*:')


def is_v1_request(request: RawRequest) -> bool:
    """Whether a request is of this protocol; no other has the field ``instances``."""
    return has_field(request.body, b'"instances"', _INSTANCES)


class V1Protocol:
    """Decodes and encodes V1 requests for one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        signature = ("signature_name", Literal["serving_default", ""] | None, None)
        self._columns = NativeProtocol(manifest, max_rows, (signature,))
        self._reader = JsonRows(manifest, max_rows, "instances", "instances", (signature,))

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read the instances: rows of a single input, or objects of all inputs.

        ``parameters`` may stand beside them as in the native protocol. A request in TensorFlow
        Serving's column format, with ``inputs``, is answered with ``outputs``, as a native one.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        by_column = has_field(request.body, b'"inputs"', _INPUTS)
        if by_column and not is_v1_request(request):
            return self._columns.decode(request)
        rows, router, of_slice = self._reader.decode(request)
        return ParsedRequest(rows, router, self.encode, of_slice)

    def encode(self, answer: Answer) -> Reply:
        """Answer one request, a prediction for each instance, and no other field."""
        return Reply(msgspec.json.encode({"predictions": answer.outputs()}))

    def refuse(self, error: InputError) -> Reply:
        """The protocol's own error body: ``{"error": "message"}``."""
        return text_error(error)
