"""Rows: named tensors with one entry a row, checked before they run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InputError
from skipserve.signature import Signature, TensorSpec

Index = NDArray[np.int64] | NDArray[np.bool_] | slice
LARGEST_FP32 = float(np.finfo(np.float32).max)


class Rows:
    """Some rows of a model.

    Args:
        tensors: By name of the input [N, …]; of one length, at least one.
    """

    __slots__ = ("_count", "tensors")

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.tensors = dict(tensors)
        self._count = len(next(iter(self.tensors.values())))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Index) -> Rows:
        """Some of the rows."""
        return Rows({name: tensor[index] for name, tensor in self.tensors.items()})

    def repeat(self, times: int) -> Rows:
        """Repeat every row; copies stand next to each other."""
        return Rows({name: tensor.repeat(times, axis=0) for name, tensor in self.tensors.items()})

    @property
    def sha256(self) -> str:
        """SHA-256 of names, dtypes, shapes and numbers, independent of the file."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one row of each tensor, in the order of the inputs."""
        return tuple(tensor.shape[1:] for tensor in self.tensors.values())


def join(parts: Sequence[Rows]) -> Rows:
    """Concatenate rows of equal shapes; at least one part."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].tensors
    return Rows({name: np.concatenate([part.tensors[name] for part in parts]) for name in names})


def pad(rows: Rows, signature: Signature, sizes: Mapping[str, int]) -> Rows:
    """Pad rows in their free dimensions; the mask is 0 there.

    Args:
        rows: To pad.
        signature: Names the free dimensions.
        sizes: What each free dimension grows to.
    """
    padded = {}
    for name, tensor in rows.tensors.items():
        spec = signature.input(name)
        assert spec is not None
        widths = [(0, 0)] + [
            (0, sizes[size] - have if isinstance(size, str) else 0)
            for size, have in zip(spec.row_shape, tensor.shape[1:], strict=True)
        ]
        padded[name] = np.pad(tensor, widths) if any(after for _, after in widths) else tensor
    return Rows(padded)


def check_rows(values: object, signature: Signature, name: str) -> Rows:
    """Validate rows of a model and return them contiguous, in the dtypes of its inputs.

    Args:
        values: A mapping of input names to arrays [N, …], or one array for a model of one input.
        signature: Of the model.
        name: Of the model, for the error.

    Raises:
        InputError: Naming the input and the first row that are wrong.
    """
    if not isinstance(values, Mapping):
        if len(signature.inputs) > 1:
            names = ", ".join(repr(one.name) for one in signature.inputs)
            raise InputError(
                "missing_input", f"{name} takes several inputs ({names}); send each by its name"
            )
        values = {signature.inputs[0].name: values}
    # `in` would make the arrays of a mapping that makes them when they are read.
    given = set(values)
    if unknown := given.difference(one.name for one in signature.inputs):
        names = ", ".join(repr(one.name) for one in signature.inputs)
        raise InputError("unknown_input", f"{name} has no input {min(unknown)!r}, only {names}")
    tensors, free = {}, dict[str, tuple[int, str]]()
    count = None
    for spec in signature.inputs:
        if spec.name not in given:
            raise InputError("missing_input", f"the input {spec.name!r} of {name} is missing")
        which = "" if len(signature.inputs) == 1 else f" of {spec.name!r}"
        tensor = _check_tensor(values[spec.name], spec, name, which)
        if count is None:
            count = len(tensor)
        if len(tensor) != count:
            raise InputError(
                "wrong_shape",
                f"{spec.name!r} holds {len(tensor)} rows, {signature.inputs[0].name!r} {count}; "
                "every input has one entry a row",
            )
        for size, have in zip(spec.row_shape, tensor.shape[1:], strict=True):
            if isinstance(size, str):
                other, where = free.setdefault(size, (have, spec.name))
                if other != have:
                    raise InputError(
                        "wrong_shape",
                        f"{size} is {have} in {spec.name!r} and {other} in {where!r}; "
                        "they must be equal",
                    )
                most = signature.largest.get(size)
                if most is not None and have > most:
                    raise InputError(
                        "wrong_shape",
                        f"{size} of {spec.name!r} is {have}, {name} takes {most} at most; send "
                        "shorter rows",
                    )
        tensors[spec.name] = tensor
    return Rows(tensors)


def _check_tensor(values: Any, spec: TensorSpec, name: str, which: str) -> NDArray[Any]:
    rows = np.asarray(values)
    shape = spec.row_shape
    fits = rows.ndim == len(spec.shape) and all(
        want == have if isinstance(want, int) else have > 0
        for want, have in zip(shape, rows.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(
            "wrong_shape",
            f"a row{which} of {name} has shape {list(shape)}, got rows of shape "
            f"{list(rows.shape[1:])}",
            row=0 if rows.ndim else None,
        )
    if len(rows) == 0:
        raise InputError("empty", f"{spec.name} holds no row; send at least one")
    if rows.dtype.kind not in "fiub":
        raise InputError("wrong_type", f"{spec.name} must be numbers, got {rows.dtype}")
    if np.dtype(spec.dtype).kind == "f":
        return _check_floats(rows, np.dtype(spec.dtype), which)
    checked = _check_integers(rows, np.dtype(spec.dtype), spec.name)
    _check_known(checked, spec, name)
    return checked


def _check_floats(rows: NDArray[Any], dtype: np.dtype[Any], which: str) -> NDArray[Any]:
    largest = float(np.finfo(dtype).max)
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    elif rows.dtype == np.float16:
        rows = rows.astype(np.float32)
    # One pass finds NaN, infinities and what the dtype cannot hold.
    if not np.abs(rows).max() <= largest:
        fits = np.abs(rows.reshape(len(rows), -1)).max(axis=1) <= largest
        bad = int(np.argmin(fits))
        raise InputError(
            "not_finite",
            f"row {bad}{which} holds NaN, an infinity or a number beyond {dtype.name}; "
            "expected finite numbers",
            row=bad,
        )
    return np.ascontiguousarray(rows, dtype=dtype)


def _check_integers(rows: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if rows.dtype == dtype:
        return np.ascontiguousarray(rows)
    low, high = (
        (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    )
    flat = rows.reshape(len(rows), -1)
    if rows.dtype.kind == "f":
        # The largest INT64 is no float; one more is.
        good = (flat >= low) & (flat < float(high + 1)) & (flat == np.floor(flat))
    else:
        good = (flat >= low) & (flat <= high)
    if not good.all():
        bad = int(np.argmin(good.all(axis=1)))
        raise InputError(
            "wrong_type",
            f"row {bad} of {name!r} holds a number that is no {dtype.name}; expected whole "
            f"numbers from {low} to {high}",
            row=bad,
        )
    return np.ascontiguousarray(rows, dtype=dtype)


def _check_known(rows: NDArray[Any], spec: TensorSpec, name: str) -> None:
    if spec.count is None or (rows.min() >= 0 and rows.max() < spec.count):
        return
    flat = rows.reshape(len(rows), -1)
    good = (flat >= 0) & (flat < spec.count)
    bad = int(np.argmin(good.all(axis=1)))
    number = flat[bad, np.argmin(good[bad])]
    raise InputError(
        "out_of_range",
        f"row {bad} of {spec.name!r} holds {number}; {name} knows 0 … {spec.count - 1}",
        row=bad,
    )
