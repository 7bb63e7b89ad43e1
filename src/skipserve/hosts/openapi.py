"""The OpenAPI 3.1 document of a service: its table of routes, in words and schemas.

Source: the OpenAPI Specification 3.1.1. The paths are those of the table and no others; what a
model takes and gives is said by its protocols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from skipserve.hosts.models import Model
from skipserve.hosts.routes import Infer, Route, speaks_text
from skipserve.protocols.compatible import ENDPOINTS, family_at
from skipserve.protocols.compatible_schemas import COMPATIBLE, OPENAI_ERROR, TEI_ERROR
from skipserve.protocols.messages import Reply
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_schemas import oip
from skipserve.protocols.schemas import (
    NATIVE_ERROR,
    TEXT,
    TEXT_ERROR,
    Schema,
    Spoken,
    in_json,
    object_of,
)
from skipserve.versions import version_of

SPOKEN: dict[str, Callable[..., Spoken]] = {"": native, "v1": v1, "oip": oip, **COMPATIBLE}
_TITLES = {"": "native protocol", "v1": "V1", "oip": "Open Inference Protocol"}
_FAMILIES = {"tei": "text-embeddings-inference", "openai": "OpenAI"}
_ERRORS = {
    400: "The request is wrong: what was, and what was expected.",
    413: "More rows or bytes than are answered at once.",
    415: "A media type or a content encoding that is not supported.",
    500: "The server failed; its log says why, by X-Request-ID.",
    503: "Too many requests wait, or this one waited too long.",
}
_HEADERS: dict[str, Any] = {
    "X-Request-ID": {"description": "The request's name in the log.", "schema": TEXT},
    "Server-Timing": {
        "description": "Milliseconds spent on decoding and on inference.",
        "schema": TEXT,
    },
    "Inference-Header-Content-Length": {
        "description": "Bytes of the JSON, where a tensor's bytes follow it.",
        "schema": TEXT | {"pattern": "^[0-9]+$"},
    },
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "A name for the request, taken over if it is short and plain "
    "(letters, digits, `._~:/+=@-`, at most 128).",
    "schema": TEXT,
}


# Bytes of an example: longer ones stand once for all protocols, the longest nowhere.
_LONG, _LONGEST = 1000, 20_000
_Parts: TypeAlias = dict[str, dict[str, Any]]


def document_route(endpoint: Callable[[], Reply]) -> Route:
    """Where the document is."""
    says = object_of({"openapi": TEXT, "paths": {"type": "object"}}, open_=True)
    return Route("GET", "/openapi.json", endpoint, "This document", says)


def document(routes: Sequence[Route], models: Mapping[str, Model]) -> dict[str, Any]:
    """Describe routes.

    Args:
        routes: All of a service.
        models: Those that answer some of them, by name.
    """
    parts: dict[str, dict[str, Any]] = {
        "schemas": {
            "error.native": NATIVE_ERROR,
            "error.text": TEXT_ERROR,
            "error.tei": TEI_ERROR,
            "error.openai": OPENAI_ERROR,
        },
        "responses": {
            f"{shape}.{status}": _refusal(shape, words)
            for shape in ("native", "text", "tei", "openai")
            for status, words in _ERRORS.items()
        },
        "examples": {},
        "headers": _HEADERS,
        "parameters": {"X-Request-ID": _REQUEST_ID},
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        told = _predicts if isinstance(route.endpoint, Infer) else _tells
        operation = {"operationId": _name(route), "tags": [route.model or "service"]}
        paths.setdefault(route.path, {})[route.method.lower()] = operation | told(route, parts)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "skipserve",
            "version": version_of("skipserve"),
            "description": "Models that run only as deep as each input needs. Bodies may be "
            "compressed with gzip or deflate; GET is answered to HEAD too. An integer is written "
            "without a point: 1, not 1.0.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "service"}, *map(_tag, models.values())],
        "paths": paths,
        "components": parts,
    }


def _tag(model: Model) -> dict[str, str]:
    manifest = model.manifest
    router = "no router" if manifest.router is None else "a router"
    words = f"{manifest.depth} blocks, {manifest.task.kind} of {manifest.task.width}, {router}"
    return {"name": manifest.name, "description": words}


def _name(route: Route) -> str:
    return f"{route.method.lower()}_{re.sub(r'[^A-Za-z0-9]+', '_', route.path).strip('_')}"


def _tells(route: Route, parts: _Parts) -> dict[str, Any]:
    words = {200: "Yes, or what was asked for.", 503: "Not now."}
    said = {
        str(status): {"description": words[status], "content": _content(in_json(route.reply))}
        for status in route.statuses
    }
    return {"summary": route.summary, "responses": said}


def _predicts(route: Route, parts: _Parts) -> dict[str, Any]:
    infer = route.endpoint
    assert isinstance(infer, Infer)
    manifest, word = infer.model.manifest, infer.protocol or "native"
    spoken = SPOKEN[infer.protocol](manifest, infer.model.max_rows)
    called = f"{_plain(manifest.name)}.{word}"
    if infer.chosen is not None:
        called = f"any.{word}"
    request, reply = (
        {kind: _named(parts, f"{called}.{which}", schema) for kind, schema in bodies.items()}
        for which, bodies in (("request", spoken.requests), ("reply", spoken.replies))
    )
    headers = ["X-Request-ID", "Server-Timing", *spoken.headers]
    answered = {
        "description": "An answer for each row.",
        "headers": {name: _to("headers", name) for name in headers},
        "content": _content(reply),
    }
    body = _content(request)
    if example := _example(parts, called, spoken.example):
        next(iter(body.values()))["examples"] = {"row": example}
    return {
        "summary": f"{route.summary} ({_title(infer.protocol)})",
        "description": spoken.words,
        "parameters": [
            _to("parameters", "X-Request-ID"),
            *(
                {"name": name, "in": "header", "description": words, "schema": schema}
                for name, (schema, words) in spoken.headers.items()
            ),
        ],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": answered, **_refusals(route.path)},
    }


def _title(protocol: str) -> str:
    if protocol in _TITLES:
        return _TITLES[protocol]
    return _FAMILIES[ENDPOINTS[protocol].family]


def _plain(name: str) -> str:
    # Components may not be called NAME@VERSION.
    return name.replace("@", ".v")


def _refusals(path: str) -> dict[str, Any]:
    shape = family_at(path) or ("text" if speaks_text(path) else "native")
    return {str(status): _to("responses", f"{shape}.{status}") for status in _ERRORS}


def _refusal(shape: str, words: str) -> dict[str, Any]:
    error: Schema = _to("schemas", f"error.{shape}")
    if shape == "native":  # there, a body may be one of the other protocols, too
        error = {"anyOf": [error, _to("schemas", "error.text")]}
    return {
        "description": words,
        "headers": {"X-Request-ID": _to("headers", "X-Request-ID")},
        "content": _content(in_json(error)),
    }


# A path with a version takes what the one without does: both lead to the same parts.


def _named(parts: _Parts, name: str, schema: Schema) -> Schema:
    if not schema:  # bytes have none
        return schema
    parts["schemas"][name] = schema
    return _to("schemas", name)


def _example(parts: _Parts, name: str, example: object) -> dict[str, str]:
    """Where an example stands; those of long rows only in one protocol, the native one."""
    size = len(msgspec.json.encode(example))
    native = name.endswith(".native")
    if size > (_LONGEST if native else _LONG):
        return {}
    parts["examples"][name] = {"value": example}
    return _to("examples", name)


def _to(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _content(bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {kind: {"schema": schema} if schema else {} for kind, schema in bodies.items()}
