"""Samples for certification: rows and labels of a file or a recipe, checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import ConfigError
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature
from skipserve.sources.columns import UNNAMED, read_columns, require_rows
from skipserve.sources.matching import match
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import Labelled
from skipserve.sources.values import Values
from skipserve.tasks import Task

if TYPE_CHECKING:
    from skipserve.training.recipes import Samples, Split


class Described(Protocol):
    """Anything that says what a model takes and gives: a manifest, or a model that is reported."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    @property
    def task(self) -> Task:
        """What its answers are."""
        ...

    @property
    def query(self) -> str | None:
        """The column of queries in its rows, where one was named when it was built."""
        ...


def check_named(
    data: Path | None,
    labels: str | None = None,
    text: Sequence[str] = (),
    query: str | None = None,
) -> None:
    """Look whether the files are there, and refuse names of columns where none was named.

    Args:
        data: The file, or ``None``.
        labels: Its column of classes, or a file beside it.
        text: Its columns of texts.
        query: Its column of queries.

    Raises:
        ConfigError: Naming the option, or the file that is not there.
    """
    named = {"--labels": labels, "--text": text, "--query": query}
    for option, value in named.items():
        if value and data is None:
            raise ConfigError(f"{option} without --data: it is about the rows of that file")
    if data is not None:
        require_rows(data)
        if _apart(labels):
            require_rows(Path(labels or ""))


def read_samples(
    rows: Path | None,
    labels: str | None,
    manifest: Manifest,
    say: Callable[[str], None] = lambda line: None,
    values: Values | None = None,
    query: str | None = None,
) -> Labelled:
    """Rows of a model, and their classes if there are any.

    Args:
        rows: A file of rows; the certify split of the recipe with its labels if left out.
        labels: The column of classes in that file, or a .npy file of whole numbers, one a row.
        manifest: Of the model.
        say: Receives a warning if it cannot be checked that the rows are untouched.
        values: What becomes of texts or pictures in the file, if the model takes such.
        query: The column of queries in that file, where the task counts queries; if left out, the
            one that the model was built with, or the first text of each pair.

    Raises:
        ConfigError: If a file cannot be read or does not fit the model, labels came without rows,
            rows were trained or proposed on, or there are none where none were named.
    """
    check_named(rows, labels, () if values is None else values.columns, query)
    recipe = manifest.recipe
    if rows is None:
        return _own(recipe, manifest.name)
    data = read_file(rows, labels, manifest, values, query)
    if recipe is None:
        return data
    try:
        check_untouched(data.rows, recipe, str(rows))
    except ImportError as error:
        say(
            f"note: {_package(error)} is not installed here, so {rows} was not compared with the "
            f"rows {recipe} was trained on; a certificate holds only if it has none of them"
        )
    return data


def read_file(
    file: Path,
    labels: str | None,
    model: Described,
    values: Values | None = None,
    query: str | None = None,
) -> Labelled:
    """Rows from a file for a model, their classes and queries, not checked yet.

    Args:
        file: Of rows.
        labels: A column of it, or a .npy file of whole numbers, one a row.
        model: Its signature and task.
        values: What becomes of texts or pictures in it, if the model takes such.
        query: A column of it, as for :func:`read_samples`.

    Raises:
        ConfigError: If a file cannot be read, or the rows do not fit.
    """
    apart = _apart(labels)
    column = None if apart else labels
    columns = read_columns(file)
    query = query or model.query
    data = match(columns, model.signature, {}, column, str(file), values, query)
    data = with_queries(data, model.task, columns, query, str(file))
    if labels is not None and apart:
        return replace(data, labels=read_array(Path(labels)))
    return data


def _apart(labels: str | None) -> bool:
    """Whether the classes are in a file of their own."""
    return labels is not None and labels.endswith(".npy")


def _own(recipe: str | None, name: str) -> Labelled:
    if recipe is None:
        raise ConfigError(
            f"{name} was brought, so its rows are not known here; name rows that nothing was "
            f"fitted to with --data, or run `skipserve calibrate export/{name}.toml`"
        )
    try:
        samples = _draw(recipe, "certify")
    except ImportError as error:
        raise ConfigError(
            f"the samples of {recipe} cannot be drawn: {_package(error)} is not installed here "
            "(nor in the image); bring rows with --data, or certify where the model is built"
        ) from None
    return Labelled(Rows({"inputs": samples.inputs.numpy()}), samples.labels.numpy())


def check_untouched(rows: Rows, recipe: str, where: str) -> None:
    """Refuse rows that were used to train the network or to propose thresholds.

    A certificate on them would say how well they were learnt, and nothing about rows to come.

    Raises:
        ConfigError: With the number of such rows.
        ImportError: If what draws the recipe's rows is not installed.
    """
    (inputs,) = rows.tensors.values()
    mine = {row.tobytes() for row in inputs.astype(np.float32)}
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
    columns = read_columns(file)
    if UNNAMED not in columns:
        raise ConfigError(f"{file} is no .npy file; expected what numpy.save writes")
    return columns[UNNAMED]
