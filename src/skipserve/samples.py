"""Rows and labels a person brings, or those of a recipe: read, and checked before they are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError

if TYPE_CHECKING:
    from skipserve.training.recipes import Samples, Split


def read_samples(
    rows: Path | None,
    labels: Path | None,
    recipe: str,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Rows [N, *inputs] and, if there are, classes [N] from .npy files; not checked yet.

    Args:
        rows: The rows; the certify split of the recipe with its labels if left out.
        labels: Whole numbers, one a row.
        recipe: Name of the recipe.
        say: Told if it could not be checked that nothing has touched the rows.

    Raises:
        ConfigError: If a file cannot be read as an array, labels came without rows, rows were
            trained or proposed on, or the recipe's own are asked for where nothing can draw them.
    """
    if rows is None:
        if labels is not None:
            raise ConfigError("--labels without --data: the recipe's own samples have theirs")
        try:
            samples = _draw(recipe, "certify")
        except ImportError as error:
            raise ConfigError(
                f"the samples of {recipe} cannot be drawn: {_package(error)} is not installed here "
                "(nor in the image); bring rows with --data, or certify where the model is built"
            ) from None
        return samples.inputs.numpy(), samples.labels.numpy()
    data = read_array(rows)
    try:
        check_untouched(data, recipe, str(rows))
    except ImportError as error:
        say(
            f"note: {_package(error)} is not installed here, so {rows} was not compared with the "
            f"rows {recipe} was trained on; a certificate holds only if it has none of them"
        )
    return data, None if labels is None else read_array(labels)


def check_untouched(rows: NDArray[Any], recipe: str, where: str) -> None:
    """Refuse rows that the network was trained on or thresholds were proposed on.

    A certificate on them would say how well they were learnt, and nothing about rows to come.

    Raises:
        ConfigError: With the number of such rows.
        ImportError: If what draws the recipe's rows is not installed.
    """
    if rows.dtype.kind not in "fiu" or not rows.ndim:
        return  # refused as rows of no model, with its own words
    mine = {row.tobytes() for row in rows.astype(np.float32)}
    splits: tuple[Split, ...] = ("train", "propose")
    for split in splits:
        seen = {row.tobytes() for row in _draw(recipe, split).inputs.numpy()}
        if mine & seen:
            raise ConfigError(
                f"{len(mine & seen)} rows of {where} are in the {split} split of {recipe}; "
                "certify on rows that nothing has touched"
            )


def _draw(recipe: str, split: Split) -> Samples:
    # Where a model only serves there is nothing to draw rows with.
    from skipserve.training.recipes import open_recipe

    return open_recipe(recipe).draw(split)


def _package(error: ImportError) -> str:
    return (error.name or "a package").partition(".")[0]


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
