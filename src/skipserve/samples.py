"""Samples for certification: rows and labels of a file or a recipe, checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Manifest
from skipserve.artifacts.touched import read_touched
from skipserve.errors import ConfigError
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature
from skipserve.sources.columns import UNNAMED, read_columns, require_rows
from skipserve.sources.contents import contents_of
from skipserve.sources.matching import match
from skipserve.sources.queries import with_queries
from skipserve.sources.splits import Labelled
from skipserve.sources.values import Values
from skipserve.tasks import Task


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
    artifact: Artifact,
    say: Callable[[str], None] = lambda line: None,
    values: Values | None = None,
    query: str | None = None,
) -> Labelled:
    """Rows of a model, and their classes if there are any.

    Args:
        rows: A file of rows; the certify split of the recipe with its labels if left out.
        labels: The column of classes in that file, or a .npy file of whole numbers, one a row.
        artifact: The model.
        say: Receives a warning if it cannot be checked that the rows are untouched.
        values: What becomes of texts or pictures in the file, if the model takes such.
        query: The column of queries in that file, where the task counts queries; if left out, the
            one that the model was built with, or the first text of each pair.

    Raises:
        ConfigError: If a file cannot be read or does not fit the model, labels came without rows,
            something was fitted to rows, or there are none where none were named.
        ArtifactError: If what it was fitted to is damaged.
    """
    check_named(rows, labels, () if values is None else values.columns, query)
    if rows is None:
        return _own(artifact.manifest)
    data = read_file(rows, labels, artifact.manifest, values, query)
    _check_untouched(data.rows, artifact, str(rows), say)
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


def _own(manifest: Manifest) -> Labelled:
    recipe, name = manifest.recipe, manifest.name
    if recipe is None:
        raise ConfigError(
            f"{name} was brought, so its rows are not known here; name rows that nothing was "
            f"fitted to with --data, or run `skipserve calibrate export/{name}.toml`"
        )
    try:
        # Where a model only serves there is nothing to draw rows with.
        from skipserve.training.recipes import open_recipe

        samples = open_recipe(recipe).draw("certify")
    except ImportError as error:
        raise ConfigError(
            f"the samples of {recipe} cannot be drawn: {_package(error)} is not installed here "
            "(nor in the image); bring rows with --data, or certify where the model is built"
        ) from None
    return Labelled(Rows({"inputs": samples.inputs.numpy()}), samples.labels.numpy())


def _check_untouched(
    rows: Rows, artifact: Artifact, where: str, say: Callable[[str], None]
) -> None:
    """Refuse rows that the network was trained on, or that heads or thresholds were fitted to."""
    name, touched = artifact.manifest.name, read_touched(artifact.directory)
    if touched is None:
        say(
            f"note: {name} does not say which rows it was fitted to, so {where} was not compared "
            "with them; a certificate holds only if it has none of them; build it again to know"
        )
        return
    seen = int(np.isin(contents_of(rows, artifact.manifest.signature), touched).sum())
    if seen:
        raise ConfigError(
            f"{seen} of {len(rows)} rows of {where} are among those that {name} was fitted to; "
            f"certify on rows that nothing has touched: `skipserve calibrate export/{name}.toml` "
            "takes those that the build kept for it"
        )


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
