"""What requests are answered with: parts of what was predicted for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.tasks import Task, Told


class Predicted:
    """Predictions for the rows of several requests.

    Args:
        prediction: For all of them.
        task: What they are.
    """

    def __init__(self, prediction: Prediction, task: Task) -> None:
        self.prediction = prediction
        self._task = task
        self._told: dict[bool, list[Told]] = {}

    def told(self, routed: bool) -> list[Told]:
        """What JSON says of each row, made once: what its task tells, then its depth.

        Args:
            routed: The router was on: ``held_back`` is told.
        """
        if routed not in self._told:
            self._told[routed] = self._tell(routed)
        return self._told[routed]

    def _tell(self, routed: bool) -> list[Told]:
        prediction = self.prediction
        told = self._task.tell(prediction.answers, prediction.labels)
        for one, depth in zip(told, prediction.depth_run.tolist(), strict=True):
            one["depth_run"] = depth
        if routed:
            for one, held in zip(told, prediction.held_back.tolist(), strict=True):
                one["held_back"] = held
        return told


class Answer(msgspec.Struct, frozen=True):
    """What one request is answered.

    Attributes:
        of: All requests that were complete at the same time.
        first: Its first row among theirs.
        last: Behind its last.
        setting: It ran with.
        rows: That it is for, as they ran; ``None`` where nobody looks at them.
    """

    of: Predicted
    first: int
    last: int
    setting: Setting
    rows: Rows | None = None

    @property
    def prediction(self) -> Prediction:
        """For its rows."""
        return self.of.prediction.rows(self.first, self.last)

    def told(self) -> Sequence[Told]:
        """What JSON says of each of its rows."""
        return self.of.told(self.setting.risk is not None)[self.first : self.last]


def answer_of(prediction: Prediction, setting: Setting, task: Task) -> Answer:
    """The answer to a request that was alone."""
    return Answer(Predicted(prediction, task), 0, len(prediction), setting)
