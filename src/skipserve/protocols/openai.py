"""OpenAI's ``/v1/embeddings``, and vLLM's ``/classify``, ``/score`` and ``/pooling``.

Source: OpenAI's API reference; vLLM's documentation of its pooling endpoints. Every body names its
``model``.
"""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.messages import ParsedRequest, RawRequest, Reply, status_of
from skipserve.protocols.tei import decoded, sent, shortened
from skipserve.protocols.texts import TextRows, token_count
from skipserve.tasks import label_names

# What it calls errors that are not of the request's content, by status.
_TYPES = {401: "authentication_error", 403: "authentication_error", 429: "rate_limit_error"}


def refuse(error: InputError) -> Reply:
    """OpenAI's error body."""
    status = status_of(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = "model" if error.code == "model_not_found" else None
    told = {"message": error.message, "type": kind, "param": param, "code": error.code}
    return Reply(msgspec.json.encode({"error": told}), status, reason=error.code)


class _Request(msgspec.Struct):
    """What all but scores have in common."""

    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class OpenAI:
    """What they have in common.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    prefix = "embd"

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._rows = TextRows(manifest, max_rows)

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read texts, or token ids.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        asked: _Request = decoded(request, _Request)
        rows, _ = self._rows.read(asked.input, "input")
        shortened(np.empty((0, self._manifest.task.width), np.float32), asked.dimensions, False)
        return ParsedRequest(rows, None, partial(self._encode, asked, request.id))

    def refuse(self, error: InputError) -> Reply:
        """Tell a client what was wrong."""
        return refuse(error)

    def _encode(self, asked: _Request, name: str, answer: Answer) -> Reply:
        return self._sent(self._data(asked, answer), name, answer)

    def _data(self, asked: _Request, answer: Answer) -> list[dict[str, object]]:
        raise NotImplementedError

    def _sent(self, data: list[dict[str, object]], name: str, answer: Answer) -> Reply:
        tokens = token_count(answer.rows, self._manifest)
        body: dict[str, object] = {
            "id": f"{self.prefix}-{name}",
            "object": "list",
            "created": int(time.time()),
            "model": self._manifest.name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return sent(body, answer)

    def _vectors(self, asked: _Request, answer: Answer) -> list[object]:
        """Answers as lists of numbers, or as little-endian FP32 in base64."""
        vectors = answer.prediction.answers
        if asked.dimensions is not None:
            vectors = shortened(vectors, asked.dimensions, unit=True)
        if asked.encoding_format == "base64":
            little = vectors.astype("<f4")
            return [base64.b64encode(row.tobytes()).decode() for row in little]
        found: list[object] = vectors.tolist()
        return found


class Embeddings(OpenAI):
    """``/v1/embeddings``."""

    def _data(self, asked: _Request, answer: Answer) -> list[dict[str, object]]:
        return [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(self._vectors(asked, answer))
        ]


class Classifications(OpenAI):
    """``/classify``: the likeliest label of each text, and the probabilities of all."""

    prefix = "classify"

    def _data(self, asked: _Request, answer: Answer) -> list[dict[str, object]]:
        names, width = label_names(self._manifest.task), self._manifest.task.width
        labels = answer.prediction.answers.argmax(axis=1)
        if self._manifest.task.kind == "classify" and answer.prediction.labels is not None:
            labels = answer.prediction.labels
        rows = zip(labels.tolist(), answer.prediction.answers.tolist(), strict=True)
        return [
            {"index": i, "label": names[label], "probs": probs, "num_classes": width}
            for i, (label, probs) in enumerate(rows)
        ]


class Pooling(OpenAI):
    """``/pooling``: the answers as they are, whatever the task."""

    prefix = "pool"

    def _data(self, asked: _Request, answer: Answer) -> list[dict[str, object]]:
        return [
            {"index": i, "object": "pooling", "data": vector}
            for i, vector in enumerate(self._vectors(asked, answer))
        ]


class _ScoreRequest(msgspec.Struct):
    text_1: str | list[str]
    text_2: str | list[str]
    model: str | None = None


class Scores(OpenAI):
    """``/score``: how well each of some texts goes with another, or with its own partner."""

    prefix = "score"

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read pairs: one text with each of several, or as many with as many."""
        asked: _ScoreRequest = decoded(request, _ScoreRequest)
        first, second = (
            [one] if isinstance(one, str) else one for one in (asked.text_1, asked.text_2)
        )
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise InputError(
                "wrong_shape",
                f"text_1 holds {len(first)} texts and text_2 {len(second)}; send one, or as many",
            )
        rows = self._rows.texts(list(zip(first, second, strict=True)))
        return ParsedRequest(rows, None, partial(self._scored, request.id))

    def _scored(self, name: str, answer: Answer) -> Reply:
        scores = answer.prediction.answers[:, 0].tolist()
        data: list[dict[str, object]] = [
            {"index": i, "object": "score", "score": score} for i, score in enumerate(scores)
        ]
        return self._sent(data, name, answer)
