"""OpenAI's ``/v1/embeddings``, and vLLM's ``/classify``, ``/score`` and ``/pooling``.

Source: OpenAI's API reference; vLLM's documentation of its pooling endpoints. Every body names its
``model``.
"""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.messages import ParsedRequest, RawRequest, Reply, status_of
from skipserve.protocols.tei import decoded, sent, shortened, sigmoid
from skipserve.protocols.texts import TextRows, token_count
from skipserve.tasks import label_names

# Types of errors that are not about the content of a request, by status.
_TYPES = {401: "authentication_error", 403: "authentication_error", 429: "rate_limit_error"}


def refuse(error: InputError) -> Reply:
    """OpenAI's error body."""
    status = status_of(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = "model" if error.code == "model_not_found" else None
    fields = {"message": error.message, "type": kind, "param": param, "code": error.code}
    return Reply(msgspec.json.encode({"error": fields}), status, reason=error.code)


class OpenAICodec:
    """Everything the endpoints share.

    Args:
        manifest: Of the model.
        max_rows: Most rows that a request may hold.
    """

    prefix = ""

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._rows = TextRows(manifest, max_rows)

    def refuse(self, error: InputError) -> Reply:
        """OpenAI's error body."""
        return refuse(error)

    def _reply(self, data: list[dict[str, object]], name: str, answer: Answer) -> Reply:
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


class Options(msgspec.Struct, kw_only=True):
    """What vLLM's clients may say of long texts and of the numbers of a reply.

    Attributes:
        truncate_prompt_tokens: Tokens that are read of a text; -1: as many as the model takes.
        truncation_side: The side that long texts lose.
        use_activation: Whether numbers are probabilities, not logits; by default they are.
        activation: An older name of it.
        softmax: A still older one.
    """

    truncate_prompt_tokens: Literal[-1] | None = None
    truncation_side: Literal["left", "right"] | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None

    @property
    def raw(self) -> bool:
        """Whether the network's own numbers are asked for."""
        return False in (self.use_activation, self.activation, self.softmax)


class _InputRequest(Options):
    """The body of every endpoint of texts one by one."""

    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class _InputCodec(OpenAICodec, ABC):
    """An endpoint that takes texts or token ids in the field ``input``."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read texts or token ids.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        body: _InputRequest = decoded(request, _InputRequest)
        self._rows.check_cut(body.truncation_side, "truncation_side")
        if body.raw and self._manifest.task.kind in ("classify", "multilabel"):
            raise InputError(
                "invalid_parameter",
                "use_activation must be true or left out: every exit answers with probabilities",
            )
        rows, _ = self._rows.read(body.input, "input")
        shortened(np.empty((0, self._manifest.task.width), np.float32), body.dimensions, False)
        return ParsedRequest(rows, None, partial(self._encode, body, request.id))

    def _encode(self, body: _InputRequest, name: str, answer: Answer) -> Reply:
        return self._reply(self._data(body, answer), name, answer)

    @abstractmethod
    def _data(self, body: _InputRequest, answer: Answer) -> list[dict[str, object]]:
        """The entries of the reply, one for each row."""


class Embeddings(_InputCodec):
    """``/v1/embeddings``."""

    prefix = "embd"

    def _data(self, body: _InputRequest, answer: Answer) -> list[dict[str, object]]:
        return [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(_vectors(body, answer))
        ]


class Classifications(_InputCodec):
    """``/classify``: the likeliest label of each text, and the probability of every label."""

    prefix = "classify"

    def _data(self, body: _InputRequest, answer: Answer) -> list[dict[str, object]]:
        names, width = label_names(self._manifest.task), self._manifest.task.width
        labels = answer.prediction.answers.argmax(axis=1)
        if self._manifest.task.kind == "classify" and answer.prediction.labels is not None:
            labels = answer.prediction.labels
        rows = zip(labels.tolist(), answer.prediction.answers.tolist(), strict=True)
        return [
            {"index": i, "label": names[label], "probs": probs, "num_classes": width}
            for i, (label, probs) in enumerate(rows)
        ]


class Pooling(_InputCodec):
    """``/pooling``: the answers as numbers, for every task."""

    prefix = "pool"

    def _data(self, body: _InputRequest, answer: Answer) -> list[dict[str, object]]:
        return [
            {"index": i, "object": "pooling", "data": vector}
            for i, vector in enumerate(_vectors(body, answer))
        ]


def _vectors(body: _InputRequest, answer: Answer) -> list[object]:
    """Answers as lists of numbers, or as little-endian FP32 in base64."""
    vectors = answer.prediction.answers
    if body.dimensions is not None:
        vectors = shortened(vectors, body.dimensions, unit=True)
    if body.encoding_format == "base64":
        little = vectors.astype("<f4")
        return [base64.b64encode(row.tobytes()).decode() for row in little]
    found: list[object] = vectors.tolist()
    return found


class _ScoreRequest(Options):
    text_1: str | list[str]
    text_2: str | list[str]
    model: str | None = None


def relevance(scores: NDArray[np.float32], asked: Options) -> NDArray[np.float64]:
    """Scores [N] as clients of vLLM expect them: their sigmoid, unless the logits are asked for."""
    return scores.astype(np.float64) if asked.raw else sigmoid(scores)


class Scores(OpenAICodec):
    """``/score``: how well two texts go together, for each of several pairs.

    A score is the sigmoid of what the network says, as in ``/v1/rerank`` and in vLLM.
    """

    prefix = "score"

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read pairs: one text with each of several, or two lists of equal length.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        body: _ScoreRequest = decoded(request, _ScoreRequest)
        self._rows.check_cut(body.truncation_side, "truncation_side")
        first, second = (
            [one] if isinstance(one, str) else one for one in (body.text_1, body.text_2)
        )
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise InputError(
                "wrong_shape",
                f"text_1 holds {len(first)} texts and text_2 {len(second)}; send one, or as many",
            )
        rows = self._rows.texts(list(zip(first, second, strict=True)), "text_1")
        return ParsedRequest(rows, None, partial(self._encode, body, request.id))

    def _encode(self, body: _ScoreRequest, name: str, answer: Answer) -> Reply:
        scores = relevance(answer.prediction.answers[:, 0], body).tolist()
        data: list[dict[str, object]] = [
            {"index": i, "object": "score", "score": score} for i, score in enumerate(scores)
        ]
        return self._reply(data, name, answer)
