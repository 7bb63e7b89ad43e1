"""The native protocol: ``POST /predictions/{model}`` with ``{"inputs": …}``.

The inputs of a model of one input are its rows, ``[[…], …]``; those of several are an object,
``{"input_ids": [[…], …], "attention_mask": [[…], …]}``. A model with preprocessing takes values:
``["great film", "dull"]``; tensors must be named there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.json_rows import JsonRows
from skipserve.protocols.messages import ParsedRequest, RawRequest, Reply, error_reply, status_of


class NativeProtocol:
    """Decodes and encodes the native JSON of one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
        others: Further fields that it may hold, as :class:`JsonRows` takes them.
    """

    def __init__(
        self, manifest: Manifest, max_rows: int, others: tuple[tuple[str, Any, Any], ...] = ()
    ) -> None:
        self._manifest = manifest
        self._reader = JsonRows(manifest, max_rows, "inputs", others=others)
        self._encoder = msgspec.json.Encoder()

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read the rows of a request, and what it asks of the router.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        rows, router, of_slice = self._reader.decode(request)
        return ParsedRequest(rows, router, self.encode, of_slice)

    def encode(self, answer: Answer) -> Reply:
        """Answer one request."""
        setting = answer.setting
        body: dict[str, object] = {
            "outputs": answer.outputs(),
            "model": self._manifest.model,
            "depth": self._manifest.depth,
            "router": "off" if setting.risk is None else "on",
        }
        if setting.risk is not None:
            body["risk"] = setting.risk
            if setting.measure != "disagreement":
                body["measure"] = setting.measure
        elif setting.reason:
            body["router_reason"] = setting.reason
        return Reply(self._encoder.encode(body))

    def refuse(self, error: InputError) -> Reply:
        """Tell a client what was wrong."""
        return error_reply(status_of(error), error.code, error.message, error.row)
