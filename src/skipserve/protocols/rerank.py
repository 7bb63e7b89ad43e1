"""``/v1/rerank`` of vLLM, as Jina's and Cohere's clients ask it.

Source: vLLM's documentation of its re-rank API; Jina's API reference. ``/rerank`` without a version
is text-embeddings-inference's (tei.py), whose fields have other names.
"""

from __future__ import annotations

from functools import partial

import msgspec

from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.messages import ParsedRequest, RawRequest, Reply
from skipserve.protocols.openai import OpenAICodec, Options, relevance
from skipserve.protocols.tei import decoded, sent
from skipserve.protocols.texts import token_count
from skipserve.tasks import ranked


class _Document(msgspec.Struct):
    text: str


class _Request(Options):
    query: str
    documents: list[str | _Document]
    top_n: int | None = None
    return_documents: bool = True
    model: str | None = None


class Ranking(OpenAICodec):
    """Documents by their relevance to a query, the most relevant first."""

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read the query and its documents: a pair each.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        ranking: _Request = decoded(request, _Request)
        self._rows.check_cut(ranking.truncation_side, "truncation_side")
        if ranking.top_n is not None and ranking.top_n < 1:
            raise InputError("invalid_parameter", "top_n must be at least 1, or left out for all")
        texts = [one if isinstance(one, str) else one.text for one in ranking.documents]
        if not texts:
            raise InputError("empty", "documents holds no text; send at least one")
        rows = self._rows.texts([(ranking.query, text) for text in texts], "documents")
        return ParsedRequest(rows, None, partial(self._encode, ranking, texts, request.id))

    def _encode(self, ranking: _Request, texts: list[str], name: str, answer: Answer) -> Reply:
        raw = answer.prediction.answers[:, 0]
        scores, results = relevance(raw, ranking), []
        for i in ranked(raw)[: ranking.top_n].tolist():
            result: dict[str, object] = {"index": i}
            if ranking.return_documents:
                result["document"] = {"text": texts[i]}
            results.append(result | {"relevance_score": float(scores[i])})
        body = {
            "id": f"rerank-{name}",
            "model": self._manifest.name,
            "usage": {"total_tokens": token_count(answer.rows, self._manifest)},
            "results": results,
        }
        return sent(body, answer)
