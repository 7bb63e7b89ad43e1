"""Embeddings: vectors that are compared by direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.tasks.numbers import Numbers
from skipserve.tasks.task import Answers, Link, OutputFields, ReplyRow, agreeing

# Least length of a vector; the zero vector has no direction.
SHORTEST = 1e-12


class Embed(Numbers):
    """A vector. It disagrees if its cosine to the full-depth vector is too small.

    Heads of exits map to the space of full depth, so that an index of stored vectors stays valid.

    Attributes:
        dimensions: Numbers of a vector.
        cosine: Least cosine that agrees.
        unit: Whether the vectors have length 1.
    """

    kind: Literal["embed"] = "embed"
    dimensions: Annotated[int, Field(ge=2)]
    cosine: Annotated[float, Field(gt=0, lt=1)] = 0.99
    unit: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def width(self) -> int:
        return self.dimensions

    @property
    def output(self) -> str:
        return "embedding"

    @property
    def top(self) -> None:
        return None

    @property
    def link(self) -> Link:
        return "unit" if self.unit else "identity"

    @property
    def differs(self) -> str:
        return f"the cosine to the vector of full depth is below {self.cosine:g}"

    def agree(self, served: Answers, full: Answers) -> NDArray[np.bool_]:
        one, other = served.astype(np.float64), full.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of infinity
            cosine = (_direction(one) * _direction(other)).sum(axis=-1)
        # Two zero vectors agree.
        same = (cosine >= self.cosine) | (one == other).all(axis=-1)
        return agreeing(same, served, full)

    def output_fields(
        self, answers: Answers, labels: NDArray[np.int64] | None
    ) -> list[OutputFields]:
        return [{"embedding": one} for one in answers.tolist()]

    def answer_in(self, row: ReplyRow) -> Sequence[float]:
        return row.embedding or ()


def _direction(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors of length 1 [N, dimensions]; shorter where they have hardly a length."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, SHORTEST))
