"""What a router is asked to be; the [router] section of a build file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.routing.measures import CONFIDENCE, RISKS
from skipserve.routing.routed import Policy
from skipserve.routing.signals import SignalName
from skipserve.schema import Record

ExitHeads = Literal["shared", "distilled"]
Risk = Annotated[float, Field(gt=0, lt=1)]


class RouterConfig(Record):
    """Choices of a router.

    Attributes:
        signal: What is compared with the thresholds.
        policy: ``exit`` leaves out all that follows, ``skip`` one stage.
        stages: Blocks before which to decide (2 is the first that may be left out), or ``auto``:
            where a decision saves a lone row more time than it costs, by measurement.
        exit_heads: ``shared``: rows that leave are answered by the network's own head;
            ``distilled``: by a copy of it fitted to each depth.
        risks: The ε to certify, of each measure.
        confidence: 1 − δ of each certificate; those with less are not used.
        guard: Quantile of calibration beyond which a row runs everything; 1.0 is off.
    """

    signal: SignalName = "norm"
    policy: Policy = "exit"
    stages: Literal["auto"] | tuple[Annotated[int, Field(ge=2)], ...] = "auto"
    exit_heads: ExitHeads = "shared"
    risks: Annotated[tuple[Risk, ...], Field(min_length=1)] = RISKS
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = CONFIDENCE
    guard: Annotated[float, Field(gt=0.5, le=1)] = 0.995

    def model_post_init(self, _context: Any) -> None:
        if self.stages != "auto" and list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages = {list(self.stages)} must increase")
        if self.exit_heads == "distilled" and self.policy == "skip":
            raise ValueError(
                "exit_heads = 'distilled' needs policy = 'exit': a row that skips one stage is "
                "answered at the end, by the network's own head"
            )
