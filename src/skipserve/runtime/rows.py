"""Rows and labels as they come in, checked before anything is run on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, InputError

LARGEST_FP32 = float(np.finfo(np.float32).max)


def check_rows(rows: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """Validate rows [B, *shape] of a model and return them as contiguous FP32.

    Raises:
        InputError: Naming the first row that is wrong.
    """
    if rows.shape[1:] != shape or rows.ndim == 0:
        raise InputError(
            "wrong_shape",
            f"a row of {name} has shape {list(shape)}, got rows of shape {list(rows.shape[1:])}",
            row=0 if rows.ndim else None,
        )
    if len(rows) == 0:
        raise InputError("empty", "inputs holds no row; send at least one")
    if rows.dtype.kind not in "fiu":
        raise InputError("wrong_type", f"inputs must be numbers, got {rows.dtype}")
    if rows.dtype == np.float16:
        rows = rows.astype(np.float32)
    # One pass finds NaN, infinities and what float32 cannot hold.
    if not np.abs(rows).max() <= LARGEST_FP32:
        fits = np.abs(rows.reshape(len(rows), -1)).max(axis=1) <= LARGEST_FP32
        bad = int(np.argmin(fits))
        raise InputError(
            "not_finite",
            f"row {bad} holds NaN, an infinity or a number beyond float32; expected finite numbers",
            row=bad,
        )
    return np.ascontiguousarray(rows, dtype=np.float32)


def check_labels(labels: NDArray[Any], rows: int, classes: int, name: str) -> NDArray[np.int64]:
    """Validate the labels of so many rows of a model.

    Raises:
        ConfigError: If there are not as many, or they are not its classes.
    """
    if labels.shape != (rows,):
        raise ConfigError(
            f"labels must have shape [{rows}], one for each row; got {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iu":
        raise ConfigError(f"labels must hold whole numbers, got {labels.dtype}")
    known = (labels >= 0) & (labels < classes)
    if not known.all():
        row = int(np.argmin(known))
        raise ConfigError(
            f"labels: row {row} has class {labels[row]}, {name} knows 0 … {classes - 1}"
        )
    return labels.astype(np.int64)
