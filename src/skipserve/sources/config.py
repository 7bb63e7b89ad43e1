"""The sections [source] and [data] of a build file: a network that was brought, and rows for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.schema import Record
from skipserve.tasks import TaskConfig

Exporter = Literal["torchscript", "dynamo"]


class SourceConfig(Record):
    """The section [source]: exactly one kind of source.

    Attributes:
        onnx: An ``.onnx`` file, relative to the project.
        module: ``module:function``; the function takes nothing and returns a torch module in
            evaluation mode and an example of its inputs.
        folder: A Hugging Face folder, relative to the project; it names its classes itself.
        exporters: Of torch, that make a graph of a folder's weights; the faster graph is kept.
    """

    onnx: str | None = None
    module: str | None = None
    folder: str | None = None
    exporters: Annotated[tuple[Exporter, ...], Field(min_length=1)] = ("torchscript", "dynamo")

    def model_post_init(self, _context: Any) -> None:
        if [self.onnx, self.module, self.folder].count(None) != 2:
            raise ValueError(
                "name one of onnx = 'FILE', module = 'module:function' and folder = 'FOLDER'"
            )


class DataConfig(Record):
    """The section [data]: rows for a brought network.

    Attributes:
        rows: A file of rows (.npz, .npy, .parquet, .csv or .jsonl), or a folder of pictures with a
            folder for each class, relative to the project; split for proposing, certifying and
            testing, and for fitting if ``fit`` is left out.
        fit: Rows to fit heads and guards on, such as those the network was trained on.
        labels: The column of true classes; of ``multilabel`` lists of names, or of 0 and 1.
        text: The column of texts, or two for pairs of texts; where none is named, the only one.
        query: The column that says which query a row belongs to, where the task counts queries;
            the first text of each pair where none is named.
        picture: The column of pictures; where none is named, the only one.
        columns: What each input is called in the files, where the names differ.
        seed: From 0 to 2⁶³ − 1; another seed is another split.
    """

    rows: str
    fit: str | None = None
    labels: str | None = None
    text: str | tuple[str, ...] = ()
    query: str | None = None
    picture: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0

    def model_post_init(self, _context: Any) -> None:
        if self.picture is not None and self.text:
            raise ValueError(
                "text and picture are both named; a model takes the one or the other: leave one out"
            )

    @property
    def values(self) -> tuple[str, ...]:
        """The columns of texts or pictures."""
        if self.picture is not None:
            return (self.picture,)
        return (self.text,) if isinstance(self.text, str) else self.text


class Brought(Record):
    """A brought network: source, rows and task.

    Attributes:
        source: The network.
        data: The rows.
        task: What its answers are.
        tuned: Weights that take the place of its own, relative to the project, or ``None``.
    """

    source: SourceConfig
    data: DataConfig
    task: TaskConfig = TaskConfig()
    tuned: str | None = None
