"""Rows and labels a person brings, or those of a recipe: read, and checked before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.training.recipes import open_recipe


def read_samples(
    rows: Path | None, labels: Path | None, recipe: str
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Rows [N, *inputs] and, if there are, classes [N] from .npy files; not checked yet.

    Args:
        rows: The rows; the certify split of the recipe with its labels if left out.
        labels: Whole numbers, one a row.
        recipe: Name of the recipe.

    Raises:
        ConfigError: If a file cannot be read as an array, labels came without rows, or rows were
            trained or proposed on.
    """
    if rows is None:
        if labels is not None:
            raise ConfigError("--labels without --data: the recipe's own samples have theirs")
        samples = open_recipe(recipe).draw("certify")
        return samples.inputs.numpy(), samples.labels.numpy()
    data = read_array(rows)
    check_untouched(data, recipe, str(rows))
    return data, None if labels is None else read_array(labels)


def check_untouched(rows: NDArray[Any], recipe: str, where: str) -> None:
    """Refuse rows that the network was trained on or thresholds were proposed on.

    A certificate on them would say how well they were learnt, and nothing about rows to come.

    Raises:
        ConfigError: With the number of such rows.
    """
    if rows.dtype.kind not in "fiu" or not rows.ndim:
        return  # refused as rows of no model, with its own words
    mine = {row.tobytes() for row in rows.astype(np.float32)}
    for split in ("train", "propose"):
        seen = {row.tobytes() for row in open_recipe(recipe).draw(split).inputs.numpy()}
        if mine & seen:
            raise ConfigError(
                f"{len(mine & seen)} rows of {where} are in the {split} split of {recipe}; "
                "certify on rows that nothing has touched"
            )


def read_array(file: Path) -> NDArray[Any]:
    """An array from a .npy file.

    Raises:
        ConfigError: If it cannot be read as one.
    """
    try:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a .npy array: {error}") from None
    return array
