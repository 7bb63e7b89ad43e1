"""The sample of a report: the test split of the model, or rows that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.errors import ConfigError
from skipserve.reporting.model import Model
from skipserve.runtime.rows import Rows
from skipserve.samples import check_named, read_file
from skipserve.sources.recipe import INPUT
from skipserve.sources.splits import Labelled
from skipserve.sources.values import values_of
from skipserve.training.recipes import open_recipe

SplitName = Literal["propose", "certify", "test"]


@dataclass(frozen=True)
class Sample:
    """Rows, with labels where there are any.

    Attributes:
        rows: N of them.
        labels: Classes [N] or sets of labels [N, width], int64, or ``None``.
        source: Where they come from, in words.
        queries: The query of each [N], or ``None`` where each is by itself.
    """

    rows: Rows
    labels: NDArray[np.int64] | None
    source: str
    queries: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def inputs(self) -> NDArray[Any]:
        """The first input [N, …], which is the only one of networks trained here."""
        return next(iter(self.rows.tensors.values()))

    @property
    def classes(self) -> NDArray[np.int64] | None:
        """The classes [N], if each row has exactly one."""
        return self.labels if self.labels is not None and self.labels.ndim == 1 else None

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Sample:
        """The same of some rows."""
        labels = None if self.labels is None else self.labels[index]
        queries = None if self.queries is None else self.queries[index]
        return Sample(self.rows[index], labels, self.source, queries)


def take_sample(
    model: Model,
    data: Path | None = None,
    labels: str | None = None,
    text: Sequence[str] = (),
    query: str | None = None,
) -> Sample:
    """Read the rows of a file, or take the test split of the model.

    Args:
        model: What they are for.
        data: A file of rows (.npz, .npy, .parquet, .csv, .jsonl); ``None`` takes the test split of
            the model's recipe, or of its build file where it was brought.
        labels: The column of true classes in ``data``, or a .npy file of them.
        text: Its columns of texts; by default those that the model was built with, or the only one.
        query: Its column of queries, where the task counts these; if left out, the one that the
            model was built with, or the first text of each pair.

    Raises:
        ConfigError: If the rows or labels do not fit the model or each other, or there are none.
    """
    check_named(data, labels, text, query)
    if data is None:
        found = split_of(model, "test")
        source = f"the test split of {_origin(model)}"
        return Sample(found.rows, found.labels, source, found.queries)
    values = None if model.artifact is None else values_of(model.artifact, text)
    read = read_file(data, labels, model, values, query)
    known = None
    if read.labels is not None:
        known = model.task.truth(read.labels, len(read), model.name)
    return Sample(read.rows, known, data.name, read.queries)


def split_of(model: Model, name: SplitName) -> Labelled:
    """One split of the rows of a model.

    Raises:
        ConfigError: If its recipe is unknown, or it was brought and its build file is gone.
    """
    if model.recipe is not None:
        drawn = open_recipe(model.recipe).draw(name)
        rows = Rows({INPUT: drawn.inputs.numpy()})
        return Labelled(rows, drawn.labels.numpy().astype(np.int64))
    if not model.build_file.is_file():
        raise ConfigError(
            f"{model.name} was brought, and there is no {model.build_file} to say with which rows; "
            "name some with --data FILE"
        )
    splits = Sourced(read_build_file(model.build_file)).rows
    return {"propose": splits.propose, "certify": splits.certify, "test": splits.test}[name]


def _origin(model: Model) -> str:
    if model.recipe is not None:
        return model.recipe
    brought = read_build_file(model.build_file).brought
    assert brought is not None
    return brought.data.rows
