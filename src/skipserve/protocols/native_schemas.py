"""What the native and the V1 protocol take and give, as JSON Schema."""

from __future__ import annotations

from skipserve.artifacts.certificates import MEASURES
from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.schemas import (
    FLAG,
    RISK,
    TEXT,
    ProtocolSchema,
    Schema,
    answer,
    in_json,
    list_of,
    object_of,
    parameters,
    row,
    short,
)

_SHAPES = "The rows of one request have one shape, and every input holds as many of them."

_VERSION = object_of(
    {
        "version": TEXT,
        "state": {"enum": ["AVAILABLE", "LOADING"]},
        "status": object_of({"error_code": TEXT, "error_message": TEXT}),
    }
)
# KServe's answer about a model, and TensorFlow Serving's beside it.
V1_STATUS = object_of({"name": TEXT, "ready": FLAG, "model_version_status": list_of(_VERSION, 1)})


def native(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``POST /predictions/{model}``."""
    inputs = manifest.signature.inputs
    named = object_of({spec.name: list_of(row(spec), 1, max_rows) for spec in inputs})
    rows = _or_named(manifest, named, list_of(row(inputs[0]), 1, max_rows), max_rows)
    request = object_of({"inputs": rows, "parameters": parameters(manifest)}, ["parameters"])
    fields: dict[str, Schema] = {
        "outputs": list_of(answer(manifest), 1, max_rows),
        "model": {"const": manifest.model},
        "depth": {"const": manifest.depth},
        "router": {"enum": ["off"] if manifest.router is None else ["on", "off"]},
    }
    optional = ["risk", "measure", "router_reason"]
    if manifest.router is not None:
        fields |= {"risk": RISK, "measure": {"enum": list(MEASURES)}, "router_reason": TEXT}
    example = {"inputs": short(manifest.example_request["inputs"])}
    return ProtocolSchema(
        in_json(request),
        in_json(object_of(fields, optional)),
        example,
        f"{_SHAPES} A request of the V1 or the Open Inference Protocol is answered here too, "
        "in its own protocol.",
    )


def v1(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``POST /v1/models/{model}:predict``."""
    inputs = manifest.signature.inputs
    named = object_of({spec.name: row(spec) for spec in inputs})
    bare = row(inputs[0])
    if manifest.preprocessing is not None:
        bare = manifest.preprocessing.schema_of_value
    alone = len(inputs) == 1 or manifest.preprocessing is not None
    instances = list_of({"anyOf": [bare, named]} if alone else named, 1, max_rows)
    signature = {"signature_name": {"enum": ["serving_default", "", None]}}
    others = {"parameters": parameters(manifest), **signature}
    by_column = native(manifest, max_rows)
    ((_, columns),) = by_column.requests.items()
    ((_, outputs),) = by_column.replies.items()
    columns = columns | {"properties": columns["properties"] | signature}
    ((_, example),) = manifest.example_request.items()
    first = example[0] if isinstance(example, list) else manifest.example.inputs
    request = object_of({"instances": instances, **others}, list(others))
    reply = object_of({"predictions": list_of(answer(manifest), 1, max_rows)})
    return ProtocolSchema(
        in_json({"anyOf": [request, columns]}),
        in_json({"anyOf": [reply, outputs]}),
        {"instances": [short(first)]},
        f"{_SHAPES} Instances (the row format) are answered with predictions, inputs (the column "
        "format) with outputs.",
    )


def _or_named(manifest: Manifest, named: Schema, bare: Schema, max_rows: int) -> Schema:
    # The only input of a model need not be named; values stand alone.
    if manifest.preprocessing is not None:
        values = list_of(manifest.preprocessing.schema_of_value, 1, max_rows)
        return {"anyOf": [values, named]}
    return {"anyOf": [bare, named]} if len(manifest.signature.inputs) == 1 else named
