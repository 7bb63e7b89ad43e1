"""The OpenAPI 3.1 document of a service: its table of routes, in words and schemas.

Source: the OpenAPI Specification 3.1.1. The paths are those of the table and no others; what a
model takes and gives is said by its protocols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.hosts.access import OPEN
from skipserve.hosts.models import Model
from skipserve.hosts.routes import Infer, Route, has_text_errors
from skipserve.protocols.compatible import ENDPOINTS, family_at
from skipserve.protocols.compatible_schemas import COMPATIBLE, OPENAI_ERROR, TEI_ERROR
from skipserve.protocols.deadline import PATTERN
from skipserve.protocols.messages import ASK_AGAIN, Reply
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_schemas import oip
from skipserve.protocols.schemas import (
    NATIVE_ERROR,
    SLICE,
    TEXT,
    TEXT_ERROR,
    ProtocolSchema,
    Schema,
    in_json,
    object_of,
)
from skipserve.slices import HEADER as SLICE_HEADER
from skipserve.slices import OTHER
from skipserve.versions import version_of

SPOKEN: dict[str, Callable[..., ProtocolSchema]] = {"": native, "v1": v1, "oip": oip, **COMPATIBLE}
_TITLES = {"": "native protocol", "v1": "V1", "oip": "Open Inference Protocol"}
_FAMILIES = {"tei": "text-embeddings-inference", "openai": "OpenAI"}
_ERRORS = {
    400: "The request is wrong: what was, and what was expected.",
    408: "The body did not come in time.",
    413: "More rows or bytes than are answered at once.",
    415: "A media type or a content encoding that is not supported.",
    500: "The server failed; its log says why, by X-Request-ID.",
    503: "Too many requests wait, or this one waited too long.",
    504: "The time that the request allows passed before it could run; it was not run.",
}
_KEY_ERRORS = {
    401: "No key was shown.",
    403: "The key is not known, or not any more.",
    429: "This key asked too often.",
}
_KEYS: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_HEADERS: dict[str, Any] = {
    "X-Request-ID": {"description": "The request's name in the log.", "schema": TEXT},
    "Server-Timing": {
        "description": "Milliseconds spent on decoding and on inference.",
        "schema": TEXT,
    },
    "X-Skipserve-Risk": {
        "description": "The certified risk that was in force; absent at full depth.",
        "schema": TEXT,
    },
    "Retry-After": {
        "description": "Seconds after which it is worth asking again.",
        "schema": TEXT | {"pattern": "^[0-9]+$"},
    },
    "Inference-Header-Content-Length": {
        "description": "Bytes of the JSON, where a tensor's bytes follow it.",
        "schema": TEXT | {"pattern": "^[0-9]+$"},
    },
}
_PARAMETERS: dict[str, Any] = {
    "X-Request-Timeout": {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "How long the request may take, in seconds (`1.5`) or as gRPC writes it "
        "(`150m`, `2S`); one that cannot begin within it is not run. `grpc-timeout` is the same.",
        "schema": TEXT | {"pattern": PATTERN},
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


def document(
    routes: Sequence[Route], models: Mapping[str, Model], keyed: bool = False
) -> dict[str, Any]:
    """Describe routes.

    Args:
        routes: All of a service.
        models: Those that answer some of them, by name.
        keyed: Whether clients must show a key.
    """
    errors = dict(sorted((_ERRORS | (_KEY_ERRORS if keyed else {})).items()))
    parts: dict[str, dict[str, Any]] = {
        "schemas": {
            "error.native": NATIVE_ERROR,
            "error.text": TEXT_ERROR,
            "error.tei": TEI_ERROR,
            "error.openai": OPENAI_ERROR,
        },
        "responses": {
            f"{shape}.{status}": _refusal(shape, status, words)
            for shape in ("native", "text", "tei", "openai")
            for status, words in errors.items()
        },
        "examples": {},
        "headers": _HEADERS,
        "parameters": {"X-Request-ID": _REQUEST_ID, **_PARAMETERS},
    }
    if keyed:
        parts["securitySchemes"] = _KEYS
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        told = _predicts if isinstance(route.endpoint, Infer) else _tells
        operation = {"operationId": _name(route), "tags": [route.model or "service"]}
        if keyed and route.path in OPEN:
            operation["security"] = []
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
    } | ({"security": [{name: []} for name in _KEYS]} if keyed else {})


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
    headers = ["X-Request-ID", "Server-Timing", "X-Skipserve-Risk", *spoken.headers]
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
            *(_to("parameters", name) for name in ("X-Request-ID", *_PARAMETERS)),
            *(
                {"name": name, "in": "header", "description": words, "schema": schema}
                for name, (schema, words) in spoken.headers.items()
            ),
            *_slice(manifest),
        ],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": answered, **_refusals(route.path, parts)},
    }


def _slice(manifest: Manifest) -> list[dict[str, Any]]:
    parameter = manifest.slices.parameter
    words = (
        f"What `{parameter}` says in `parameters`, for bodies that have no place for it. Each of "
        f"{', '.join(manifest.slices.values)} has certificates of its own; all else is `{OTHER}`."
    )
    header = {"name": SLICE_HEADER, "in": "header", "description": words, "schema": SLICE}
    return [header] if parameter else []


def _title(protocol: str) -> str:
    if protocol in _TITLES:
        return _TITLES[protocol]
    return _FAMILIES[ENDPOINTS[protocol].family]


def _plain(name: str) -> str:
    # Components may not be called NAME@VERSION.
    return name.replace("@", ".v")


def _refusals(path: str, parts: _Parts) -> dict[str, Any]:
    begins = (family_at(path) or ("text" if has_text_errors(path) else "native")) + "."
    return {
        name.removeprefix(begins): _to("responses", name)
        for name in parts["responses"]
        if name.startswith(begins)
    }


def _refusal(shape: str, status: int, words: str) -> dict[str, Any]:
    error: Schema = _to("schemas", f"error.{shape}")
    if shape == "native":  # there, a body may be one of the other protocols, too
        error = {"anyOf": [error, _to("schemas", "error.text")]}
    headers = ["X-Request-ID", *(["Retry-After"] if status in ASK_AGAIN else [])]
    return {
        "description": words,
        "headers": {name: _to("headers", name) for name in headers},
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
