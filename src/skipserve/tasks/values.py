"""Tasks whose answers are numbers, which agree within a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.schema import Grown
from skipserve.tasks.numbers import Numbers
from skipserve.tasks.task import Answers, Link, OutputFields, ReplyRow, agreeing, check_names

Tolerance = Annotated[float, Field(gt=0)]
Top = Annotated[int, Field(ge=1)]


class _Values(Numbers):
    """Shared by both.

    Attributes:
        tolerance: Largest difference from full depth, in units of the answer, that still agrees.
    """

    tolerance: Tolerance

    @property
    def link(self) -> Link:
        return "identity"

    @property
    def differs(self) -> str:
        return f"more than {self.tolerance:g} from the answer of full depth"

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        # Of FP64 numbers: the difference of two large FP32 ones loses what the tolerance is about.
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            apart = np.abs(served.astype(np.float64) - full.astype(np.float64))
        return agreeing(np.asarray((apart <= self.tolerance).all(axis=-1)), served, full)


class Regress(_Values):
    """Numbers. They disagree if one of them differs by more than the tolerance.

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
    def top(self) -> None:
        return None

    @property
    def output(self) -> str:
        return "values"

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        return [{"values": one} for one in answers.tolist()]

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        return row.values or ()


class Score(_Values, Grown):
    """The match of two texts as one number; larger is better.

    Attributes:
        top: Documents of a query that count together: certificates count the queries of which
            another document is among them; ``None`` where each pair counts by itself.
    """

    # What is bound to a task without it stays bound: evidence, certificate files.
    LATER: ClassVar[tuple[str, ...]] = ("top",)

    kind: Literal["score"] = "score"
    top: Top | None = None

    @property
    def differs(self) -> str:
        if self.top is None:
            return super().differs
        return f"another document is among the first {self.top} of a query"

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def width(self) -> int:
        return 1

    @property
    def output(self) -> str:
        return "score"

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        return [{"score": one} for (one,) in answers.tolist()]

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        return () if row.score is None else (row.score,)
