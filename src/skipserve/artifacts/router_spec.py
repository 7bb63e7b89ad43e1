"""What a manifest says of a router: its exits, how they were placed, how it is certified."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from skipserve.routing.config import CONFIDENCE, RISKS, Earning, Policy
from skipserve.schema import Record
from skipserve.tasks import SignalName


class ExitSpec(Record):
    """One exit: what is read at one cut.

    Attributes:
        blocks: Blocks run when a row gets there.
        stream: Name of the stream in the graph.
        features: Numbers read off it.
        hidden: Width of the head's hidden layer, 0 for none; ``None`` for the network's own head.
        leaves: Whether rows may leave there; if not, it only guards.
    """

    blocks: int
    stream: str
    features: int
    hidden: int | None = None
    leaves: bool = True


class StressSpec(Record):
    """Result of the router on rows with one kind of corruption; see routing/stress.py."""

    kind: str
    hard: bool
    disagreement: float
    run_rate: float
    held_back: float


class RouterSpec(Earning):
    """The router of the model files.

    Attributes:
        signal: What is compared with the thresholds.
        policy: ``exit`` or ``skip``.
        exits: What is read at each cut, in order.
        guard_quantile: Share of ordinary rows that are inside every guard; 1.0 is off.
        guard_limit: Distances are in units of it: 1, or ``None`` for +inf, off.
        chosen: How the exits were chosen, in words, with the measured costs.
        first: Why exits begin where they do, in words.
        stress: How the router does on corrupted rows, at thresholds for 1 % disagreement.
        risks: The ε that `skipserve certify` certifies unless told otherwise.
        confidence: 1 − δ that a certificate must have to be used.
    """

    signal: SignalName
    policy: Policy
    exits: Annotated[tuple[ExitSpec, ...], Field(min_length=1)]
    guard_quantile: float
    guard_limit: float | None
    chosen: str
    first: str = ""
    stress: tuple[StressSpec, ...] = ()
    risks: tuple[float, ...] = RISKS
    confidence: Annotated[float, Field(gt=0, lt=1)] = CONFIDENCE
    per_class: bool = False

    @property
    def offline_confidence(self) -> float:
        """1 − δ of what is certified on rows set aside."""
        return 1 - (1 - self.confidence) / 2 if self.certificate == "both" else self.confidence

    @property
    def earned_level(self) -> float:
        """δ of what is earned on traffic."""
        return (1 - self.confidence) / (2 if self.certificate == "both" else 1)

    @property
    def decisions(self) -> tuple[int, ...]:
        """Blocks run when each decision is taken; one threshold each."""
        return tuple(one.blocks for one in self.exits if one.leaves)
