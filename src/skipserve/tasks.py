"""Tasks: what an answer is, when two answers agree, and what decides that one is settled.

A task says four things, and nothing else in the package knows them: how to read the graph's
answer, when the served answer agrees with the full-depth one, which signals exist, and what an exit
head is fitted to.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.schema import Record

SignalName = Literal["norm", "projected_norm", "margin", "confidence"]


class Task(Protocol):
    """What a task says. An answer is a row of numbers [width]."""

    @property
    def width(self) -> int:
        """Numbers in an answer."""
        ...

    @property
    def signals(self) -> tuple[SignalName, ...]:
        """Signals that can be computed for such answers."""
        ...

    def labels(self, answers: NDArray[Any]) -> NDArray[np.int64]:
        """Answers [N, width] to what is decided by them [N], int64."""
        ...

    def agree(self, served: NDArray[Any], full: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether served answers [N, width] agree with full-depth ones [N, width]: [N] bool."""
        ...

    def targets(self, answers: NDArray[Any]) -> NDArray[np.float32]:
        """What an exit head is fitted to, from full-depth answers [N, width]."""
        ...


class Classify(Record):
    """One of several classes; the answer is their probabilities.

    Attributes:
        classes: How many.
        names: Of the classes, in order; empty where the model has none.
    """

    kind: Literal["classify"] = "classify"
    classes: Annotated[int, Field(ge=2)]
    names: tuple[str, ...] = ()

    def model_post_init(self, _context: Any) -> None:
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"{len(self.names)} names for {self.classes} classes")

    @property
    def width(self) -> int:
        return self.classes

    @property
    def signals(self) -> tuple[SignalName, ...]:
        return ("norm", "projected_norm", "margin", "confidence")

    def labels(self, answers: NDArray[Any]) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = answers.argmax(axis=-1)
        return labels

    def agree(self, served: NDArray[Any], full: NDArray[Any]) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self.labels(served) == self.labels(full)
        return same

    def targets(self, answers: NDArray[Any]) -> NDArray[np.float32]:
        return answers.astype(np.float32)
