"""JSON Schema of the endpoints of other servers."""

from __future__ import annotations

from collections.abc import Callable

from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.schemas import (
    FLAG,
    NUMBER,
    TEXT,
    ProtocolSchema,
    Schema,
    in_json,
    list_of,
    object_of,
    or_null,
)
from skipserve.protocols.texts import token_ids

_COUNT: Schema = {"type": "integer", "minimum": 0}
MODEL_LIST = object_of(
    {
        "models": list_of(TEXT),
        "object": {"const": "list"},
        "data": list_of(
            object_of(
                {"id": TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": TEXT}
            )
        ),
    }
)
INFO = object_of({"model_id": TEXT, "model_type": {"type": "object"}}, open_=True)
TEI_ERROR = object_of({"error": TEXT, "error_type": TEXT})
OPENAI_ERROR = object_of(
    {
        "error": object_of(
            {"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)}
        )
    }
)
_WORDS = (
    "Depth and risk stand in the headers `X-Skipserve-Depth` (blocks run, row by row) and "
    "`X-Skipserve-Risk` (absent at full depth). Where several models fit, `model` names one."
)


def _inputs(manifest: Manifest, max_rows: int) -> Schema:
    # A schema cannot say that token ids must be known to the model.
    tokens = list_of({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, 1)
    kinds = [tokens, list_of(tokens, 1, max_rows)]
    if manifest.text is not None:
        kinds += [TEXT, list_of(TEXT, 1, max_rows)]
    return {"anyOf": kinds}


def _example(manifest: Manifest) -> object:
    if manifest.text is not None and isinstance(manifest.example.value, str):
        return [manifest.example.value]
    return [manifest.example.inputs[token_ids(manifest)]]


def _schema_of(
    manifest: Manifest, fields: dict[str, Schema], required: str, example: object, reply: Schema
) -> ProtocolSchema:
    optional = {"model": or_null(TEXT)}
    request = object_of(fields | optional, [*optional, *fields.keys() - {required}], open_=True)
    return ProtocolSchema(in_json(request), in_json(reply), {required: example}, _WORDS)


def _vectors(manifest: Manifest) -> Schema:
    return list_of(NUMBER, 1, manifest.task.width)


def _cut(manifest: Manifest) -> dict[str, Schema]:
    """Fields about long texts: they are cut on one side, and may be asked to be."""
    sides = ["Left", "Right", "left", "right"]
    if manifest.text is not None:
        sides = [manifest.text.truncation.capitalize(), manifest.text.truncation]
    direction = or_null({"type": "string", "enum": sides})
    return {"truncate": or_null(FLAG), "truncation_direction": direction}


def embed(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/embed``."""
    fields = {
        "inputs": _inputs(manifest, max_rows),
        "normalize": or_null(FLAG),
        **_cut(manifest),
    }
    reply = list_of(_vectors(manifest), 1, max_rows)
    return _schema_of(manifest, fields, "inputs", _example(manifest), reply)


def predict(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/predict``."""
    one = list_of(object_of({"score": NUMBER, "label": TEXT}))
    fields = {"inputs": _inputs(manifest, max_rows), **_cut(manifest)}
    reply = {"anyOf": [one, list_of(one)]}
    return _schema_of(manifest, fields, "inputs", _example(manifest), reply)


def rerank(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/rerank``."""
    flags = {name: or_null(FLAG) for name in ("raw_scores", "return_text")} | _cut(manifest)
    request = object_of(
        {"query": TEXT, "texts": list_of(TEXT, 1, max_rows), "model": or_null(TEXT)} | flags,
        ["model", *flags],
        open_=True,
    )
    reply = list_of(object_of({"index": _COUNT, "text": TEXT, "score": NUMBER}, ["text"]), 1)
    example = {"query": "great film", "texts": ["dull", "great"]}
    return ProtocolSchema(in_json(request), in_json(reply), example, _WORDS)


def similarity(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/similarity``."""
    sentences = list_of(TEXT, 1, max_rows - 1)
    inputs = object_of({"source_sentence": TEXT, "sentences": sentences}, open_=True)
    sent = {"source_sentence": "great film", "sentences": ["dull"]}
    fields = {"inputs": inputs}
    return _schema_of(manifest, fields, "inputs", sent, list_of(NUMBER, 1, max_rows))


def ranking(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/v1/rerank``."""
    document = object_of({"text": TEXT}, open_=True)
    documents = list_of({"anyOf": [TEXT, document]}, 1, max_rows)
    optional = {"top_n": or_null({"type": "integer", "minimum": 1}), "return_documents": FLAG}
    optional |= {"model": or_null(TEXT)}
    request = object_of({"query": TEXT, "documents": documents} | optional, [*optional], open_=True)
    result = object_of({"index": _COUNT, "document": document, "relevance_score": NUMBER})
    result["required"] = ["index", "relevance_score"]
    usage = object_of({"total_tokens": _COUNT})
    fields = {"id": TEXT, "model": TEXT, "usage": usage, "results": list_of(result, 1)}
    example = {"query": "great film", "documents": ["dull", "great"]}
    return ProtocolSchema(in_json(request), in_json(object_of(fields)), example, _WORDS)


def tokenize(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/tokenize``."""
    place = or_null(_COUNT)
    token = object_of({"id": _COUNT, "text": TEXT, "special": FLAG, "start": place, "stop": place})
    fields = {
        "inputs": {"anyOf": [TEXT, list_of(TEXT, 1, max_rows)]},
        "add_special_tokens": or_null(FLAG),
    }
    return _schema_of(manifest, fields, "inputs", ["great film"], list_of(list_of(token), 1))


def _listed(item: Schema) -> Schema:
    usage = object_of({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
    return object_of(
        {
            "id": TEXT,
            "object": {"const": "list"},
            "created": _COUNT,
            "model": TEXT,
            "data": list_of(item, 1),
            "usage": usage,
        }
    )


def _pooled(word: str) -> Callable[[Manifest, int], ProtocolSchema]:
    def spoken(manifest: Manifest, max_rows: int) -> ProtocolSchema:
        formats = or_null({"enum": ["float", "base64"]})
        fields = {"input": _inputs(manifest, max_rows), "encoding_format": formats}
        vector = {"anyOf": [_vectors(manifest), TEXT]}
        item = object_of({"object": TEXT, "index": _COUNT, word: vector})
        return _schema_of(manifest, fields, "input", _example(manifest), _listed(item))

    return spoken


def classify(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/classify``."""
    item = object_of(
        {"index": _COUNT, "label": TEXT, "probs": _vectors(manifest), "num_classes": _COUNT}
    )
    fields = {"input": _inputs(manifest, max_rows)}
    return _schema_of(manifest, fields, "input", _example(manifest), _listed(item))


def score(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``/score``."""
    texts = {"anyOf": [TEXT, list_of(TEXT, 1, max_rows)]}
    request = object_of(
        {"text_1": texts, "text_2": texts, "model": or_null(TEXT)}, ["model"], open_=True
    )
    item = object_of({"index": _COUNT, "object": TEXT, "score": NUMBER})
    example = {"text_1": "great film", "text_2": ["dull", "great"]}
    return ProtocolSchema(in_json(request), in_json(_listed(item)), example, _WORDS)


COMPATIBLE: dict[str, Callable[[Manifest, int], ProtocolSchema]] = {
    "tei.embed": embed,
    "tei.similarity": similarity,
    "tei.predict": predict,
    "tei.rerank": rerank,
    "tei.tokenize": tokenize,
    "openai.embeddings": _pooled("embedding"),
    "vllm.classify": classify,
    "vllm.score": score,
    "vllm.rerank": ranking,
    "vllm.pooling": _pooled("data"),
}
