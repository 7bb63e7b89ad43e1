"""Parameters of a request beside its rows: what it asks of the router, and its slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from skipserve.errors import InputError, quoted
from skipserve.protocols.messages import Risk
from skipserve.slices import LONGEST, Slices


def parameters_of(slices: Slices) -> type[msgspec.Struct]:
    """The type of ``parameters`` in native and V1 requests to a model of these slices."""
    fields: list[Any] = [("router", Literal["on", "off"] | Risk | None, None)]
    if slices.parameter:
        text = Annotated[str, msgspec.Meta(max_length=LONGEST)]
        fields.append((slices.parameter, text | None, None))
    return msgspec.defstruct("Parameters", fields, forbid_unknown_fields=True)


def slice_in(parameters: Mapping[str, Any], slices: Slices) -> str | None:
    """The value that parameters of another type give the one by which traffic is sliced.

    Raises:
        InputError: If it is no text.
    """
    said = parameters.get(slices.parameter) if slices.parameter else None
    if said is not None and not isinstance(said, str):
        raise InputError(
            "invalid_parameter", f"{slices.parameter} is {quoted(said)}, expected a text"
        )
    return said
