"""Answers of requests: slices of one prediction for the rows of several requests."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.tasks import OutputFields, Task


class Predicted:
    """The prediction for the rows of several requests.

    Args:
        prediction: For all rows.
        task: Of the model.
    """

    def __init__(self, prediction: Prediction, task: Task) -> None:
        self.prediction = prediction
        self._task = task
        self._outputs: dict[bool, list[OutputFields]] = {}

    def outputs(self, routed: bool) -> list[OutputFields]:
        """The JSON fields of each row: those of its task, then its depth. Made once.

        Args:
            routed: Whether the router was on; then ``held_back`` is among the fields.
        """
        if routed not in self._outputs:
            self._outputs[routed] = self._make_outputs(routed)
        return self._outputs[routed]

    def _make_outputs(self, routed: bool) -> list[OutputFields]:
        prediction = self.prediction
        outputs = self._task.output_fields(prediction.answers, prediction.labels)
        for output, depth in zip(outputs, prediction.depth_run.tolist(), strict=True):
            output["depth_run"] = depth
        if routed:
            for output, held in zip(outputs, prediction.held_back.tolist(), strict=True):
                output["held_back"] = held
        return outputs


class Answer(msgspec.Struct, frozen=True):
    """The answer to one request.

    Attributes:
        of: The prediction for all requests that were completed together.
        first: The first row of this request in it.
        last: The row behind its last.
        setting: Of the router.
        rows: The rows as they ran; ``None`` where the protocol does not need them.
    """

    of: Predicted
    first: int
    last: int
    setting: Setting
    rows: Rows | None = None

    @property
    def prediction(self) -> Prediction:
        """The prediction for the rows of this request."""
        return self.of.prediction.rows(self.first, self.last)

    def outputs(self) -> Sequence[OutputFields]:
        """The JSON fields of each row of this request."""
        return self.of.outputs(self.setting.risk is not None)[self.first : self.last]


def answer_of(prediction: Prediction, setting: Setting, task: Task) -> Answer:
    """The answer to a single request."""
    return Answer(Predicted(prediction, task), 0, len(prediction), setting)
