"""The V1 protocol of TensorFlow Serving and KServe: ``{"instances": […]}`` to ``{"predictions"}``.

Source: TensorFlow Serving's RESTful API, row format; KServe's V1 protocol, which took it over.
A request is told from a native one by its content, whatever its path.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.serving.json_rows import JsonRows, rows_told
from skipserve.serving.messages import Question, RawRequest, Reply, text_error


def speaks_v1(request: RawRequest) -> bool:
    """Whether a request is meant for this protocol; no other knows this word."""
    return request.body is not None and b'"instances"' in request.body


class V1Protocol:
    """Decodes and encodes V1 requests for one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        signature = ("signature_name", Literal["serving_default", ""] | None, None)
        self._reader = JsonRows(manifest, max_rows, "instances", (signature,), named=True)

    def decode(self, request: RawRequest) -> Question:
        """Read the instances, float64, each a row or ``{"inputs": row}``.

        ``parameters`` may stand beside them as in the native protocol.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        message, asked = self._reader.decode(request)
        rows = [one if isinstance(one, list) else one.row for one in message.instances]
        return Question(np.array(rows, dtype=np.float64), asked, self.encode)

    def encode(self, prediction: Prediction, setting: Setting) -> Reply:
        """Answer one request, a prediction for each instance, and no other field."""
        return Reply(msgspec.json.encode({"predictions": rows_told(prediction, setting)}))

    def refuse(self, error: InputError) -> Reply:
        """The protocol's own error body: ``{"error": "message"}``."""
        return text_error(error)
