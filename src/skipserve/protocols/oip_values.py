"""Texts and pictures in the Open Inference Protocol: a tensor of ``BYTES``, one element a value.

In JSON an element is a string. In binary it is four bytes that say how long it is, least
significant first, and as many bytes; a body without JSON is the bytes of one value.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from skipserve.errors import InputError, quoted
from skipserve.preprocessing.config import Preprocessing
from skipserve.protocols.oip_tensors import Tensor

BYTES = "BYTES"
_PREFIX = 4


def values_of(
    tensor: Tensor, size: object, content: bytes, preprocessing: Preprocessing
) -> list[object]:
    """The values of a tensor [rows], [rows, 1], or [rows, n] where n elements make up a value.

    Args:
        tensor: As it came.
        size: Its ``binary_data_size``, or ``None`` where its elements stand in the JSON.
        content: What follows the JSON.
        preprocessing: Of the model.

    Raises:
        InputError: Saying what was expected.
    """
    if tensor.datatype != BYTES:
        raise InputError("wrong_type", f"datatype {quoted(tensor.datatype)}; expected {BYTES}")
    shape, widest = tensor.shape, preprocessing.widest
    if len(shape) not in (1, 2) or shape[0] < 0 or not 1 <= (*shape, 1)[1] <= widest:
        wide = "".join(f" or [rows, {i}]" for i in range(1, widest + 1))
        raise InputError("wrong_shape", f"shape is {shape}, expected [rows]{wide}")
    count, width = math.prod(shape), (*shape, 1)[1]
    found = _from_json(tensor.data, count) if size is None else _from_bytes(content, size, count)
    if not found:
        raise InputError("empty", f"{tensor.name} holds no row; send at least one")
    if width == 1:
        return found
    return [found[first : first + width] for first in range(0, count, width)]


def _from_json(data: object, count: int) -> list[object]:
    flat: list[object] = []
    for one in data if isinstance(data, list) else ():
        flat += one if isinstance(one, list) else [one]
    if not isinstance(data, list) or len(flat) != count:
        raise InputError("wrong_shape", f"data must be a list of {count} strings, as shape says")
    try:
        return list(msgspec.convert(flat, list[str]))
    except msgspec.ValidationError as error:
        raise InputError("wrong_type", f"data: {error}; expected strings") from None


def _from_bytes(content: bytes, size: object, count: int) -> list[object]:
    found: list[object] = []
    place = 0
    while place + _PREFIX <= len(content) and len(found) < count:
        start = place + _PREFIX
        place = start + int.from_bytes(content[place:start], "little")
        found.append(content[start:place])
    if size != len(content) or len(found) != count or place != len(content):
        raise InputError(
            "wrong_shape",
            f"binary_data_size is {size} and {len(content)} bytes follow the JSON, which are not "
            f"{count} elements, each four bytes of length and as many bytes",
        )
    return found


def described(preprocessing: Preprocessing) -> dict[str, Any]:
    """The tensor in the metadata of a model."""
    return {"name": preprocessing.name, "datatype": BYTES, "shape": [-1]}
