"""JSON bodies whose rows stand in one field, and what the router did to each row of a reply."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.serving.messages import JSON, Asked, RawRequest, Risk, check_size, without_mark

# A client's own text may stand before the place msgspec names, never behind it.
_PLACE = re.compile(r" - at `(\$[^`]*)`$")


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """What a request may ask for beside its rows."""

    router: Literal["on", "off"] | Risk | None = None


class JsonRows:
    """Reads requests of one model, such as ``{"inputs": [[…], …], "parameters": {…}}``.

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
        field: Where the rows stand.
        others: Further fields, each a name, a type and a default.
        named: Whether a row may also be an object with the model's one input in it.
    """

    def __init__(
        self,
        manifest: Manifest,
        max_rows: int,
        field: str,
        others: tuple[tuple[str, Any, Any], ...] = (),
        named: bool = False,
    ) -> None:
        self._manifest = manifest
        self._max_rows = max_rows
        self._field = field
        names = [field, *(name for name, _, _ in others)]
        self._fields = ", ".join(f'"{name}"' for name in names)
        self._row = re.compile(rf"\$\.{field}\[(\d+)\]")
        row: Any = self._row_type(named)
        rows = Annotated[list[row], msgspec.Meta(max_length=max_rows)]
        request = msgspec.defstruct(
            "Request",
            [(field, rows), ("parameters", Parameters | None, None), *others],
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(request)

    def _row_type(self, named: bool) -> Any:
        row: Any = float
        for length in reversed(self._manifest.row_shape):
            row = Annotated[list[row], msgspec.Meta(min_length=length, max_length=length)]
        if not named:
            return row
        return row | msgspec.defstruct(
            "Instance",
            [("row", row)],
            rename={"row": self._manifest.inputs[0].name},
            forbid_unknown_fields=True,
        )

    def decode(self, request: RawRequest) -> tuple[Any, Asked]:
        """Read a request, its rows checked: the message, and what it asks of the router.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        body = self._json_body(request)
        check_size(request, self._max_rows, self._manifest.row_shape)
        try:
            message: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError("invalid_json", f"the body is not JSON: {error}") from None
        if not getattr(message, self._field):
            raise InputError("empty", f"{self._field} holds no row; send at least one")
        router = None if message.parameters is None else message.parameters.router
        if self._manifest.router is None and router not in ("off", None):
            raise InputError(
                "no_router",
                f"{self._manifest.name} has no router and always runs at full depth; "
                'leave "router" out or send "off"',
            )
        return message, router

    def _json_body(self, request: RawRequest) -> bytes | bytearray:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.body is None or kind not in ("", JSON):
            raise InputError(
                "unsupported_media_type",
                f"the content type is {kind or 'missing'}, expected {JSON}; "
                f"with curl add -H 'Content-Type: {JSON}'",
            )
        if not request.body:
            raise InputError("empty", f'the body is empty, expected {{"{self._field}": [[…], …]}}')
        return without_mark(request.body)

    def _explain(self, problem: str) -> InputError:
        if problem.startswith("Object contains unknown field"):
            expected = f'the fields are {self._fields} and "parameters", which may hold "router"'
            return InputError("unknown_field", f"{problem}; {expected}")
        found = _PLACE.search(problem)
        place = found.group(1) if found else ""
        in_row = self._row.match(place)
        row = int(in_row.group(1)) if in_row else None
        if problem.startswith("Number out of range"):
            return InputError("not_finite", f"{problem}; expected finite numbers", row)
        if place == f"$.{self._field}" and "length <=" in problem:
            return InputError(
                "too_many_rows",
                f"{self._field} holds too many rows, at most {self._max_rows} are answered "
                "at once; split the request",
            )
        if place.startswith("$.parameters"):
            expected = (
                '"parameters" may hold "router": "on", "off" or {"risk": 0.01}, '
                'the last also with "measure": "accuracy_lost"'
            )
            return InputError("invalid_parameter", f"{problem}; {expected}", row)
        if place and not place.startswith(f"$.{self._field}"):
            return InputError("invalid_parameter", problem)
        shape = "×".join(map(str, self._manifest.row_shape))
        expected = f'"{self._field}" must be a list of rows of {shape} numbers each'
        shaped = "length" in problem or ("`array`" in problem and place)
        code = "wrong_shape" if shaped else "wrong_type"
        return InputError(code, f"{problem}; {expected}", row)


def rows_told(prediction: Prediction, setting: Setting) -> list[dict[str, object]]:
    """What a reply says of each row; ``held_back`` where the router was on."""
    told: list[dict[str, object]] = [
        {"label": label, "probabilities": probabilities, "depth_run": depth_run}
        for label, probabilities, depth_run in zip(
            prediction.labels.tolist(),
            prediction.probabilities.tolist(),
            prediction.depth_run.tolist(),
            strict=True,
        )
    ]
    if setting.risk is not None:
        for one, held in zip(told, prediction.held_back.tolist(), strict=True):
            one["held_back"] = held
    return told
