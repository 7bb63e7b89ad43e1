"""The Open Inference Protocol over HTTP: JSON tensors and the binary tensor extension.

Source: the KServe V2 protocol and Triton's binary data extension. A request is told from a native
one by its content: its ``inputs`` hold objects, or it has the header of the extension.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import MEASURES
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.serving.messages import (
    Asked,
    Question,
    RawRequest,
    Reply,
    Risk,
    check_size,
    status_of,
)

HEADER_LENGTH = "inference-header-content-length"
DTYPES: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
# Native inputs hold numbers and lists; objects in them are tensors.
_TENSORS = re.compile(rb'"inputs"\s*:\s*\[\s*\{')


class Tensor(msgspec.Struct):
    """An input tensor; unknown keys are allowed, as the protocol asks."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: Any = None


class Output(msgspec.Struct):
    """An output that was asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Request(msgspec.Struct):
    """An inference request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Output] | None = None


def speaks_oip(request: RawRequest) -> bool:
    """Whether a request is meant for this protocol."""
    if HEADER_LENGTH in request.headers:
        return True
    return request.body is not None and _TENSORS.search(request.body) is not None


class OpenInference:
    """Decodes and encodes Open Inference requests for one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._max_rows = max_rows
        self._decoder = msgspec.json.Decoder(Request)

    def decode(self, request: RawRequest) -> Question:
        """Read a request: its rows [B, *inputs], and what it asks of the router.

        The parameter ``router`` may be ``"on"``, ``"off"`` or a risk, whose ``router_measure`` is
        ``disagreement`` unless it says ``accuracy_lost``.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        check_size(request, self._max_rows, self._manifest.row_shape)
        header, binary = _split(request)
        try:
            message = self._decoder.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError("invalid_json", f"not an inference request: {error}") from None
        name, row_shape = self._manifest.inputs[0].name, list(self._manifest.row_shape)
        if [tensor.name for tensor in message.inputs] != [name]:
            raise InputError(
                "wrong_input", f"{self._manifest.name} takes one input tensor named {name!r}"
            )
        tensor = message.inputs[0]
        if tensor.datatype not in DTYPES:
            raise InputError(
                "wrong_type", f"datatype {tensor.datatype!r}; expected one of {', '.join(DTYPES)}"
            )
        if len(tensor.shape) == 0 or tensor.shape[1:] != row_shape or tensor.shape[0] < 0:
            raise InputError(
                "wrong_shape",
                f"shape is {tensor.shape}, expected {['rows', *row_shape]}".replace("'", ""),
            )
        if tensor.shape[0] > self._max_rows:
            raise InputError(
                "too_many_rows",
                f"{tensor.shape[0]} rows, at most {self._max_rows} are answered at once",
            )
        asked = _asked(message.parameters)
        if self._manifest.router is None and asked not in ("off", None):
            raise InputError("no_router", f"{self._manifest.name} has no router")
        unknown = [o.name for o in message.outputs or () if o.name not in OUTPUTS]
        if unknown:
            raise InputError(
                "wrong_output", f"no output is named {unknown[0]!r}, only {', '.join(OUTPUTS)}"
            )
        return Question(_rows(tensor, binary), asked, partial(self.encode, message))

    def encode(self, request: Request, prediction: Prediction, setting: Setting) -> Reply:
        """Answer one request, each output in JSON or binary as was asked.

        What the router did to the request stands in ``parameters``, if the model has one.
        """
        all_binary = bool(request.parameters.get("binary_data_output", False))
        asked = request.outputs or [Output(name) for name in OUTPUTS]
        outputs, chunks = [], []
        for output in asked:
            values = getattr(prediction, OUTPUTS[output.name])
            entry: dict[str, Any] = {
                "name": output.name,
                "datatype": DATATYPES[values.dtype.kind],
                "shape": list(values.shape),
            }
            if output.parameters.get("binary_data", all_binary):
                raw = values.tobytes()
                entry["parameters"] = {"binary_data_size": len(raw)}
                chunks.append(raw)
            else:
                entry["data"] = values.ravel().tolist()
            outputs.append(entry)
        body: dict[str, Any] = {"model_name": self._manifest.name, "outputs": outputs}
        if request.id is not None:
            body["id"] = request.id
        if self._manifest.router is not None:
            body["parameters"] = _told(setting)
        header = msgspec.json.encode(body)
        if not chunks:
            return Reply(header)
        return Reply(
            b"".join([header, *chunks]),
            headers={
                "content-type": "application/octet-stream",
                "Inference-Header-Content-Length": str(len(header)),
            },
        )

    def refuse(self, error: InputError) -> Reply:
        """The protocol's own error body: ``{"error": "message"}``."""
        body = msgspec.json.encode({"error": f"[{error.code}] {error.message}"})
        return Reply(body, status_of(error), reason=error.code)


# Output tensor to attribute of the prediction.
OUTPUTS = {
    "label": "labels",
    "probabilities": "probabilities",
    "depth_run": "depth_run",
    "held_back": "held_back",
}
DATATYPES = {"f": "FP32", "i": "INT64", "b": "BOOL"}


def _told(setting: Setting) -> dict[str, object]:
    if setting.risk is None:
        told: dict[str, object] = {"router": "off"}
        return told | ({"router_reason": setting.reason} if setting.reason else {})
    return {"router": "on", "risk": setting.risk, "router_measure": setting.measure}


def _asked(parameters: dict[str, Any]) -> Asked:
    asked, measure = parameters.get("router"), parameters.get("router_measure", "disagreement")
    if asked in ("on", "off", None):
        return asked
    if not _is_number(asked):
        raise InputError(
            "invalid_parameter", f'router is {asked!r}, expected "on", "off" or a risk'
        )
    if measure not in MEASURES:
        raise InputError(
            "invalid_parameter",
            f"router_measure is {measure!r}, expected {' or '.join(MEASURES)}",
        )
    return Risk(asked, measure)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _split(request: RawRequest) -> tuple[bytes, bytes]:
    body = bytes(request.body or b"")
    declared = request.headers.get(HEADER_LENGTH)
    if declared is None:
        return body, b""
    # Python refuses to read an integer of thousands of digits; no body is that long.
    digits = declared.isascii() and declared.isdigit() and len(declared) <= 18
    if not digits or int(declared) > len(body):
        raise InputError(
            "wrong_header",
            f"Inference-Header-Content-Length is {declared!r}, expected the length of the JSON "
            f"part of a body of {len(body)} bytes",
        )
    length = int(declared)
    return body[:length], body[length:]


def _rows(tensor: Tensor, binary: bytes) -> NDArray[Any]:
    dtype = DTYPES[tensor.datatype]
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        expected = dtype.itemsize * int(np.prod(tensor.shape, dtype=np.int64))
        if size != expected or len(binary) != expected:
            raise InputError(
                "wrong_shape",
                f"binary_data_size is {size} and {len(binary)} bytes follow the JSON; "
                f"shape {tensor.shape} of {tensor.datatype} takes {expected}",
            )
        rows: NDArray[Any] = np.frombuffer(binary, dtype).reshape(tensor.shape)
        return rows
    numbers = _numbers(tensor)
    count = int(np.prod(tensor.shape, dtype=np.int64))
    if numbers.shape not in ((count,), tuple(tensor.shape)):
        raise InputError(
            "wrong_shape",
            f"data has shape {list(numbers.shape)}, expected shape {tensor.shape} or "
            f"{count} numbers in a row",
        )
    return numbers.reshape(tensor.shape)


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    # The protocol allows flattened and nested data alike.
    nested: Any = float
    for _ in tensor.shape:
        nested = list[nested]
    for kind in (list[float], nested):
        try:
            return np.asarray(msgspec.convert(tensor.data, kind), dtype=np.float64)
        except msgspec.ValidationError as error:
            problem = error
        except ValueError:
            raise InputError(
                "wrong_shape", f"data is ragged, expected shape {tensor.shape}"
            ) from None
    raise InputError("wrong_type", f"data: {problem}; expected a list of numbers")
