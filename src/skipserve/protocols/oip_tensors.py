"""Input tensors of the Open Inference Protocol: JSON, binary, and raw bytes."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InputError, quoted
from skipserve.signature import Signature, TensorSpec

DTYPES: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
# A byte each; others than 0 and 1 are refused by the engine, as NumPy's own would not be.
BOOL = "BOOL"
# From here on float64 does not hold every whole number.
_EXACT = 2.0**53

Parameters = dict[str, Any] | None


class Tensor(msgspec.Struct):
    """An input tensor; unknown keys are allowed, as the protocol asks."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = None
    data: Any = None


def check_tensor(tensor: Tensor, spec: TensorSpec) -> None:
    """Check datatype and shape of a tensor for one input.

    Any datatype of numbers will do for an input of numbers, and ``BOOL`` for one of booleans too.

    Raises:
        InputError: Saying what was expected; a dimension that is free is -1.
    """
    allowed = [*DTYPES, BOOL] if spec.dtype == "bool" else [*DTYPES]
    if tensor.datatype not in allowed:
        raise InputError(
            "wrong_type",
            f"datatype {quoted(tensor.datatype)}; expected one of {', '.join(allowed)}",
        )
    fits = len(tensor.shape) == len(spec.shape) and tensor.shape[0] >= 0
    if not fits or not all(map(_fits, spec.row_shape, tensor.shape[1:])):
        expected = ["rows", *(-1 if isinstance(size, str) else size for size in spec.row_shape)]
        raise InputError(
            "wrong_shape", f"shape is {tensor.shape}, expected {expected}".replace("'", "")
        )


def _fits(size: int | str, found: int) -> bool:
    return found > 0 if isinstance(size, str) else found == size


def raw_rows(content: bytes, signature: Signature) -> dict[str, NDArray[Any]]:
    """The rows of the only input [B, …] from a body of raw bytes.

    Raises:
        InputError: If there are several inputs or a dimension is free, so that bytes do not say
            what they are, or if they do not make up whole rows.
    """
    spec = signature.inputs[0]
    sizes = [size for size in spec.row_shape if isinstance(size, int)]
    if len(signature.inputs) > 1 or len(sizes) < len(spec.row_shape):
        raise InputError(
            "wrong_header",
            "Inference-Header-Content-Length is 0, but bytes alone do not say which input they "
            "are of, or of which shape; send the JSON part too",
        )
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    row = dtype.itemsize * math.prod(sizes)
    if len(content) % row:
        raise InputError(
            "wrong_shape",
            f"Inference-Header-Content-Length is 0, so all {len(content)} bytes are one "
            f"{datatype_of(spec)} tensor; expected a multiple of {row}, rows of shape {sizes}",
        )
    return {spec.name: np.frombuffer(content, dtype).reshape(-1, *sizes)}


def datatype_of(spec: TensorSpec) -> str:
    """The datatype of an input in the protocol."""
    dtype = np.dtype(spec.dtype)
    return BOOL if dtype.kind == "b" else next(one for one in DTYPES if DTYPES[one] == dtype)


def binary_rows(tensor: Tensor, size: object, content: bytes) -> NDArray[Any]:
    """The rows of a tensor whose bytes follow the JSON.

    Args:
        tensor: Of a known datatype.
        size: Its ``binary_data_size``.
        content: What follows the JSON.

    Raises:
        InputError: If the bytes are not as many as its shape takes.
    """
    dtype = np.dtype(np.uint8) if tensor.datatype == BOOL else DTYPES[tensor.datatype]
    expected = dtype.itemsize * math.prod(tensor.shape)
    if size != expected or len(content) != expected:
        raise InputError(
            "wrong_shape",
            f"binary_data_size is {size} and {len(content)} bytes follow the JSON; "
            f"shape {tensor.shape} of {tensor.datatype} takes {expected}",
        )
    return np.frombuffer(content, dtype).reshape(tensor.shape)


def json_rows(tensor: Tensor) -> NDArray[Any]:
    """The rows of a tensor with JSON numbers, in the datatype it names.

    Raises:
        InputError: If they are no numbers, of another shape, or not of that datatype.
    """
    numbers = _numbers(tensor, bool | float if tensor.datatype == BOOL else float)
    count = math.prod(tensor.shape)
    if numbers.shape not in ((count,), tuple(tensor.shape)):
        raise InputError(
            "wrong_shape",
            f"data has shape {list(numbers.shape)}, expected shape {tensor.shape} or "
            f"{count} numbers in a row",
        )
    if tensor.datatype == BOOL:
        return numbers.reshape(tensor.shape)
    to = _floats if DTYPES[tensor.datatype].kind == "f" else _integers
    return to(tensor.datatype, numbers.ravel()).reshape(tensor.shape)


def _numbers(tensor: Tensor, number: Any) -> NDArray[Any]:
    # The protocol allows flattened and nested data alike.
    nested: Any = number
    for _ in tensor.shape:
        nested = list[nested]
    for kind in (list[number], nested):
        try:
            numbers = np.asarray(msgspec.convert(tensor.data, kind), dtype=np.float64)
        except msgspec.ValidationError as error:
            problem = error
        except ValueError:
            raise InputError(
                "wrong_shape", f"data is ragged, expected shape {tensor.shape}"
            ) from None
        else:
            return _exact(tensor, numbers)
    raise InputError("wrong_type", f"data: {problem}; expected a list of numbers")


def _exact(tensor: Tensor, numbers: NDArray[np.float64]) -> NDArray[Any]:
    whole = tensor.datatype != BOOL and DTYPES[tensor.datatype].kind in "iu"
    if whole and numbers.size and np.abs(numbers).max() >= _EXACT:
        return np.asarray(tensor.data, dtype=object)
    return numbers


def _floats(datatype: str, numbers: NDArray[Any]) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    with np.errstate(over="ignore"):
        floats = numbers.astype(dtype)
    good = np.isfinite(floats)
    if not good.all():
        raise InputError(
            "not_finite",
            f"data: {numbers[np.argmin(good)]:g} is beyond {datatype}; expected finite numbers up "
            f"to {float(np.finfo(dtype).max):g}",
        )
    return floats


def _integers(datatype: str, numbers: NDArray[Any]) -> NDArray[Any]:
    dtype = DTYPES[datatype]
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    good = (numbers >= least) & (numbers <= most) & (numbers % 1 == 0)
    if not good.all():
        number = str(numbers[np.argmin(good)]).removesuffix(".0")
        raise InputError(
            "wrong_type",
            f"data: {number} is no {datatype}; expected whole numbers from {least} to {most}",
        )
    return numbers.astype(dtype)
