"""Shared by tasks whose answers are numbers without true labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.schema import Record
from skipserve.tasks.task import Answers, Kind, ReplyRow, SignalName, no_truth


class Numbers(Record):
    """Answers that decide nothing; they are only compared with full depth."""

    kind: Kind

    @property
    def classes(self) -> int:
        return 0

    @property
    def border(self) -> tuple[int, float] | None:
        return None

    @property
    def signals(self) -> tuple[SignalName, ...]:
        return ("agreement", "norm")

    def labels(self, answers: Answers) -> None:
        return None

    def right(self, answers: Answers, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
        raise no_truth(self.kind, "the network")

    def truth(self, labels: NDArray[Any], rows: int, name: str) -> NDArray[np.int64]:
        raise no_truth(self.kind, name)

    def targets(self, answers: Answers) -> NDArray[np.float32]:
        return answers.astype(np.float32)

    def decision_in(self, row: ReplyRow) -> None:
        return None

    def fault_in(self, row: ReplyRow) -> str:
        return ""
