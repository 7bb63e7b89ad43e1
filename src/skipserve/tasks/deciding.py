"""Tasks that decide by probabilities: one class of several, or any of several labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.errors import ConfigError
from skipserve.schema import Record
from skipserve.tasks.task import (
    Answers,
    Link,
    OutputFields,
    ReplyRow,
    SignalName,
    agreeing,
    check_names,
    check_shape,
    finite,
)

# A set of labels holds those that are at least as likely as not.
HALF = 0.5
# Replies hold probabilities as rounded decimals of FP32 or FP16.
SUMS_TO_ONE = 5e-3


class Decision(Record):
    """A threshold of a class: the class is chosen if its probability reaches it.

    Attributes:
        label: Its place among the classes.
        at: The probability.
    """

    label: Annotated[int, Field(ge=0)]
    at: Annotated[float, Field(gt=0, lt=1)]


class Classify(Record):
    """One of several classes; the answer is their probabilities.

    Attributes:
        classes: How many.
        names: Of the classes, in order; empty where the model has none.
        decide: Where one class is decided for by a threshold and not by being the likeliest;
            below it the answer is the likeliest of the others.
    """

    kind: Literal["classify"] = "classify"
    classes: Annotated[int, Field(ge=2)]
    names: tuple[str, ...] = ()
    decide: Decision | None = None

    def model_post_init(self, _context: Any) -> None:
        check_names(self.names, self.classes, "classes")
        if self.decide is not None and self.decide.label >= self.classes:
            raise ValueError(f"decide.label is {self.decide.label}, there are {self.classes}")

    @property
    def width(self) -> int:
        return self.classes

    @property
    def output(self) -> str:
        return "probabilities"

    @property
    def link(self) -> Link:
        return "softmax"

    @property
    def border(self) -> tuple[int, float] | None:
        return None if self.decide is None else (self.decide.label, self.decide.at)

    @property
    def top(self) -> None:
        return None

    @property
    def signals(self) -> tuple[SignalName, ...]:
        if self.decide is not None:
            # The margin to the threshold decides, not that of the likeliest class.
            return ("margin", "agreement", "norm", "projected_norm")
        return ("margin", "confidence", "agreement", "norm", "projected_norm")

    @property
    def differs(self) -> str:
        if self.decide is None:
            return "another class is the likeliest"
        return f"the decision differs, {self._name(self.decide.label)} at {self.decide.at:g}"

    def labels(self, answers: Answers) -> NDArray[np.int64]:
        labels: NDArray[np.int64]
        if self.decide is None:
            labels = answers.argmax(axis=-1)
            return labels
        label, others = self.decide.label, answers.copy()
        others[..., label] = -np.inf
        decided = answers[..., label] >= self.decide.at
        labels = np.where(decided, label, others.argmax(axis=-1))
        return labels

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        return agreeing(self.labels(served) == self.labels(full), served, full)

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((self.labels(answers) == truth) & finite(answers))

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        check_shape(labels, (rows,))
        known = (labels >= 0) & (labels < self.classes)
        if not known.all():
            row = int(np.argmin(known))
            raise ConfigError(
                f"labels: row {row} has class {labels[row]}, {name} knows 0 … {self.classes - 1}"
            )
        return labels.astype(np.int64)

    def targets(self, answers: Answers) -> NDArray[np.float32]:
        return answers.astype(np.float32)

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        assert labels is not None
        rows, names = zip(labels.tolist(), answers.tolist(), strict=True), self.names
        if names:
            return [{"label": one, "name": names[one], "probabilities": p} for one, p in rows]
        return [{"label": one, "probabilities": p} for one, p in rows]

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        return row.probabilities or ()

    def decision_in(self, row: ReplyRow) -> int | None:
        return row.label

    def fault_in(self, row: ReplyRow) -> str:
        probabilities = self.answer_in(row)
        if fault := _no_probabilities(probabilities):
            return fault
        if not math.isclose(sum(probabilities), 1, abs_tol=SUMS_TO_ONE):
            return "probabilities do not add up to 1"
        label = -1 if row.label is None else row.label
        known = 0 <= label < self.width
        if not known or (self.border is None and probabilities[label] < max(probabilities)):
            return "the label is not the most probable class"
        return ""

    def _name(self, label: int) -> str:
        return self.names[label] if self.names else f"class {label}"


class MultiLabel(Record):
    """Any of several labels; the answer is the probability of each.

    Attributes:
        count: How many.
        names: Of the labels, in order; empty where the model has none.
    """

    kind: Literal["multilabel"] = "multilabel"
    count: Annotated[int, Field(ge=1)]
    names: tuple[str, ...] = ()

    def model_post_init(self, _context: Any) -> None:
        check_names(self.names, self.count, "labels")

    @property
    def width(self) -> int:
        return self.count

    @property
    def classes(self) -> int:
        return 0

    @property
    def output(self) -> str:
        return "probabilities"

    @property
    def link(self) -> Link:
        return "sigmoid"

    @property
    def border(self) -> tuple[int, float] | None:
        return None

    @property
    def top(self) -> None:
        return None

    @property
    def signals(self) -> tuple[SignalName, ...]:
        return ("margin", "confidence", "agreement", "norm")

    @property
    def differs(self) -> str:
        return "the set of labels differs"

    def labels(self, answers: Answers) -> NDArray[np.int64]:
        return (answers >= HALF).astype(np.int64)

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        return agreeing(((served >= HALF) == (full >= HALF)).all(axis=-1), served, full)

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((self.labels(answers) == truth).all(axis=-1) & finite(answers))

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        check_shape(labels, (rows, self.count))
        known = ((labels == 0) | (labels == 1)).all(axis=1)
        if not known.all():
            row = int(np.argmin(known))
            raise ConfigError(
                f"labels: row {row} is {labels[row].tolist()}, {name} takes a 0 or a 1 for each of "
                f"its {self.count} labels"
            )
        return labels.astype(np.int64)

    def targets(self, answers: Answers) -> NDArray[np.float32]:
        return answers.astype(np.float32)

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        assert labels is not None
        rows = zip([np.flatnonzero(one).tolist() for one in labels], answers.tolist(), strict=True)
        if names := self.names:
            return [
                {"labels": on, "names": [names[one] for one in on], "probabilities": p}
                for on, p in rows
            ]
        return [{"labels": on, "probabilities": p} for on, p in rows]

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        return row.probabilities or ()

    def decision_in(self, row: ReplyRow) -> list[int]:
        return [int(label in (row.labels or ())) for label in range(self.width)]

    def fault_in(self, row: ReplyRow) -> str:
        return _no_probabilities(self.answer_in(row))


def _no_probabilities(values: Sequence[float]) -> str:
    return "" if all(0 <= one <= 1 for one in values) else "probabilities are not between 0 and 1"
