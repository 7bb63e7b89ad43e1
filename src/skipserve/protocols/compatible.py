"""Endpoints of other servers that a model answers too, by what its task is.

Which of them fit: text-embeddings-inference's and OpenAI's are for texts or their tokens. Bodies
are byte for byte what those servers' clients know; how deep a row ran, and the risk in force, stand
in headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.messages import Codec, Reply
from skipserve.protocols.openai import Classifications, Embeddings, OpenAI, Pooling, Scores
from skipserve.protocols.openai import refuse as refuse_openai
from skipserve.protocols.rerank import Ranking
from skipserve.protocols.tei import Embed, Predict, Rerank, Similarity, Tokenize
from skipserve.protocols.tei import refuse as refuse_tei
from skipserve.protocols.texts import reads_texts

_EVERY = ("classify", "multilabel", "regress", "embed", "score")


@dataclass(frozen=True)
class Endpoint:
    """One of them.

    Attributes:
        path: Where it is.
        family: Whose clients ask it.
        kinds: Tasks that it fits.
        speaks: What reads and answers it.
        does: What it is for, in a few words.
        takes_tokens: Whether token ids do where a model has no tokenizer.
    """

    path: str
    family: Literal["tei", "openai"]
    kinds: tuple[str, ...]
    speaks: type[Embed | Similarity | Predict | Rerank | Tokenize | OpenAI | Ranking]
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
# What a client asks that knows a server's address and nothing else: by the task.
ROOT = {
    "embed": "tei.embed",
    "classify": "tei.predict",
    "multilabel": "tei.predict",
    "score": "tei.rerank",
}


def compatible_codecs(manifest: Manifest, max_rows: int) -> dict[str, Codec]:
    """What a model speaks beside its own protocols, by name."""
    return {
        name: one.speaks(manifest, max_rows)
        for name, one in ENDPOINTS.items()
        if one.fits(manifest)
    }


def family_at(path: str) -> str:
    """Whose errors a path answers with; empty where they are none of these."""
    if path in ("/", "/info"):
        return "tei"
    return next((one.family for one in ENDPOINTS.values() if one.path == path), "")


def kinds_at(path: str) -> tuple[str, ...]:
    """Tasks that a path is for; none where it is none of these."""
    return next((one.kinds for one in ENDPOINTS.values() if one.path == path), ())


def refuse(family: str, error: InputError) -> Reply:
    """The error body of a family."""
    return refuse_openai(error) if family == "openai" else refuse_tei(error)
