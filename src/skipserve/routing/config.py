"""What a router is asked to be: the sections [exits] and [router] of a build file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.schema import Record
from skipserve.tasks import SignalName

Policy = Literal["exit", "skip"]
HeadKind = Literal["distilled", "shared"]
Risk = Annotated[float, Field(gt=0, lt=1)]
Depth = Annotated[int, Field(ge=0)]


class ExitsConfig(Record):
    """Where rows may leave, and what is read there.

    Attributes:
        at: Blocks run when a row may leave (0 is before the first), or ``auto``: where an exit
            saves more time than it costs, by measurement.
        first: Least depth of an exit, or ``auto``: the least at which corrupted rows are held back
            or answered as at full depth.
        heads: ``distilled``: rows that leave are answered by a head fitted to each depth;
            ``shared``: by the network's own head, where the stream has the shape it reads.
        hidden: Width of a distilled head's hidden layer, 0 for none, or ``auto``: what saves most.
        rows: Most rows that heads and guards are fitted on; time grows with them.
        corrupted: Whether heads are fitted on corrupted copies of the rows too.
        guard: Share of ordinary rows that are inside every guard; 1.0 turns the guards off.
    """

    at: Literal["auto"] | tuple[Depth, ...] = "auto"
    first: Literal["auto"] | Depth = "auto"
    heads: HeadKind = "distilled"
    hidden: Literal["auto"] | Depth = "auto"
    rows: Annotated[int, Field(ge=100)] = 20_000
    corrupted: bool = True
    guard: Annotated[float, Field(gt=0.5, le=1)] = 0.995

    def model_post_init(self, _context: Any) -> None:
        if self.at != "auto" and (not self.at or list(self.at) != sorted(set(self.at))):
            raise ValueError(f"at = {list(self.at)} must increase")


class RouterConfig(Record):
    """What decides, and what is certified.

    Attributes:
        signal: What is compared with the thresholds.
        policy: ``exit`` leaves out all that follows, ``skip`` one stage.
        risks: The ε to certify, of each measure.
        confidence: 1 − δ of each certificate.
        per_class: Whether every class of the full-depth answer is certified too, δ split evenly.
    """

    signal: SignalName = "confidence"
    policy: Policy = "exit"
    risks: Annotated[tuple[Risk, ...], Field(min_length=1)] = (0.005, 0.01, 0.02, 0.05)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    per_class: bool = False
