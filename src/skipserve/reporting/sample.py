"""The rows a model is looked at with: its recipe's test split, or a person's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, InputError
from skipserve.reporting.model import Model
from skipserve.runtime.rows import check_labels, check_rows
from skipserve.training.recipes import open_recipe


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
    try:
        rows = check_rows(data, model.row_shape, model.name)
    except InputError as error:
        raise ConfigError(f"--data: {error}") from None
    if labels is not None:
        labels = check_labels(labels, len(rows), model.classes, model.name)
    return Sample(rows, labels, source)
