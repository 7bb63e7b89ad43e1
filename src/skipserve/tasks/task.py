"""The interface of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError

Kind = Literal["classify", "multilabel", "regress", "embed", "score"]
# ``agreement`` is a head of its own: the estimated chance that leaving here agrees.
SignalName = Literal["norm", "projected_norm", "margin", "confidence", "agreement"]
# How what a network gives becomes an answer; a head is fitted with the loss that belongs to it.
Link = Literal["softmax", "sigmoid", "identity", "unit"]
# What a certificate counts: each row, or all rows that are ranked for one query together.
Unit = Literal["rows", "queries"]
# Rows of answers [N, width], float32.
Answers: TypeAlias = NDArray[Any]
# Fields of a reply for one row.
OutputFields: TypeAlias = dict[str, object]


class ReplyRow(Protocol):
    """One row of a reply of the native protocol; fields of other tasks are ``None``."""

    label: int | None
    labels: list[int] | None
    probabilities: list[float] | None
    values: list[float] | None
    embedding: list[float] | None
    score: float | None


class Task(Protocol):
    """A task. An answer is a row of numbers [width]."""

    @property
    def kind(self) -> Kind:
        """The name of the task in manifests and build files."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers of an answer, in order; empty if they have none."""
        ...

    @property
    def width(self) -> int:
        """Numbers in an answer."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes of which an answer chooses one; 0 for other tasks."""
        ...

    @property
    def output(self) -> str:
        """The name of an answer in graphs and in the Open Inference Protocol."""
        ...

    @property
    def link(self) -> Link:
        """The function that turns the output of a network into an answer."""
        ...

    @property
    def border(self) -> tuple[int, float] | None:
        """Class and probability of the decision at a threshold, if there is one."""
        ...

    @property
    def signals(self) -> tuple[SignalName, ...]:
        """Signals that can be computed for the answers; the default comes first."""
        ...

    @property
    def top(self) -> int | None:
        """Documents of a query that count together; ``None`` where every row counts by itself."""
        ...

    @property
    def differs(self) -> str:
        """When two answers disagree, in words: "disagreement: …"."""
        ...

    def labels(self, answers: Answers) -> NDArray[np.int64] | None:
        """Decisions of answers [N, width]: [N] or [N, width]; ``None`` if it decides nothing."""
        ...

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        """Whether served answers [N, width] agree with full-depth ones [N, width]: [N] bool."""
        ...

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether answers [N, width] are right [N], for labels that :meth:`truth` has passed."""
        ...

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        """Validate the true labels of so many rows of a model.

        Raises:
            ConfigError: If they are not labels of such a task, or not as many.
        """
        ...

    def targets(self, answers: Answers) -> NDArray[np.float32]:
        """Targets of an exit head, from full-depth answers [N, width]."""
        ...

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        """Fields of a reply for each answer [N, width]; ``labels`` as :meth:`labels` gives."""
        ...

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        """The answer that a row of a reply holds; empty if it holds none."""
        ...

    def decision_in(self, row: ReplyRow) -> int | list[int] | None:
        """The decision that a row of a reply holds, as :meth:`labels` gives it."""
        ...

    def fault_in(self, row: ReplyRow) -> str:
        """Why a row of a reply cannot be an answer of this task; empty if it can."""
        ...


def check_shape(labels: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse labels that are not whole numbers of a shape.

    Raises:
        ConfigError: Saying what was expected.
    """
    if labels.shape != shape:
        raise ConfigError(
            f"labels must have shape {list(shape)}, one for each row; got {list(labels.shape)}"
        )
    if labels.dtype.kind not in "iub":
        raise ConfigError(f"labels must hold whole numbers, got {labels.dtype}")


def finite(answers: Answers) -> NDArray[np.bool_]:
    """Rows that can be answered [N]; one that is not finite is an error to whoever asked."""
    return np.asarray(np.isfinite(answers).all(axis=-1))


def agreeing(same: NDArray[np.bool_], served: Answers, full: Answers) -> NDArray[np.bool_]:
    """Rows that agree [N]: those that are the same, and those that are an error either way.

    Args:
        same: Whether two finite answers agree [N]; of others it means nothing.
        served: [N, width].
        full: [N, width].
    """
    one, other = finite(served), finite(full)
    return np.asarray((same & one & other) | ~(one | other))


def no_truth(kind: Kind, name: str) -> ConfigError:
    """The error for labels of a task without true labels."""
    return ConfigError(
        f"{name} answers with numbers ({kind}), which no label makes right or wrong: leave the "
        "labels out; what is certified is how often an answer differs from full depth"
    )


def label_names(task: Task) -> list[str]:
    """Names of the numbers of an answer; ``LABEL_i`` where they have none, as in transformers."""
    return list(task.names) or [f"LABEL_{i}" for i in range(task.width)]


def check_names(names: tuple[str, ...], width: int, what: str) -> None:
    """Refuse names whose number does not fit the width.

    Raises:
        ValueError: Saying how many there are.
    """
    if names and len(names) != width:
        raise ValueError(f"{len(names)} names for {width} {what}")
