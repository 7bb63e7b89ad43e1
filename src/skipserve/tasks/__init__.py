"""Tasks: what an answer is, when two answers agree, and which signals exist.

Only a task knows these things: how to read the output of a network, how wide an answer is, which
labels it decides, when a served answer agrees with the full-depth one, which signals exist, what an
exit head is fitted to, and how a reply holds the answer.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from skipserve.tasks.config import TaskConfig, needs_tolerance
from skipserve.tasks.deciding import Classify, Decision, MultiLabel
from skipserve.tasks.embed import Embed
from skipserve.tasks.task import (
    Answers,
    Kind,
    Link,
    OutputFields,
    SignalName,
    Task,
    Unit,
    finite,
    label_names,
)
from skipserve.tasks.units import NO_EVIDENCE, Units, counted, ranked, too_short_note
from skipserve.tasks.values import Regress, Score

KINDS = (Classify, MultiLabel, Regress, Embed, Score)
# As a manifest holds it.
AnyTask = Annotated[Classify | MultiLabel | Regress | Embed | Score, Field(discriminator="kind")]

__all__ = [
    "KINDS",
    "NO_EVIDENCE",
    "Answers",
    "AnyTask",
    "Classify",
    "Decision",
    "Embed",
    "Kind",
    "Link",
    "MultiLabel",
    "OutputFields",
    "Regress",
    "Score",
    "SignalName",
    "Task",
    "TaskConfig",
    "Unit",
    "Units",
    "counted",
    "finite",
    "label_names",
    "needs_tolerance",
    "ranked",
    "too_short_note",
]
