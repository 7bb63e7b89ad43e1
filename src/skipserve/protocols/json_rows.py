"""JSON bodies with all rows in one field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import InputError
from skipserve.protocols.json_types import (
    Columns,
    array_of,
    columns_type,
    described,
    instance_type,
    list_of,
    sizes_in_words,
)
from skipserve.protocols.messages import (
    JSON,
    RawRequest,
    RouterRequest,
    Tensors,
    Values,
    check_size,
    most_bytes,
    without_mark,
)
from skipserve.protocols.parameters import parameters_of
from skipserve.signature import TensorSpec
from skipserve.slices import LONGEST

# In msgspec's message, client text may stand before the path, but not behind it.
_PLACE = re.compile(r" - at `(\$[^`]*)`$")
# Characters of msgspec's message, without the path: what was expected stands behind it.
LONGEST_PROBLEM = 300
_MISSING = re.compile(r"Object missing required field `(.*)` - at `\$[^`]*`$")


class JsonRows:
    """Reads requests of one model, such as ``{"inputs": [[…], …], "parameters": {…}}``.

    The rows stand in one field, either input by input (``columns``: a list of rows where there is
    one input, or an object of such lists) or row by row (``instances``: a list of rows, each bare
    where there is one input, or an object with every input in it).

    Args:
        manifest: Of the model.
        max_rows: Most rows a request may hold.
        field: Where the rows stand.
        layout: How.
        others: Further fields, each a name, a type and a default.
    """

    def __init__(
        self,
        manifest: Manifest,
        max_rows: int,
        field: str,
        layout: Literal["columns", "instances"] = "columns",
        others: tuple[tuple[str, Any, Any], ...] = (),
    ) -> None:
        self._manifest = manifest
        self._inputs = manifest.signature.inputs
        self._fixed = all(isinstance(n, int) for spec in self._inputs for n in spec.row_shape)
        self._max_rows = max_rows
        self._most_bytes = most_bytes(max_rows, manifest.signature, manifest.preprocessing)
        self._field = field
        names = [field, *(name for name, _, _ in others)]
        self._fields = ", ".join(f'"{name}"' for name in names)
        self._known = {*names, "parameters"}
        inputs = "|".join(re.escape(spec.name) for spec in self._inputs)
        self._preprocessing = manifest.preprocessing
        # Fields, since the quotes in a text are escaped.
        self._names_tensors = re.compile(rf'"(?:{inputs})"\s*:'.encode())
        self._by_input = re.compile(rf"\$\.{field}\.({inputs})(?:\[(\d+)\]|$)")
        self._by_row = re.compile(rf"\$\.{field}\[(\d+)\](?:\.({inputs})(?:\[|$))?")
        self._tensors = self._columns if layout == "columns" else self._instances
        make = columns_type if layout == "columns" else instance_type

        def decoder(rows: Any) -> msgspec.json.Decoder[Any]:
            asked = ("parameters", parameters_of(manifest.slices) | None, None)
            fields: list[Any] = [(field, rows), asked, *others]
            return msgspec.json.Decoder(
                msgspec.defstruct("Request", fields, forbid_unknown_fields=True)
            )

        self._decoder = decoder(make(self._inputs, max_rows))
        self._values = decoder(list_of(Any, max_rows))

    def decode(self, request: RawRequest) -> tuple[Tensors | Values, RouterRequest, str | None]:
        """Read a request: its rows by input [B, …], its router request and its slice.

        A model with preprocessing takes values, unless a request names tensors.

        Raises:
            InputError: Saying what was wrong, what was expected, and in which row.
        """
        body = self._json_body(request)
        check_size(request, self._max_rows, self._most_bytes)
        values = self._preprocessing is not None and not self._names_tensors.search(body)
        try:
            message: Any = (self._values if values else self._decoder).decode(body)
        except msgspec.ValidationError as error:
            raise self._explain(str(error), body) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError("invalid_json", f"the body is not JSON: {error}") from None
        found = getattr(message, self._field)
        rows = self._only_values(found) if values else self._tensors(found)
        asked, parameter = message.parameters, self._manifest.slices.parameter
        router = None if asked is None else asked.router
        of_slice = getattr(asked, parameter) if asked is not None and parameter else None
        if self._manifest.router is None and router not in ("off", None):
            raise InputError(
                "no_router",
                f"{self._manifest.name} has no router and always runs at full depth; "
                'leave "router" out or send "off"',
            )
        return rows, router, of_slice

    def _only_values(self, found: list[object]) -> Values:
        if not found:
            raise self._empty()
        return Values(found)

    def _columns(self, found: Any) -> Tensors:
        columns = [found] if isinstance(found, list) else msgspec.structs.astuple(found)
        return self._arrays(columns)

    def _instances(self, found: list[Any]) -> Tensors:
        # A bare row is one of the only input; an object holds one of each, in their order.
        rows = [
            msgspec.structs.astuple(row) if isinstance(row, msgspec.Struct) else (row,)
            for row in found
        ]
        return self._arrays(list(zip(*rows, strict=True)) if rows else [()])

    def _arrays(self, columns: Sequence[Sequence[Any]]) -> Tensors:
        if not all(columns):
            raise self._empty()
        if self._fixed:
            return Columns(self._inputs, columns)
        return {
            spec.name: self._array(column, spec)
            for column, spec in zip(columns, self._inputs, strict=True)
        }

    def _empty(self) -> InputError:
        return InputError("empty", f"{self._field} holds no row; send at least one")

    def _array(self, column: Sequence[Any], spec: TensorSpec) -> NDArray[Any]:
        try:
            return array_of(column, spec)
        except ValueError:
            row, sizes, first = _first_other(column, spec)
        where = f"row {row} of {spec.name!r}"
        if sizes is None:
            raise InputError("wrong_shape", f"{where} is ragged; expected one length", row)
        raise InputError(
            "wrong_shape",
            f"{where} has {sizes_in_words(spec, sizes)}, row 0 has {sizes_in_words(spec, first)}; "
            "the rows of one request have one shape: pad them, or send each in its own request",
            row,
        )

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

    def _explain(self, problem: str, body: bytes | bytearray) -> InputError:
        found = _PLACE.search(problem)
        place = found.group(1) if found else ""
        if len(problem) > LONGEST_PROBLEM:  # it quotes the client
            problem = f"{problem[:LONGEST_PROBLEM]}…{found.group() if found else ''}"
        row, spec = self._where(place)
        inside = place == f"$.{self._field}" or row is not None
        names = ", ".join(repr(one.name) for one in self._inputs)
        if problem.startswith("Object contains unknown field"):
            if inside and not self._has_unknown_field(body):
                expected = f"{self._manifest.name} takes {names}"
                return InputError("unknown_input", f"{problem}; {expected}", row)
            expected = f'the fields are {self._fields} and "parameters", which may hold "router"'
            return InputError("unknown_field", f"{problem}; {expected}")
        missing = _MISSING.match(problem)
        if missing and inside:
            name = f"the input {missing.group(1)!r} of {self._manifest.name} is missing"
            return InputError("missing_input", f"{name}; it takes {names}", row)
        if problem.startswith("Number out of range"):
            return InputError("not_finite", f"{problem}; expected finite numbers", row)
        if row is None and place.startswith(f"$.{self._field}") and "length <=" in problem:
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
            if parameter := self._manifest.slices.parameter:
                expected += f'; and "{parameter}": a text of at most {LONGEST} characters'
            return InputError("invalid_parameter", f"{problem}; {expected}", row)
        if place and not place.startswith(f"$.{self._field}"):
            return InputError("invalid_parameter", problem)
        nested = "array" in problem and "`object`" not in problem
        shaped = "length" in problem or (nested and place)
        code = "wrong_shape" if shaped else "wrong_type"
        return InputError(code, f"{problem}; {self._expected(spec)}", row)

    def _has_unknown_field(self, body: bytes | bytearray) -> bool:
        """Whether the body has an unknown field; msgspec's message may quote client text."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
        return not fields.keys() <= self._known

    def _where(self, place: str) -> tuple[int | None, TensorSpec | None]:
        """The row and the input at a path in the body."""
        if found := self._by_row.match(place):
            row, name = found.groups()
        elif found := self._by_input.match(place):
            name, row = found.groups()
        else:
            return None, None
        spec = None if name is None else self._manifest.signature.input(name)
        return None if row is None else int(row), spec

    def _expected(self, spec: TensorSpec | None) -> str:
        if spec is None and self._preprocessing is not None:
            return f'"{self._field}" must be a list; each row is {self._preprocessing.takes}'
        if spec is None and len(self._inputs) > 1:
            each = ", ".join(f'"{one.name}": {described(one)}' for one in self._inputs)
            return f'"{self._field}" must hold every input: {each}'
        one = spec or self._inputs[0]
        name = self._field if len(self._inputs) == 1 else one.name
        return f'"{name}" must be a list of {described(one)}'


def _first_other(
    column: Sequence[Any], spec: TensorSpec
) -> tuple[int, tuple[int, ...] | None, tuple[int, ...]]:
    """The first row with another shape than row 0, with both shapes."""
    shapes: list[tuple[int, ...]] = []
    for i, row in enumerate(column):
        try:
            shapes.append(array_of([row], spec).shape[1:])
        except ValueError:
            return i, None, shapes[0] if shapes else ()
        if shapes[-1] != shapes[0]:
            return i, shapes[-1], shapes[0]
    raise AssertionError("rows of one shape make an array")
