"""The page of the HTTP API, from the document that a service gives at /openapi.json.

A service describes its own models. Here stand in their place one model of rows and one of texts
for each task that other servers' endpoints know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from skipserve.artifacts.manifest import Manifest
from skipserve.hosts.models import Model
from skipserve.hosts.openapi import document
from skipserve.hosts.routes import routes_of
from skipserve.service.batcher import Batcher

MODEL = "MODEL"
HEAD = """\
# HTTP API

Generated from the OpenAPI document of the package. A service describes its own models at
`/openapi.json`. Here `MODEL` is a model of rows of two numbers, and `TEXTS_…` are models of texts.
[What clients may send](protocols.md) explains the protocols.

## Routes

Each model also answers below `/versions/{version}` of its v1 and v2 paths, and at
`/predictions/{model}/{version}`.
"""
ERRORS = """\
## Errors

The native protocol has `{"error": {"code", "message", "row"}}`. V1 and the Open Inference Protocol
have `{"error": "[code] message"}`. Endpoints of other servers have those servers' own bodies.

| status | meaning |
|---|---|"""
_HASH = "0" * 64
_FILES: dict[str, Any] = {
    "source": {"kind": "onnx", "name": "net.onnx", "sha256": _HASH},
    "depth": 12,
    "residual": True,
    "opset": 20,
    "files": [],
    "parity": [],
    "largest_activation": 1.0,
    "versions": {},
}
_ROWS: dict[str, Any] = {
    "signature": {
        "inputs": [{"name": "inputs", "dtype": "float32", "shape": ["batch", 2]}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": ["batch", 2]}],
    },
    "task": {"kind": "classify", "classes": 2},
    "example": {"inputs": {"inputs": [0.5, -0.25]}, "answer": [0.9, 0.1]},
}
_TASKS: dict[str, dict[str, Any]] = {
    "classify": {"classes": 2, "names": ["ham", "spam"]},
    "embed": {"dimensions": 2, "cosine": 0.99, "unit": True},
    "score": {"tolerance": 0.5},
}


def models() -> dict[str, Model]:
    """One of rows, and one of texts for each task; nobody asks them."""
    made = {MODEL: _manifest({"name": MODEL, **_FILES, **_ROWS})}
    for kind, task in _TASKS.items():
        name = f"TEXTS_{kind}"
        pair = kind == "score"
        tokens = ("input_ids", "attention_mask")
        text = {
            "signature": {
                "inputs": [
                    {"name": one, "dtype": "int64", "shape": ["batch", "length"]} for one in tokens
                ],
                "outputs": [{"name": "answer", "dtype": "float32", "shape": ["batch", 2]}],
                "mask": "attention_mask",
            },
            "task": {"kind": kind, **task},
            "preprocessing": {
                "kind": "text",
                "tokenizer": {"path": "tokenizer.json", "sha256": _HASH, "size_bytes": 1},
                "longest": 128,
            },
            "example": {
                "inputs": {one: [1] for one in tokens},
                "answer": [0.9, 0.1],
                "value": ["a question", "an answer"] if pair else "a text",
            },
        }
        made[name] = _manifest({"name": name, **_FILES, **text})
    return {name: Model(one, cast(Batcher, None), 1024) for name, one in made.items()}


def _manifest(content: dict[str, Any]) -> Manifest:
    return Manifest.model_validate_json(json.dumps(content))


def page() -> str:
    """The whole page."""
    known = models()
    told = document(list(routes_of(known, lambda: True)), known)
    parts = [HEAD]
    shown = {
        path: methods
        for path, methods in told["paths"].items()
        if "TEXTS_" not in path and "/versions/" not in path and not path.endswith(f"{MODEL}/1")
    }
    rows = [
        f"| `{method.upper()} {path}` | {operation['summary']} |"
        for path, methods in shown.items()
        for method, operation in methods.items()
    ]
    parts += ["| route | what it does |", "|---|---|", *rows, ""]
    for path, methods in shown.items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                parts += _operation(f"{method.upper()} {path}", operation, told["components"])
    parts += [ERRORS, *_errors(told["components"])]
    parts += ["## Headers", "", *_headers(told["components"])]
    return "\n".join(parts) + "\n"


def _operation(title: str, operation: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{operation['summary']}. {operation.get('description', '')}\n"
    for kind, content in operation["requestBody"]["content"].items():
        yield from _body(f"Request, `{kind}`", content, parts)
    for kind, content in operation["responses"]["200"]["content"].items():
        yield from _body(f"Reply, `{kind}`", content, parts)
    statuses = sorted(operation["responses"])
    yield f"Statuses: {', '.join(f'`{one}`' for one in statuses)}.\n"


def _body(title: str, content: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    for example in content.get("examples", {}).values():
        body = _found(example, parts)["value"]
        yield f"Example:\n\n```json\n{json.dumps(body, ensure_ascii=False)}\n```\n"
    schema = _found(content.get("schema", {}), parts)
    if not schema:
        yield f"{title}: bytes.\n"
        return
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    yield f"<details markdown><summary>{title}</summary>\n\n```json\n{text}\n```\n\n</details>\n"


def _errors(parts: dict[str, Any]) -> Iterator[str]:
    for name, response in parts["responses"].items():
        family, status = name.split(".")
        if family == "native":
            yield f"| {status} | {response['description']} |"
    yield ""


def _headers(parts: dict[str, Any]) -> Iterator[str]:
    yield "| header | in | meaning |\n|---|---|---|"
    for parameter in parts["parameters"].values():
        yield f"| `{parameter['name']}` | request | {parameter['description']} |"
    for name, header in parts["headers"].items():
        yield f"| `{name}` | reply | {header['description']} |"


def _found(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        kind, name = schema["$ref"].split("/")[-2:]
        found: dict[str, Any] = parts[kind][name]
        return found
    return schema
