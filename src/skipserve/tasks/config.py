"""The section [task] of a build file: the task of a brought network."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from skipserve.errors import ConfigError
from skipserve.schema import Record
from skipserve.tasks.deciding import Classify, Decision, MultiLabel
from skipserve.tasks.embed import Embed
from skipserve.tasks.task import Kind, SignalName, Task
from skipserve.tasks.values import Regress, Score, Top

# Which settings belong to which tasks.
_BELONGS: dict[str, tuple[Kind, ...]] = {
    "names": ("classify", "multilabel", "regress"),
    "tolerance": ("regress", "score"),
    "top": ("score",),
    "cosine": ("embed",),
    "decide": ("classify",),
}


def needs_tolerance(kind: Kind) -> str:
    """The error for a missing tolerance."""
    return (
        f"{kind} needs a tolerance: the largest difference from full depth, in units of the "
        "answer, that still counts as the same; name it with --tolerance, or in [task]"
    )


class DecideConfig(Record):
    """A decision at a threshold.

    Attributes:
        label: A class, by its name or its place.
        at: Probability from which it is decided for.
    """

    label: str | int
    at: Annotated[float, Field(gt=0, lt=1)]


class TaskConfig(Record):
    """The section [task].

    Attributes:
        kind: What an answer is: one class, any of several labels, numbers, a vector, or how well a
            pair goes together.
        names: Of the classes, the labels or the values, in order.
        tolerance: Of ``regress`` and ``score``: the largest difference from full depth that agrees.
        top: Of ``score``: documents of a query that count together; certificates then count queries
            of which another document is among the first so many. ``tolerance`` stays what a
            single score is held to where exits are fitted.
        cosine: Of ``embed``: the least cosine to full depth that agrees.
        decide: Of ``classify``: the decision that counts.
    """

    kind: Kind = "classify"
    names: tuple[str, ...] = ()
    tolerance: Annotated[float, Field(gt=0)] | None = None
    top: Top | None = None
    cosine: Annotated[float, Field(gt=0, lt=1)] = 0.99
    decide: DecideConfig | None = None

    def model_post_init(self, _context: Any) -> None:
        for key, kinds in _BELONGS.items():
            if key in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{key} belongs to {' and '.join(kinds)}, not to {self.kind}")
        if self.kind in _BELONGS["tolerance"] and self.tolerance is None:
            raise ValueError(needs_tolerance(self.kind))

    @property
    def signal(self) -> SignalName:
        """The default signal of the router."""
        return "margin" if self.kind in ("classify", "multilabel") else "agreement"

    def named(self, names: tuple[str, ...]) -> TaskConfig:
        """Add the class names of the source, if the task has names."""
        if self.names or self.kind not in _BELONGS["names"]:
            return self
        return self.model_copy(update={"names": names})

    def task(self, width: int, unit: bool = False) -> Task:
        """The task of a network.

        Args:
            width: Numbers in an answer.
            unit: Whether answers are vectors of length 1.

        Raises:
            ConfigError: If the settings do not fit so many numbers.
        """
        what = {"classify": "classes", "multilabel": "labels", "regress": "values"}
        if self.names and len(self.names) != width:
            raise ConfigError(
                f"task.names has {len(self.names)} names for {width} {what[self.kind]}"
            )
        if self.kind == "classify":
            return Classify(classes=width, names=self.names, decide=self._decision(width))
        if self.kind == "multilabel":
            return MultiLabel(count=width, names=self.names)
        if self.kind == "embed":
            return Embed(dimensions=width, cosine=self.cosine, unit=unit)
        assert self.tolerance is not None
        if self.kind == "score":
            return Score(tolerance=self.tolerance, top=self.top)
        return Regress(values=width, names=self.names, tolerance=self.tolerance)

    def _decision(self, width: int) -> Decision | None:
        if self.decide is None:
            return None
        label = self.decide.label
        if isinstance(label, str):
            if label not in self.names:
                known = ", ".join(self.names) or "none; give names = [...] in [task]"
                raise ConfigError(f"task.decide: no class is named {label!r}; there are {known}")
            label = self.names.index(label)
        if not 0 <= label < width:
            raise ConfigError(f"task.decide: there is no class {label}, only 0 … {width - 1}")
        return Decision(label=label, at=self.decide.at)
