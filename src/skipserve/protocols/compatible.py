"""Endpoints of other servers, for models whose task fits.

The endpoints of text-embeddings-inference, OpenAI and vLLM take texts or token ids. Bodies are byte
for byte those of the other server. The depth of each row and the risk in force stand in headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.messages import Codec, Reply
from skipserve.protocols.openai import Classifications, Embeddings, Pooling, Scores
from skipserve.protocols.openai import refuse as refuse_openai
from skipserve.protocols.rerank import Ranking
from skipserve.protocols.tei import Embed, Predict, Rerank, Similarity, Tokenize
from skipserve.protocols.tei import refuse as refuse_tei
from skipserve.protocols.texts import reads_texts

_EVERY = ("classify", "multilabel", "regress", "embed", "score")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint of another server.

    Attributes:
        path: Of the endpoint.
        family: Whose errors it answers with.
        kinds: Tasks that it fits.
        codec: Makes the codec of a model from its manifest and the most rows of a request.
        does: A summary for the OpenAPI document.
        takes_tokens: Whether token ids are enough for a model without a tokenizer.
    """

    path: str
    family: Literal["tei", "openai"]
    kinds: tuple[str, ...]
    codec: Callable[[Manifest, int], Codec]
    does: str
    takes_tokens: bool = True

    def fits(self, manifest: Manifest) -> bool:
        """Whether a model can answer it."""
        if manifest.task.kind not in self.kinds or not reads_texts(manifest):
            return False
        return self.takes_tokens or manifest.text is not None


ENDPOINTS: Mapping[str, Endpoint] = {
    "tei.embed": Endpoint("/embed", "tei", ("embed",), Embed, "Embed texts"),
    "tei.similarity": Endpoint(
        "/similarity", "tei", ("embed",), Similarity, "Compare texts", False
    ),
    "tei.predict": Endpoint(
        "/predict", "tei", ("classify", "multilabel"), Predict, "Classify texts"
    ),
    "tei.rerank": Endpoint("/rerank", "tei", ("score",), Rerank, "Rank texts", False),
    "tei.tokenize": Endpoint("/tokenize", "tei", _EVERY, Tokenize, "Tokenize texts", False),
    "openai.embeddings": Endpoint(
        "/v1/embeddings", "openai", ("embed",), Embeddings, "Embed texts"
    ),
    "vllm.classify": Endpoint(
        "/classify", "openai", ("classify", "multilabel"), Classifications, "Classify texts"
    ),
    "vllm.score": Endpoint("/score", "openai", ("score",), Scores, "Score pairs", False),
    "vllm.rerank": Endpoint("/v1/rerank", "openai", ("score",), Ranking, "Rank texts", False),
    "vllm.pooling": Endpoint("/pooling", "openai", _EVERY, Pooling, "Answers of texts"),
}
# The endpoint behind ``POST /``, by the task of the model.
ROOT = {
    "embed": "tei.embed",
    "classify": "tei.predict",
    "multilabel": "tei.predict",
    "score": "tei.rerank",
}


def compatible_codecs(manifest: Manifest, max_rows: int) -> dict[str, Codec]:
    """The codecs of other servers' endpoints that a model can answer, by name."""
    return {
        name: one.codec(manifest, max_rows) for name, one in ENDPOINTS.items() if one.fits(manifest)
    }


def family_at(path: str) -> str:
    """The family whose errors a path answers with; empty for paths of no such endpoint."""
    if path in ("/", "/info"):
        return "tei"
    return next((one.family for one in ENDPOINTS.values() if one.path == path), "")


def kinds_at(path: str) -> tuple[str, ...]:
    """Tasks that a path is for; empty for paths of no such endpoint."""
    return next((one.kinds for one in ENDPOINTS.values() if one.path == path), ())


def refuse(family: str, error: InputError) -> Reply:
    """The error body of a family."""
    return refuse_openai(error) if family == "openai" else refuse_tei(error)
