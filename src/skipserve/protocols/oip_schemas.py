"""What the Open Inference Protocol takes and gives, as JSON Schema."""

from __future__ import annotations

from skipserve.artifacts.certificates import MEASURES
from skipserve.artifacts.manifest import Manifest
from skipserve.protocols.messages import JSON
from skipserve.protocols.oip_replies import DATATYPES, HEADER_LENGTH, outputs_of
from skipserve.protocols.oip_tensors import BOOL, DTYPES, datatype_of
from skipserve.protocols.oip_values import BYTES
from skipserve.protocols.schemas import (
    BINARY,
    FLAG,
    NUMBER,
    RISK,
    SLICE,
    TEXT,
    ProtocolSchema,
    Schema,
    list_of,
    object_of,
    or_null,
    short,
)
from skipserve.signature import TensorSpec

_COUNT: Schema = {"type": "integer", "minimum": 0}
_SIZES: Schema = list_of({"type": "integer", "minimum": -1})
# A list of numbers, or of lists of them.
_DATA: Schema = list_of({"anyOf": [NUMBER, FLAG, {"type": "array"}]})
_BINARY = (
    "`data` holds as many numbers as `shape` says, flat or nested, and each is of the `datatype`. "
    "With the binary tensor extension (`application/octet-stream`) a tensor says "
    "`binary_data_size` in its `parameters` instead,"
    f" its bytes follow the JSON, and `{HEADER_LENGTH}` says how long the JSON is; 0 says that the "
    "body is the bytes of the only input. A field that is null is as good as left out."
)

SERVER_METADATA = object_of({"name": TEXT, "version": TEXT, "extensions": list_of(TEXT)})
_DESCRIBED = list_of(object_of({"name": TEXT, "datatype": TEXT, "shape": _SIZES}))
MODEL_METADATA = object_of(
    {
        "name": TEXT,
        "versions": list_of(TEXT, 1),
        "platform": TEXT,
        "inputs": _DESCRIBED,
        "outputs": _DESCRIBED,
    }
)
MODEL_READY = object_of({"name": TEXT, "ready": FLAG})


def oip(manifest: Manifest, max_rows: int) -> ProtocolSchema:
    """``POST /v2/models/{model}/infer``."""
    inputs = manifest.signature.inputs
    tensors = [_tensor(spec, max_rows) for spec in inputs]
    asked = list_of(
        object_of(
            {
                "name": {"enum": list(outputs_of(manifest.task))},
                "parameters": _parameters(binary_data=FLAG),
            },
            ["parameters"],
            open_=True,
        )
    )
    asking = {"binary_data_output": FLAG}
    if manifest.router is None:
        asking["router"] = {"enum": ["off"]}
    else:
        asking["router"] = {"anyOf": [{"enum": ["on", "off"]}, RISK]}
        asking["router_measure"] = {"enum": list(MEASURES)}
    if parameter := manifest.slices.parameter:
        asking[parameter] = SLICE
    request = object_of(
        {
            "inputs": _or_values(manifest, _each_once(tensors), max_rows),
            "id": or_null(TEXT),
            "parameters": _parameters(**asking),
            "outputs": or_null(asked),
        },
        ["id", "parameters", "outputs"],
        open_=True,
    )
    return ProtocolSchema(
        {JSON: request, BINARY: {}},
        {JSON: _reply(manifest), BINARY: {}},
        {"inputs": _examples(manifest)},
        _BINARY,
        {HEADER_LENGTH: (_COUNT, "Bytes of the JSON, if a tensor's bytes follow it.")},
    )


def _or_values(manifest: Manifest, tensors: Schema, max_rows: int) -> Schema:
    """Tensors of the network, or the one tensor of texts or pictures."""
    preprocessing = manifest.preprocessing
    if preprocessing is None:
        return tensors
    sizes = [
        {"type": "integer", "minimum": 1, "maximum": most}
        for most in (max_rows, preprocessing.widest)
    ]
    values = object_of(
        {
            "name": {"const": preprocessing.name},
            "datatype": {"const": BYTES},
            "shape": {"type": "array", "prefixItems": sizes, "minItems": 1, "maxItems": 2},
            "data": list_of({"anyOf": [TEXT, list_of(TEXT)]}),
            "parameters": or_null({"type": "object"}),
        },
        ["parameters"],
        open_=True,
    )
    return {"anyOf": [list_of(values, 1, 1), tensors]}


def _examples(manifest: Manifest) -> list[dict[str, object]]:
    preprocessing, example = manifest.preprocessing, manifest.example
    if preprocessing is not None and isinstance(example.value, str):
        named = {"name": preprocessing.name, "datatype": BYTES}
        return [{**named, "shape": [1], "data": [example.value]}]
    return [_example(spec, example.inputs[spec.name]) for spec in manifest.signature.inputs]


def _each_once(tensors: list[Schema]) -> Schema:
    """A list of every tensor, in any order."""
    if len(tensors) == 1:
        return list_of(tensors[0], 1, 1)
    listed = list_of({"anyOf": tensors}, len(tensors), len(tensors))
    return listed | {"allOf": [{"contains": tensor} for tensor in tensors]}


def _tensor(spec: TensorSpec, max_rows: int) -> Schema:
    sizes: list[Schema] = [{"type": "integer", "minimum": 1, "maximum": max_rows}]
    for size in spec.row_shape:
        sizes.append(
            {"type": "integer", "minimum": 1} if isinstance(size, str) else {"const": size}
        )
    shape = {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)}
    return object_of(
        {
            "name": {"const": spec.name},
            "datatype": {"enum": [*DTYPES, BOOL] if spec.dtype == "bool" else list(DTYPES)},
            "shape": shape,
            "data": _DATA,
            "parameters": or_null({"type": "object"}),
        },
        ["parameters"],
        open_=True,
    )


def _reply(manifest: Manifest) -> Schema:
    tensor = object_of(
        {
            "name": {"enum": list(outputs_of(manifest.task))},
            "datatype": {"enum": list(DATATYPES.values())},
            "shape": list_of(_COUNT, 1, 2),
            "data": list_of({"anyOf": [NUMBER, FLAG]}),
            "parameters": object_of({"binary_data_size": _COUNT}),
        },
        ["data", "parameters"],
    )
    told = object_of(
        {
            "router": {"enum": ["on", "off"]},
            "risk": RISK,
            "router_measure": {"enum": list(MEASURES)},
            "router_reason": TEXT,
        },
        ["risk", "router_measure", "router_reason"],
    )
    fields: dict[str, Schema] = {
        "model_name": {"const": manifest.model},
        "model_version": TEXT,
        "id": TEXT,
        "outputs": list_of(tensor, 1),
    }
    if manifest.router is not None:
        fields["parameters"] = told
    return object_of(fields, ["id"])


def _parameters(**known: Schema) -> Schema:
    # Those that are not known are ignored, as the protocol asks.
    nullable = {name: or_null(schema) for name, schema in known.items()}
    return or_null(object_of(nullable, list(known), open_=True))


def _example(spec: TensorSpec, row: object) -> dict[str, object]:
    sizes, inner = [1], row
    while isinstance(inner, list | tuple):
        sizes.append(len(inner))
        inner = inner[0]
    return {"name": spec.name, "datatype": datatype_of(spec), "shape": sizes, "data": short([row])}
