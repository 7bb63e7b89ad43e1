"""The sections [source] and [data] of a build file: a network that was brought, and rows for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from skipserve.schema import Record
from skipserve.tasks import TaskConfig


class SourceConfig(Record):
    """Where a network comes from: one of the two.

    Attributes:
        onnx: An ``.onnx`` file, relative to the project.
        module: ``module:function``; the function takes nothing and returns a torch module in
            evaluation mode and an example of its inputs.
    """

    onnx: str | None = None
    module: str | None = None

    def model_post_init(self, _context: Any) -> None:
        if (self.onnx is None) == (self.module is None):
            raise ValueError("name either onnx = 'FILE' or module = 'module:function'")


class DataConfig(Record):
    """Rows for a network that was brought.

    Attributes:
        rows: A file of rows (.npz, .npy, .parquet, .csv or .jsonl), relative to the project; split
            for proposing, certifying and testing, and for fitting if ``fit`` is left out.
        fit: Rows to fit heads and guards on, such as those the network was trained on.
        labels: The column of true classes, of ``multilabel`` lists of 0 and 1, or ``None``.
        columns: What each input is called in the files, where the names differ.
        seed: Another seed is another split.
    """

    rows: str
    fit: str | None = None
    labels: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    seed: int = 0


class Brought(Record):
    """A network that was brought, rows for it, and what its answers are."""

    source: SourceConfig
    data: DataConfig
    task: TaskConfig = TaskConfig()

    def files(self, root: Path) -> Iterator[Path]:
        """The files that the outcome depends on."""
        for name in (self.source.onnx, self.data.rows, self.data.fit):
            if name is not None:
                yield root / name
