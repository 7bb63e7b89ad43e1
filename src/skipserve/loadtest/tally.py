"""Tallies: counts and latencies of requests; tallies of parts add up to the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from skipserve.loadtest.answers import Finding
from skipserve.loadtest.histogram import Histogram

HISTOGRAMS = ("corrected", "uncorrected", "lag", "decode", "inference", "queue")
COUNTS = (
    *("requests", "answered", "rows", "routed_rows", "disagreements", "unforeseen"),
    *("blocks_run", "blocks", "held_back"),
)


class Tally:
    """Counts and latencies of requests.

    Attributes:
        corrected: Latency from the moment a request was due. One without an answer counts as
            long as the timeout.
        uncorrected: Latency from the moment it was sent, which hides what it waited before.
        lag: From when a request was due and a connection free, to the sending: the client's fault.
        decode: Time the server spent decoding, from ``Server-Timing``.
        inference: Time it spent in the model, the batch's.
        queue: The rest of ``uncorrected``: queue, hand-offs, batching delay, encoding, network.
        requests: Sent, or due and given up.
        answered: Of these, with a reply that is right.
        failures: The others, by what was wrong.
        statuses: Replies by model and HTTP status, as ``MODEL CODE``.
        unanswered: Requests that were sent and got no reply, by model.
        rows: Rows in requests that were answered.
        routed_rows: Of these, rows answered with the router on; the next five are about them.
        disagreements: Labels that differ from full depth.
        unforeseen: Labels that the artifact gives neither way.
        blocks_run: Blocks that ran.
        blocks: Blocks at full depth.
        held_back: Rows the guard sent to full depth.
    """

    def __init__(self) -> None:
        self.corrected = Histogram()
        self.uncorrected = Histogram()
        self.lag = Histogram()
        self.decode = Histogram()
        self.inference = Histogram()
        self.queue = Histogram()
        self.requests = 0
        self.answered = 0
        self.rows = 0
        self.routed_rows = 0
        self.disagreements = 0
        self.unforeseen = 0
        self.blocks_run = 0
        self.blocks = 0
        self.held_back = 0
        self.failures: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        """Requests without a right answer."""
        return self.failures.total()

    @property
    def wrong(self) -> int:
        """Replies that were wrong, which no load excuses."""
        return sum(
            count
            for failure, count in self.failures.items()
            if failure.startswith(("wrong answer", "malformed reply"))
        )

    @property
    def skip_rate(self) -> float | None:
        """Share of the blocks that routed rows skipped; ``None`` if no row was routed."""
        return 1 - self.blocks_run / self.blocks if self.blocks else None

    def count(self, finding: Finding, rows: int, depth: int) -> None:
        """Count what one reply showed."""
        if finding.failure:
            self.failures[finding.failure] += 1
            return
        self.answered += 1
        self.rows += rows
        self.routed_rows += finding.routed_rows
        self.disagreements += finding.disagreements
        self.unforeseen += finding.unforeseen
        self.blocks_run += finding.blocks_run
        self.blocks += finding.routed_rows * depth
        self.held_back += finding.held_back

    def add(self, other: Tally) -> None:
        """Count everything that another one has counted."""
        for name in HISTOGRAMS:
            getattr(self, name).add(getattr(other, name))
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.statuses += other.statuses
        self.unanswered += other.unanswered

    def to_json(self) -> dict[str, Any]:
        """As JSON; histograms in HdrHistogram's own encoding."""
        return {
            **{name: getattr(self, name).encode() for name in HISTOGRAMS},
            **{name: getattr(self, name) for name in COUNTS},
            "failures": dict(self.failures),
            "statuses": dict(self.statuses),
            "unanswered": dict(self.unanswered),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tally:
        """The inverse of :meth:`to_json`.

        Raises:
            LookupError: If a key is missing.
            ValueError: If a histogram is damaged.
        """
        made = cls()
        for name in HISTOGRAMS:
            setattr(made, name, Histogram.decode(values[name]))
        for name in COUNTS:
            setattr(made, name, int(values[name]))
        for name in ("failures", "statuses", "unanswered"):
            setattr(made, name, Counter(values[name]))
        return made


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole
