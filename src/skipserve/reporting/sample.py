"""The rows a model is looked at with: its recipe's test split, or a person's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.reporting.model import Model
from skipserve.training.recipes import open_recipe

LARGEST_FP32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Sample:
    """Rows, with labels where there are any.

    Attributes:
        inputs: [N, *inputs], float32.
        labels: [N], int64, or ``None``.
        source: Where they come from, in words.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> Sample:
        """The first ``count`` rows, or all if there are fewer."""
        labels = None if self.labels is None else self.labels[:count]
        return Sample(self.inputs[:count], labels, self.source)


def take_sample(
    model: Model,
    data: NDArray[Any] | None = None,
    labels: NDArray[Any] | None = None,
    source: str = "the given rows",
) -> Sample:
    """Check a person's rows, or draw the test split of the model's recipe.

    Args:
        model: What they are for.
        data: Rows [N, *inputs], or ``None`` for the recipe's.
        labels: Classes [N] of ``data``.
        source: What ``data`` is called in the report.

    Raises:
        ConfigError: If the rows or labels do not fit the model or each other, or the recipe is
            unknown.
    """
    if data is None:
        if labels is not None:
            raise ConfigError("--labels belong to --data rows.npy; give both, or neither")
        drawn = open_recipe(model.recipe).draw("test")
        return Sample(
            drawn.inputs.numpy(), drawn.labels.numpy(), f"the test split of {model.recipe}"
        )
    rows = _checked_rows(model, data)
    return Sample(rows, None if labels is None else _checked_labels(model, labels, rows), source)


def _checked_rows(model: Model, data: NDArray[Any]) -> NDArray[np.float32]:
    expected = model.row_shape
    if data.ndim == 0 or data.shape[1:] != expected:
        raise ConfigError(
            f"a row of {model.name} has shape {list(expected)}, so --data must have shape "
            f"{['N', *expected]}; got {list(data.shape)}".replace("'N'", "N")
        )
    if len(data) == 0:
        raise ConfigError("--data holds no row; give at least one")
    if data.dtype.kind not in "fiu":
        raise ConfigError(f"--data must hold numbers, got {data.dtype}")
    fits = np.abs(data.reshape(len(data), -1).astype(np.float64)).max(axis=1) <= LARGEST_FP32
    if not fits.all():
        raise ConfigError(
            f"--data: row {int(np.argmin(fits))} holds NaN, an infinity or a number beyond "
            "float32; expected finite numbers"
        )
    return np.ascontiguousarray(data, dtype=np.float32)


def _checked_labels(
    model: Model, labels: NDArray[Any], rows: NDArray[np.float32]
) -> NDArray[np.int64]:
    if labels.shape != (len(rows),):
        raise ConfigError(
            f"--labels must have shape [{len(rows)}], one for each row; got {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iu":
        raise ConfigError(f"--labels must hold whole numbers, got {labels.dtype}")
    known = (labels >= 0) & (labels < model.classes)
    if not known.all():
        row = int(np.argmin(known))
        raise ConfigError(
            f"--labels: row {row} has class {labels[row]}, {model.name} knows 0 … "
            f"{model.classes - 1}"
        )
    return labels.astype(np.int64)
