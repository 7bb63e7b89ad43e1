"""What requests are answered with: parts of what was predicted for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skipserve.runtime.prediction import Prediction, Setting

# What JSON says of one row.
Told = dict[str, object]


class Predicted:
    """Predictions for the rows of several requests.

    Args:
        prediction: For all of them.
        names: Of the classes, if they have any.
    """

    def __init__(self, prediction: Prediction, names: tuple[str, ...] = ()) -> None:
        self.prediction = prediction
        self._names = names
        self._told: dict[bool, list[Told]] = {}

    def told(self, routed: bool) -> list[Told]:
        """What JSON says of each row, made once.

        ``name`` stands beside ``label`` where there are names.

        Args:
            routed: The router was on: ``held_back`` is told.
        """
        if routed not in self._told:
            self._told[routed] = self._tell(routed)
        return self._told[routed]

    def _tell(self, routed: bool) -> list[Told]:
        prediction, names = self.prediction, self._names
        labels = prediction.labels.tolist()
        rows = zip(
            labels, prediction.probabilities.tolist(), prediction.depth_run.tolist(), strict=True
        )
        if names:
            told: list[Told] = [
                {"label": label, "name": names[label], "probabilities": p, "depth_run": depth}
                for label, p, depth in rows
            ]
        else:
            told = [
                {"label": label, "probabilities": p, "depth_run": depth} for label, p, depth in rows
            ]
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
    """

    of: Predicted
    first: int
    last: int
    setting: Setting

    @property
    def prediction(self) -> Prediction:
        """For its rows."""
        return self.of.prediction.rows(self.first, self.last)

    def told(self) -> Sequence[Told]:
        """What JSON says of each of its rows."""
        return self.of.told(self.setting.risk is not None)[self.first : self.last]


def answer_of(prediction: Prediction, setting: Setting, names: tuple[str, ...] = ()) -> Answer:
    """The answer to a request that was alone."""
    return Answer(Predicted(prediction, names), 0, len(prediction.labels), setting)
