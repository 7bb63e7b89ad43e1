"""What every task says."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError

Kind = Literal["classify", "multilabel", "regress", "embed", "score"]
# ``agreement`` is a head of its own: the estimated chance that leaving here agrees.
SignalName = Literal["norm", "projected_norm", "margin", "confidence", "agreement"]
# How what a network gives becomes an answer; a head is fitted with the loss that belongs to it.
Link = Literal["softmax", "sigmoid", "identity", "unit"]
# Rows of answers [N, width], float32.
Answers: TypeAlias = NDArray[Any]
# Fields of a reply for one row.
OutputFields: TypeAlias = dict[str, object]


class Task(Protocol):
    """What a task says. An answer is a row of numbers [width]."""

    @property
    def kind(self) -> Kind:
        """Its name in a manifest and in a build file."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers of an answer, in order; empty where they have none."""
        ...

    @property
    def width(self) -> int:
        """Numbers in an answer."""
        ...

    @property
    def classes(self) -> int:
        """Classes of which an answer decides for one; 0 where it decides nothing of the kind."""
        ...

    @property
    def output(self) -> str:
        """What an answer is called, in graphs and in the Open Inference Protocol."""
        ...

    @property
    def link(self) -> Link:
        """How what a network gives becomes an answer."""
        ...

    @property
    def border(self) -> tuple[int, float] | None:
        """Class and probability of the only decision that counts, if there is one."""
        ...

    @property
    def signals(self) -> tuple[SignalName, ...]:
        """Signals that can be computed for such answers; the one to begin with comes first."""
        ...

    @property
    def differs(self) -> str:
        """When two answers disagree, in words that follow "disagreement: "."""
        ...

    def labels(self, answers: Answers) -> NDArray[np.int64] | None:
        """What is decided by answers [N, width]: [N] or [N, width]; ``None``: nothing."""
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
        """What an exit head is fitted to, from full-depth answers [N, width]."""
        ...

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        """Fields of a reply for each answer [N, width]; ``labels`` as :meth:`labels` gives."""
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


def neither(served: Answers, full: Answers) -> NDArray[np.bool_]:
    """Rows that overflow whichever way they run: a client gets the same error for both [N]."""
    return np.asarray(~(np.isfinite(served).all(axis=-1) | np.isfinite(full).all(axis=-1)))


def no_truth(kind: Kind, name: str) -> ConfigError:
    """For tasks whose answers are right or wrong by no label."""
    return ConfigError(
        f"{name} answers with numbers ({kind}), which no label makes right or wrong: leave the "
        "labels out; what is certified is how often an answer differs from full depth"
    )


def label_names(task: Task) -> list[str]:
    """What the numbers of an answer are called; as transformers calls those without names."""
    return list(task.names) or [f"LABEL_{i}" for i in range(task.width)]


def check_names(names: tuple[str, ...], width: int, what: str) -> None:
    """Refuse names that are not as many as there are numbers.

    Raises:
        ValueError: Saying how many there are.
    """
    if names and len(names) != width:
        raise ValueError(f"{len(names)} names for {width} {what}")
