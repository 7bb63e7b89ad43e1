"""The native protocol: ``POST /predictions/{model}`` with ``{"inputs": [[…], …]}``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.serving.messages import (
    Question,
    RawRequest,
    Reply,
    Risk,
    check_size,
    error_reply,
    status_of,
)

# A client's own text may stand before the place msgspec names, never behind it.
_PLACE = re.compile(r" - at `(\$[^`]*)`$")
_ROW = re.compile(r"\$\.inputs\[(\d+)\]")


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """What a request may ask for beside its inputs."""

    router: Literal["on", "off"] | Risk | None = None


class NativeProtocol:
    """Decodes and encodes the native JSON of one model.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
    """

    def __init__(self, manifest: Manifest, max_rows: int) -> None:
        self._manifest = manifest
        self._max_rows = max_rows
        row: Any = float
        for length in reversed(manifest.row_shape):
            row = Annotated[list[row], msgspec.Meta(min_length=length, max_length=length)]
        rows = Annotated[list[row], msgspec.Meta(max_length=max_rows)]
        request = msgspec.defstruct(
            "Request",
            [("inputs", rows), ("parameters", Parameters | None, None)],
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(request)
        self._encoder = msgspec.json.Encoder()

    def decode(self, request: RawRequest) -> Question:
        """Read the rows [B, *inputs] of a request, float64, and what it asks of the router.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        body = _json_body(request)
        check_size(request, self._max_rows, self._manifest.row_shape)
        try:
            message: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError("invalid_json", f"the body is not JSON: {error}") from None
        if not message.inputs:
            raise InputError("empty", "inputs holds no row; send at least one")
        router = None if message.parameters is None else message.parameters.router
        if self._manifest.router is None and router not in ("off", None):
            raise InputError(
                "no_router",
                f"{self._manifest.name} has no router and always runs at full depth; "
                'leave "router" out or send "off"',
            )
        return Question(np.array(message.inputs, dtype=np.float64), router, self.encode)

    def encode(self, prediction: Prediction, setting: Setting) -> Reply:
        """Answer one request."""
        outputs: list[dict[str, object]] = [
            {"label": label, "probabilities": probabilities, "depth_run": depth_run}
            for label, probabilities, depth_run in zip(
                prediction.labels.tolist(),
                prediction.probabilities.tolist(),
                prediction.depth_run.tolist(),
                strict=True,
            )
        ]
        body: dict[str, object] = {
            "outputs": outputs,
            "model": self._manifest.name,
            "depth": self._manifest.depth,
            "router": "off" if setting.risk is None else "on",
        }
        if setting.risk is not None:
            body["risk"] = setting.risk
            if setting.measure != "disagreement":
                body["measure"] = setting.measure
            for output, held in zip(outputs, prediction.held_back.tolist(), strict=True):
                output["held_back"] = held
        elif setting.reason:
            body["router_reason"] = setting.reason
        return Reply(self._encoder.encode(body))

    def refuse(self, error: InputError) -> Reply:
        """Tell a client what was wrong."""
        return error_reply(status_of(error), error.code, error.message, error.row)

    def _explain(self, problem: str) -> InputError:
        if problem.startswith("Object contains unknown field"):
            expected = 'the fields are "inputs" and "parameters", which may hold "router"'
            return InputError("unknown_field", f"{problem}; {expected}")
        found = _PLACE.search(problem)
        place = found.group(1) if found else ""
        in_row = _ROW.match(place)
        row = int(in_row.group(1)) if in_row else None
        if problem.startswith("Number out of range"):
            return InputError("not_finite", f"{problem}; expected finite numbers", row)
        if place == "$.inputs" and "length <=" in problem:
            return InputError(
                "too_many_rows",
                f"inputs holds too many rows, at most {self._max_rows} are answered "
                "at once; split the request",
            )
        if place.startswith("$.parameters"):
            expected = (
                '"parameters" may hold "router": "on", "off" or {"risk": 0.01}, '
                'the last also with "measure": "accuracy_lost"'
            )
            return InputError("invalid_parameter", f"{problem}; {expected}", row)
        shape = "×".join(map(str, self._manifest.row_shape))
        expected = f'"inputs" must be a list of rows of {shape} numbers each'
        shaped = "length" in problem or ("`array`" in problem and place)
        code = "wrong_shape" if shaped else "wrong_type"
        return InputError(code, f"{problem}; {expected}", row)


def _json_body(request: RawRequest) -> bytes | bytearray:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body is None or kind not in ("", "application/json"):
        raise InputError(
            "unsupported_media_type",
            f"the content type is {kind or 'missing'}, expected application/json; "
            "with curl add -H 'Content-Type: application/json'",
        )
    if not request.body:
        raise InputError("empty", 'the body is empty, expected {"inputs": [[…], …]}')
    return request.body
