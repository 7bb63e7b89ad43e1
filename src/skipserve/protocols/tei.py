"""text-embeddings-inference: ``/embed``, ``/similarity``, ``/predict``, ``/rerank``, ``/tokenize``.

Source: its OpenAPI document and the types of its router (huggingface/text-embeddings-inference).
Texts are always cut to the model's length, as it does with ``--auto-truncate``; ``/tokenize`` cuts
nothing, as there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.messages import (
    DEPTH_HEADER,
    ParsedRequest,
    RawRequest,
    Reply,
    status_of,
    without_mark,
)
from skipserve.protocols.texts import TextRows
from skipserve.tasks import label_names, ranked

# Error types by code; all others are Validation. The types are a closed list without one for
# keys; after Overloaded, clients retry.
_TYPES = {
    "internal": "Backend",
    "overloaded": "Overloaded",
    "waited_too_long": "Overloaded",
    "deadline_exceeded": "Overloaded",
    "too_slow": "Overloaded",
    "too_often": "Overloaded",
    "empty": "Empty",
    "no_tokenizer": "Tokenizer",
}


def refuse(error: InputError) -> Reply:
    """The error body of text-embeddings-inference."""
    body = {"error": error.message, "error_type": _TYPES.get(error.code, "Validation")}
    return Reply(msgspec.json.encode(body), status_of(error), reason=error.code)


def decoded(request: RawRequest, type_: Any) -> Any:
    """The JSON of a request.

    Raises:
        InputError: If it is no such JSON.
    """
    if request.body is None:
        raise InputError("unsupported_media_type", "the body was sent as a form; expected JSON")
    try:
        return msgspec.json.decode(without_mark(request.body), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("invalid_json", f"not a request of this endpoint: {error}") from None


def sent(body: object, answer: Answer) -> Reply:
    """A reply whose header says how deep each row ran."""
    reply = Reply(msgspec.json.encode(body))
    depth = answer.prediction.depth_run.tolist()
    reply.headers[DEPTH_HEADER] = ",".join(map(str, depth))
    return reply


def shortened(vectors: NDArray[np.float32], dimensions: int | None, unit: bool) -> NDArray[Any]:
    """The first ``dimensions`` numbers of vectors [N, width], normalised on request.

    Raises:
        InputError: If they have not as many.
    """
    width = vectors.shape[1]
    if dimensions is not None:
        if not 1 <= dimensions <= width:
            raise InputError("invalid_parameter", f"dimensions must lie in 1 … {width}")
        vectors = vectors[:, :dimensions]
    if unit:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
    return vectors


class _TeiCodec:
    """Shared by all endpoints of text-embeddings-inference.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._rows = TextRows(manifest, max_rows)

    def refuse(self, error: InputError) -> Reply:
        """The error body of the protocol."""
        return refuse(error)

    def _check(self, asked: _Cut) -> None:
        self._rows.check_cut(asked.truncation_direction, "truncation_direction")


class _Cut(msgspec.Struct, kw_only=True):
    """What a request may say of long texts."""

    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None


class _EmbedRequest(_Cut):
    inputs: Any
    normalize: bool | None = None
    dimensions: int | None = None
    prompt_name: None = None


class Embed(_TeiCodec):
    """``/embed``: texts to a list of vectors."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read texts, or token ids."""
        asked: _EmbedRequest = decoded(request, _EmbedRequest)
        self._check(asked)
        rows, _ = self._rows.read(asked.inputs, "inputs")
        shortened(np.empty((0, self._manifest.task.width), np.float32), asked.dimensions, False)
        return ParsedRequest(rows, None, partial(self._encode, asked))

    def _encode(self, asked: _EmbedRequest, answer: Answer) -> Reply:
        unit = asked.normalize is not False
        vectors = shortened(answer.prediction.answers, asked.dimensions, unit)
        return sent(vectors.tolist(), answer)


class _Sentences(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class _SimilarityParameters(_Cut):
    prompt_name: None = None


class _SimilarityRequest(msgspec.Struct):
    inputs: _Sentences
    parameters: _SimilarityParameters | None = None


class Similarity(_TeiCodec):
    """``/similarity``: the cosine of one text's vector to that of each of several."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read the source and the texts that it is compared with."""
        asked: _SimilarityRequest = decoded(request, _SimilarityRequest)
        self._check(asked.parameters or _SimilarityParameters())
        inputs = asked.inputs
        if not inputs.sentences:
            raise InputError("empty", "sentences holds no text; send at least one")
        rows = self._rows.texts([inputs.source_sentence, *inputs.sentences], "sentences")
        return ParsedRequest(rows, None, self._encode)

    def _encode(self, answer: Answer) -> Reply:
        source, *others = shortened(answer.prediction.answers, None, unit=True).astype(np.float64)
        return sent([float(source @ other) for other in others], answer)


class _PredictParameters(msgspec.Struct):
    top_k: int | None = None


class _PredictRequest(_Cut):
    inputs: Any
    raw_scores: bool | None = None
    parameters: _PredictParameters | None = None

    @property
    def top(self) -> int | None:
        """So many labels are told; ``None``: all."""
        return None if self.parameters is None else self.parameters.top_k


class Predict(_TeiCodec):
    """``/predict``: texts to the probability of every label, the likeliest first."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read one text or pair, or a list of lists of one or two: a batch."""
        asked: _PredictRequest = decoded(request, _PredictRequest)
        self._check(asked)
        if asked.top is not None and asked.top < 1:
            raise InputError("invalid_parameter", "top_k must be at least 1, or left out for all")
        if asked.raw_scores:
            raise InputError(
                "invalid_parameter",
                "raw_scores are not known: every exit answers with probabilities",
            )
        inputs = asked.inputs
        if isinstance(inputs, list) and all(isinstance(one, str) for one in inputs):
            if not 1 <= len(inputs) <= 2:
                raise InputError(
                    "wrong_type",
                    "a list of strings is one text or a pair; send a batch as a list of lists, "
                    '[["first"], ["second"]]',
                )
            return ParsedRequest(
                self._rows.texts([_one(inputs)], "inputs"), None, partial(self._encode, asked, True)
            )
        if isinstance(inputs, list) and inputs and all(map(_is_row, inputs)):
            rows = self._rows.texts([_one(one) for one in inputs], "inputs")
            return ParsedRequest(rows, None, partial(self._encode, asked, False))
        read, alone = self._rows.read(inputs, "inputs")
        return ParsedRequest(read, None, partial(self._encode, asked, alone))

    def _encode(self, asked: _PredictRequest, alone: bool, answer: Answer) -> Reply:
        told = [self._ranked(row)[: asked.top] for row in answer.prediction.answers]
        return sent(told[0] if alone else told, answer)

    def _ranked(self, row: NDArray[np.float32]) -> list[dict[str, object]]:
        names = label_names(self._manifest.task)
        order = np.argsort(-row, kind="stable").tolist()
        return [{"score": float(row[i]), "label": names[i]} for i in order]


def _is_row(value: object) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= 2
        and all(isinstance(one, str) for one in value)
    )


def _one(texts: list[str]) -> object:
    return texts[0] if len(texts) == 1 else tuple(texts)


class _RerankRequest(_Cut):
    query: str
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None


class Rerank(_TeiCodec):
    """``/rerank``: texts by how well they go with a query, the best first."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read the query and its texts: a pair each."""
        asked: _RerankRequest = decoded(request, _RerankRequest)
        self._check(asked)
        rows = self._rows.texts([(asked.query, text) for text in asked.texts], "texts")
        return ParsedRequest(rows, None, partial(self._encode, asked))

    def _encode(self, asked: _RerankRequest, answer: Answer) -> Reply:
        raw = answer.prediction.answers[:, 0]
        scores = raw.astype(np.float64) if asked.raw_scores else sigmoid(raw)
        ranks = []
        # By what the network says: the sigmoid of large scores is 1, and they would be equal.
        for i in ranked(raw).tolist():
            rank: dict[str, object] = {"index": i}
            if asked.return_text:
                rank["text"] = asked.texts[i]
            ranks.append(rank | {"score": float(scores[i])})
        return sent(ranks, answer)


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logistic function of scores, exact also where it is almost 0."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -scores.astype(np.float64))))


class _TokenizeRequest(msgspec.Struct):
    inputs: str | list[str]
    add_special_tokens: bool | None = None
    prompt_name: None = None


class Tokenize(_TeiCodec):
    """``/tokenize``: the tokens of texts. The network does not run."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read texts."""
        asked: _TokenizeRequest = decoded(request, _TokenizeRequest)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        values = self._rows.texts(texts, "inputs")
        return ParsedRequest(values, None, _never, tokenize=asked.add_special_tokens is not False)


def _never(answer: Answer) -> Reply:
    raise AssertionError("tokens are answered before anything runs")
