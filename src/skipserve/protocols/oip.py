"""The Open Inference Protocol over HTTP: JSON tensors and the binary tensor extension.

Source: the KServe V2 protocol and Triton's binary data extension. A request of this
protocol is recognised by its content: its ``inputs`` hold objects, or it has the header of the
extension. A field that is null counts as left out: KServe's own client writes all fields.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import msgspec
from numpy.typing import NDArray

from skipserve.artifacts.certificates import MEASURES
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError, quoted
from skipserve.protocols.answers import Answer
from skipserve.protocols.messages import (
    ParsedRequest,
    RawRequest,
    Reply,
    Risk,
    RouterRequest,
    Tensors,
    Values,
    check_size,
    has_field,
    most_bytes,
    text_error,
    without_mark,
)
from skipserve.protocols.oip_replies import (
    HEADER_LENGTH,
    VERSION,
    Output,
    flag,
    given,
    outputs_of,
    reply,
    router_parameters,
    tensors,
)
from skipserve.protocols.oip_tensors import (
    Parameters,
    Tensor,
    binary_rows,
    check_tensor,
    json_rows,
    raw_rows,
)
from skipserve.protocols.oip_values import BYTES, values_of
from skipserve.protocols.parameters import slice_in

# Native inputs hold numbers, lists and texts; objects in them are tensors, or pairs of texts.
_TENSORS = re.compile(rb'"inputs"\s*:\s*\[\s*\{(?!\s*"text)')


class Request(msgspec.Struct):
    """An inference request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: Parameters = None
    outputs: list[Output] | None = None


def is_oip_request(request: RawRequest) -> bool:
    """Whether a request is of this protocol."""
    if HEADER_LENGTH in request.headers:
        return True
    return has_field(request.body, b'"inputs"', _TENSORS)


class OpenInference:
    """Decodes and encodes Open Inference requests for one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
        version: Of the model, as its metadata has it.
    """

    def __init__(self, manifest: Manifest, max_rows: int, version: str = VERSION) -> None:
        self._manifest = manifest
        self._named = {"model_name": manifest.model, "model_version": version}
        self._outputs = outputs_of(manifest.task)
        self._max_rows = max_rows
        self._most_bytes = most_bytes(max_rows, manifest.signature, manifest.preprocessing)
        self._decoder = msgspec.json.Decoder(Request)

    def decode(self, request: RawRequest) -> ParsedRequest:
        """Read a request: the rows of every input, and its router request.

        The parameter ``router`` may be ``"on"``, ``"off"`` or a risk, whose ``router_measure`` is
        ``disagreement`` unless it says ``accuracy_lost``. A header length of 0 says that the body
        is one tensor's bytes and nothing else; the reply is binary then.

        Raises:
            InputError: Saying what was wrong and what was expected.
        """
        check_size(request, self._max_rows, self._most_bytes)
        header, binary = _split(request)
        if header is None:
            return self._raw(binary)
        try:
            message = self._decoder.decode(without_mark(header))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError("invalid_json", f"not an inference request: {error}") from None
        raw = self._holds_values(message.inputs)
        if not raw:
            self._check_names(message.inputs)
        router = self._router_request(given(message.parameters))
        of_slice = slice_in(given(message.parameters), self._manifest.slices)
        # Checked before anything runs.
        flag(message.parameters, "binary_data_output", False)
        for output in message.outputs or ():
            flag(output.parameters, "binary_data", False)
        unknown = [o.name for o in message.outputs or () if o.name not in self._outputs]
        if unknown:
            known = ", ".join(self._outputs)
            raise InputError(
                "wrong_output", f"no output is named {quoted(unknown[0])}, only {known}"
            )
        rows = (self._values if raw else self._rows)(message.inputs, binary)
        return ParsedRequest(rows, router, partial(self.encode, message), of_slice)

    def _holds_values(self, inputs: list[Tensor]) -> bool:
        """Whether a request sends texts or pictures instead of tensors."""
        preprocessing = self._manifest.preprocessing
        return preprocessing is not None and [one.name for one in inputs] == [preprocessing.name]

    def _values(self, inputs: list[Tensor], binary: bytes) -> Values:
        preprocessing = self._manifest.preprocessing
        assert preprocessing is not None
        (tensor,) = inputs
        self._check_count(tensor.shape[0] if tensor.shape else 0)
        size = given(tensor.parameters).get("binary_data_size")
        return Values(values_of(tensor, size, binary, preprocessing))

    def _rows(self, inputs: list[Tensor], binary: bytes) -> Tensors:
        """The rows of every tensor; binary chunks stand in the order of the tensors."""
        found = dict[str, NDArray[Any]]()
        for tensor in inputs:
            try:
                found[tensor.name], binary = self._read(tensor, binary)
            except InputError as error:
                if len(inputs) == 1:
                    raise
                raise InputError(error.code, f"{tensor.name!r}: {error.message}") from None
        if binary:
            raise InputError(
                "wrong_shape", f"{len(binary)} bytes follow the JSON that belong to no tensor"
            )
        return found

    def _read(self, tensor: Tensor, binary: bytes) -> tuple[NDArray[Any], bytes]:
        spec = self._manifest.signature.input(tensor.name)
        assert spec is not None
        check_tensor(tensor, spec)
        self._check_count(tensor.shape[0])
        size = given(tensor.parameters).get("binary_data_size")
        if size is None:
            return json_rows(tensor), binary
        alone = len(self._manifest.signature.inputs) == 1
        # The bytes of the only tensor are all there are; else each says where it ends.
        end = len(binary) if alone or not isinstance(size, int) else max(size, 0)
        return binary_rows(tensor, size, binary[:end]), binary[end:]

    def _raw(self, content: bytes) -> ParsedRequest:
        rows: Tensors | Values = Values([content])
        if self._manifest.preprocessing is None:
            rows = raw_rows(content, self._manifest.signature)
            ((_, array),) = rows.items()
            self._check_count(len(array))
        message = Request([], parameters={"binary_data_output": True})
        return ParsedRequest(rows, None, partial(self.encode, message))

    def _check_names(self, inputs: list[Tensor]) -> None:
        names = [spec.name for spec in self._manifest.signature.inputs]
        if sorted(tensor.name for tensor in inputs) != sorted(names):
            listed = ", ".join(map(repr, names))
            one = f"one input tensor named {listed}"
            takes = one if len(names) == 1 else f"{len(names)} input tensors, each once: {listed}"
            if self._manifest.preprocessing is not None:
                takes = (
                    f"one {BYTES} tensor named {self._manifest.preprocessing.name!r}, or {takes}"
                )
            raise InputError("wrong_input", f"{self._manifest.name} takes {takes}")

    def _check_count(self, rows: int) -> None:
        if rows > self._max_rows:
            raise InputError(
                "too_many_rows", f"{rows} rows, at most {self._max_rows} are answered at once"
            )

    def _router_request(self, parameters: dict[str, Any]) -> RouterRequest:
        router = _router(parameters)
        if self._manifest.router is None and router not in ("off", None):
            raise InputError("no_router", f"{self._manifest.name} has no router")
        return router

    def encode(self, request: Request, answer: Answer) -> Reply:
        """Answer one request, each output in JSON or binary as the request asks.

        What the router did to the request stands in ``parameters``, if the model has one.
        """
        all_binary = flag(request.parameters, "binary_data_output", False)
        outputs, chunks = tensors(
            answer.prediction, self._manifest.task, request.outputs, all_binary
        )
        body: dict[str, Any] = {**self._named, "outputs": outputs}
        if request.id is not None:
            body["id"] = request.id
        if self._manifest.router is not None:
            body["parameters"] = router_parameters(answer.setting)
        return reply(body, chunks)

    def refuse(self, error: InputError) -> Reply:
        """The protocol's own error body: ``{"error": "message"}``."""
        return text_error(error)


def _router(parameters: dict[str, Any]) -> RouterRequest:
    router, measure = parameters.get("router"), parameters.get("router_measure", "disagreement")
    if measure not in MEASURES:
        raise InputError(
            "invalid_parameter",
            f"router_measure is {quoted(measure)}, expected {' or '.join(MEASURES)}",
        )
    if router in ("on", "off", None):
        return router
    if not isinstance(router, int | float) or isinstance(router, bool):
        raise InputError(
            "invalid_parameter", f'router is {quoted(router)}, expected "on", "off" or a risk'
        )
    try:
        return Risk(float(router), measure)
    except OverflowError:  # JSON knows integers that no float holds
        return Risk(math.inf, measure)


def _split(request: RawRequest) -> tuple[bytes | None, bytes]:
    # The JSON, None where the request says that there is none, and the bytes behind it.
    if request.body is None:
        raise InputError(
            "unsupported_media_type",
            "the body was sent as a form; expected application/json or application/octet-stream",
        )
    body = bytes(request.body)
    declared = request.headers.get(HEADER_LENGTH)
    if declared is None:
        return body, b""
    # Python refuses to read an integer of thousands of digits; no body is that long.
    digits = declared.isascii() and declared.isdigit() and len(declared) <= 18
    if not digits or int(declared) > len(body):
        raise InputError(
            "wrong_header",
            f"Inference-Header-Content-Length is {quoted(declared)}, expected the length of the "
            f"JSON part of a body of {len(body)} bytes",
        )
    length = int(declared)
    return (body[:length] if length else None), body[length:]
