"""Texts or pictures among the columns of a file, for a model that takes such."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ConfigError, suggestion
from skipserve.preprocessing.opening import open_preprocessor
from skipserve.preprocessing.pictures import Pictures
from skipserve.preprocessing.preprocessor import Preprocessor
from skipserve.sources.columns import objects
from skipserve.sources.picture_files import PictureFiles


@dataclass(frozen=True)
class Values:
    """Texts or pictures among the columns.

    Attributes:
        prepare: Makes tensors of them.
        kind: ``text`` or ``picture``.
        columns: Where they stand: one column, or two for pairs; found where none is named.
        classes: Names of the classes, which labels may be given by.
        built_with: Where they stood when the model was built: looked at before any other.
    """

    prepare: Preprocessor
    kind: Literal["text", "picture"]
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    built_with: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        prepare: Preprocessor,
        columns: Sequence[str] = (),
        classes: Sequence[str] = (),
        built_with: Sequence[str] = (),
    ) -> Values:
        """Make it of a preprocessor; pictures may be files here."""
        named = tuple(columns), tuple(classes), tuple(built_with)
        if isinstance(prepare, Pictures):
            return cls(PictureFiles(prepare), "picture", *named)
        return cls(prepare, "text", *named)

    def named(self, columns: Collection[str]) -> tuple[str, ...]:
        """Where they stand among the columns of a file, as far as that was said."""
        return self.columns or (self.built_with if set(self.built_with) <= set(columns) else ())


def values_of(artifact: Artifact, columns: Sequence[str] = ()) -> Values | None:
    """The preprocessing of an artifact for columns; ``None`` if it takes only tensors.

    Where none is named, they are by default those that the model was built with.

    Raises:
        ConfigError: If it does, and columns are named.
    """
    prepare = open_preprocessor(artifact)
    if prepare is None:
        if columns:
            raise ConfigError(
                f"--text names {columns[0]!r}, but {artifact.manifest.name} takes tensors alone; "
                "leave it out"
            )
        return None
    manifest = artifact.manifest
    return Values.of(prepare, columns, manifest.task.names, manifest.columns)


def find_values(
    columns: Mapping[str, NDArray[Any]], others: list[str], values: Values, where: str
) -> NDArray[np.object_]:
    """The values of each row: from one column, or pairs from two."""
    kind, named, listed = values.kind, values.named(columns), ", ".join(map(repr, columns))
    for name in named:
        if name not in columns:
            hint = suggestion(name, columns, "")
            raise ConfigError(f"{where} has no column {name!r} of {kind}s; {hint}")
    if not named and len(values.built_with) > 1:  # one of a pair is not what the model reads
        raise ConfigError(
            f"{where} lacks one of the columns {' and '.join(map(repr, values.built_with))}, which "
            f"the model was built with; it has {listed}: name the two that it reads with --text "
            "twice"
        )
    if not named:
        named = tuple(name for name in others if _may_hold(columns[name], kind))
        # Texts beside picture files are labels or descriptions.
        files = tuple(name for name in named if not isinstance(columns[name][0], str))
        named = files if kind == "picture" and files else named
        if len(named) != 1:
            raise ConfigError(
                f"{where} has {len(named) or 'no'} columns of {kind}s among {listed}; name the one "
                f"that the model reads with --{kind}"
            )
    most = 2 if kind == "text" else 1
    if len(named) > most:
        pairs = ", or two for pairs" if kind == "text" else ""
        raise ConfigError(f"{len(named)} columns of {kind}s; expected one{pairs}")
    for name in named:
        if not _may_hold(columns[name], kind):
            raise ConfigError(
                f"{where}: column {name!r} holds {columns[name].dtype}, expected {kind}s"
            )
    first, *second = (list(columns[name]) for name in named)
    return objects([list(pair) for pair in zip(first, second[0], strict=True)] if second else first)


def _may_hold(column: NDArray[Any], kind: Literal["text", "picture"]) -> bool:
    """Whether a column may hold texts or pictures."""
    pixels = column.ndim > 2 and column.dtype.kind in "iu"
    return column.dtype.kind in "OU" or (kind == "picture" and pixels)
