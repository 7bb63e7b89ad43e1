"""Tasks whose answers are numbers, which agree within a tolerance."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.schema import Record
from skipserve.tasks.task import Answers, Link, SignalName, Told, check_names, neither, no_truth

Tolerance = Annotated[float, Field(gt=0)]


class _Values(Record):
    """What both have in common.

    Attributes:
        tolerance: Largest difference from full depth, in units of the answer, that still agrees.
    """

    tolerance: Tolerance

    @property
    def classes(self) -> int:
        return 0

    @property
    def link(self) -> Link:
        return "identity"

    @property
    def border(self) -> tuple[int, float] | None:
        return None

    @property
    def signals(self) -> tuple[SignalName, ...]:
        return ("agreement", "norm")

    @property
    def differs(self) -> str:
        return f"more than {self.tolerance:g} from the answer of full depth"

    def labels(self, answers: Answers) -> None:
        return None

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        # Of FP64 numbers: the difference of two large FP32 ones loses what the tolerance is about.
        apart = np.abs(served.astype(np.float64) - full.astype(np.float64))
        return np.asarray((apart <= self.tolerance).all(axis=-1) | neither(served, full))

    def targets(self, answers: Answers) -> NDArray[np.float32]:
        return answers.astype(np.float32)


class Regress(_Values):
    """Numbers; disagreement: one of them lies beyond the tolerance.

    Attributes:
        values: How many a row.
        names: Of the numbers, in order; empty where the model has none.
    """

    kind: Literal["regress"] = "regress"
    values: Annotated[int, Field(ge=1)] = 1
    names: tuple[str, ...] = ()

    def model_post_init(self, _context: Any) -> None:
        check_names(self.names, self.values, "values")

    @property
    def width(self) -> int:
        return self.values

    @property
    def output(self) -> str:
        return "values"

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        raise no_truth(self.kind, "the network")

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        raise no_truth(self.kind, name)

    def tell(self, answers: Answers, labels: NDArray[np.int64] | None) -> list[Told]:
        return [{"values": one} for one in answers.tolist()]


class Score(_Values):
    """How well the two texts of a pair go together: one number, the larger the better."""

    kind: Literal["score"] = "score"

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def width(self) -> int:
        return 1

    @property
    def output(self) -> str:
        return "score"

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        raise no_truth(self.kind, "the network")

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        raise no_truth(self.kind, name)

    def tell(self, answers: Answers, labels: NDArray[np.int64] | None) -> list[Told]:
        return [{"score": one} for (one,) in answers.tolist()]
