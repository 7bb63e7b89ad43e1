"""JSON Schema of rows, replies and errors, for the document at ``/openapi.json``.

Each protocol says what it takes in a file beside its decoder; the test that generates requests from
these schemas holds the two together. What a schema cannot say (that the inputs of one request have
equally many rows, that ``data`` fits ``shape``) is said in the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from skipserve.artifacts.certificates import MEASURES
from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.messages import JSON
from skipserve.signature import TensorSpec
from skipserve.slices import LONGEST
from skipserve.tasks import Task

# JSON Schema of draft 2020-12, as OpenAPI 3.1 takes it.
Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
BINARY = "application/octet-stream"


@dataclass(frozen=True)
class ProtocolSchema:
    """What a protocol takes and gives for one model.

    Attributes:
        requests: By media type.
        replies: By media type.
        example: A request that is answered.
        words: What no schema says, in Markdown.
        headers: That a request may have, by name; of the reply's own kind.
    """

    requests: dict[str, Schema]
    replies: dict[str, Schema]
    example: object
    words: str
    headers: dict[str, tuple[Schema, str]] = field(default_factory=dict)


def object_of(
    fields: dict[str, Schema], optional: Sequence[str] = (), *, open_: bool = False
) -> Schema:
    """An object of fields, all of them required but those named.

    Args:
        fields: By name.
        optional: Names of those that may be left out.
        open_: Whether other fields may stand beside them.
    """
    made: Schema = {"type": "object", "properties": fields}
    required = [name for name in fields if name not in optional]
    if required:
        made["required"] = required
    return made if open_ else made | {"additionalProperties": False}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of so many items."""
    made: Schema = {"type": "array", "items": items}
    if least:
        made["minItems"] = least
    return made if most is None else made | {"maxItems": most}


def row(spec: TensorSpec) -> Schema:
    """One row of an input: nested lists of its numbers."""
    made = number(spec)
    for size in reversed(spec.row_shape):
        made = list_of(made, 1) if isinstance(size, str) else list_of(made, size, size)
    return made


def number(spec: TensorSpec) -> Schema:
    """One number of an input."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return NUMBER | {"minimum": -largest, "maximum": largest}
    if dtype.kind == "b":
        return {"anyOf": [FLAG, {"type": "integer", "enum": [0, 1]}]}
    if spec.count is not None:
        return {"type": "integer", "minimum": 0, "maximum": spec.count - 1}
    limits = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def answer(manifest: Manifest) -> Schema:
    """What native and V1 replies say of a row."""
    optional: list[str] = []
    fields = output_schema(manifest.task)
    fields["depth_run"] = {"type": "integer", "minimum": 0, "maximum": manifest.depth}
    if manifest.router is not None:
        fields["held_back"] = FLAG
        optional = ["held_back"]
    return object_of(fields, optional)


def output_schema(task: Task) -> dict[str, Schema]:
    """What replies say of an answer, by field."""
    probability = NUMBER | {"minimum": 0, "maximum": 1}
    label: Schema = {"type": "integer", "minimum": 0, "maximum": task.width - 1}
    numbers = NUMBER if task.output != "probabilities" else probability
    fields: dict[str, Schema] = {task.output: list_of(numbers, task.width, task.width)}
    if task.kind == "score":
        return {task.output: NUMBER}
    if task.kind == "classify":
        fields["label"] = label
        if task.names:
            fields["name"] = {"enum": list(task.names)}
    if task.kind == "multilabel":
        fields["labels"] = list_of(label, 0, task.width)
        if task.names:
            fields["names"] = list_of({"enum": list(task.names)}, 0, task.width)
    return fields


def parameters(manifest: Manifest) -> Schema:
    """What native and V1 requests may ask for beside their rows."""
    risk = object_of({"risk": RISK, "measure": {"enum": list(MEASURES)}}, ["measure"])
    asked: list[Schema] = [{"enum": ["off", None]}]
    if manifest.router is not None:
        asked = [{"enum": ["on", "off", None]}, risk]
    fields: dict[str, Schema] = {"router": {"anyOf": asked}}
    if parameter := manifest.slices.parameter:
        fields[parameter] = or_null(SLICE)
    return or_null(object_of(fields, list(fields)))


# Which slice of the traffic a request is of.
SLICE: Schema = TEXT | {"maxLength": LONGEST}
# Of the router's answers that differ.
RISK: Schema = NUMBER | {"exclusiveMinimum": 0, "exclusiveMaximum": 1}

NATIVE_ERROR = object_of(
    {
        "error": object_of(
            {"code": TEXT, "message": TEXT, "row": {"type": "integer", "minimum": 0}}, ["row"]
        )
    }
)
TEXT_ERROR = object_of({"error": TEXT})


def in_json(schema: Schema) -> dict[str, Schema]:
    """A body that is JSON and nothing else."""
    return {JSON: schema}


def short(value: Any) -> Any:
    """An example's numbers with four digits, which are as good and easier to read."""
    if isinstance(value, list | tuple):
        return [short(one) for one in value]
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
