"""The sections [exits] and [router] of a build file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from skipserve.schema import Record
from skipserve.slices import Slices
from skipserve.tasks import SignalName

Policy = Literal["exit", "skip"]
CertificateMode = Literal["offline", "earned", "both"]
HeadKind = Literal["distilled", "shared"]
Risk = Annotated[float, Field(gt=0, lt=1)]
RISKS = (0.005, 0.01, 0.02, 0.05)
CONFIDENCE = 0.95
Depth = Annotated[int, Field(ge=0)]
# A switch has room for so many, of as many slices as can be declared (safety/switch.py).
MOST_RISKS = 64


class ExitsConfig(Record):
    """The section [exits]: where rows may leave, and what is read there.

    Attributes:
        at: Blocks run when a row may leave (0 is before the first), or ``auto``: where an exit
            saves more time than it costs, by measurement. A cut before ``first`` only guards.
        first: Least depth of an exit, or ``auto``: the least at which corrupted rows are held back
            or answered as at full depth. Under the policy ``skip`` the first stage may always be
            left out.
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
        if self.at != "auto" and not any(map(self.allows, self.at)):
            raise ValueError(f"first = {self.first} leaves none of at = {list(self.at)}")

    def allows(self, blocks: int) -> bool:
        """Whether rows may leave at a depth, as far as the configuration says."""
        listed = self.at == "auto" or blocks in self.at
        return listed and (self.first == "auto" or blocks >= self.first)


class Earning(Record):
    """How a model gets certificates: on rows set aside, or on its own traffic.

    Attributes:
        certificate: ``offline``: on rows set aside, and on the traffic only after a drift has put
            these out of force; ``earned``: on the traffic alone, at full depth until then;
            ``both``: on rows set aside to start with, on the traffic to go on, each at δ / 2.
        epoch_rows: Evidence rows after which an epoch of earning ends.
        eager_rows: So many rows of the first epoch, and of one that follows the alarm or a reset,
            all give evidence, also once something is in force: few rows prove little.
        greatest_age_rows: Evidence rows that what was earned stays in force after its epoch; as
            many as an epoch has by default.
        greatest_age_s: The same in seconds; no limit by default.
        slices: Of the traffic, each of which earns certificates of its own.
        propose_rows: So many rows at the beginning of an epoch refit the guard's limit and the
            thresholds, and are no evidence; 0: the artifact's own stay.
    """

    certificate: CertificateMode = "offline"
    epoch_rows: Annotated[int, Field(ge=100)] = 10_000
    eager_rows: Annotated[int, Field(ge=0)] = 5_000
    greatest_age_rows: Annotated[int, Field(ge=0)] | None = None
    greatest_age_s: Annotated[float, Field(ge=0)] | None = None
    slices: Slices = Slices()
    propose_rows: Annotated[int, Field(ge=0, le=10_000)] = 0


class RouterConfig(Earning):
    """The section [router]: what decides, and what is certified.

    Attributes:
        signal: What is compared with the thresholds; ``agreement`` by default where the task is
            ``regress``, ``embed`` or ``score``.
        policy: ``exit`` leaves out all that follows, ``skip`` one stage.
        risks: The ε to certify, of each measure.
        confidence: 1 − δ of each certificate.
        per_class: Whether every class of the full-depth answer is certified too, δ split evenly.
    """

    signal: SignalName = "margin"
    policy: Policy = "exit"
    risks: Annotated[tuple[Risk, ...], Field(min_length=1, max_length=MOST_RISKS)] = RISKS
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = CONFIDENCE
    per_class: bool = False

    def model_post_init(self, _context: Any) -> None:
        if len(set(self.risks)) < len(self.risks):
            raise ValueError(f"risks = {list(self.risks)} names one twice")
        if self.slices.values and self.certificate != "earned":
            raise ValueError(
                f"slices need certificate = 'earned', not {self.certificate!r}: what is certified "
                "on rows set aside holds for all traffic together, and for no slice of it"
            )
        if self.certificate == "offline":
            return
        asked = f"certificate = {self.certificate!r}"
        if self.policy == "skip":
            raise ValueError(
                f"{asked} needs policy = 'exit': a row that runs everything does not show what "
                "leaving out single stages would have answered"
            )
        if self.per_class:
            raise ValueError(
                f"{asked} does not go with per_class: traffic is not certified class by class; "
                "leave per_class out, or set certificate = 'offline'"
            )
