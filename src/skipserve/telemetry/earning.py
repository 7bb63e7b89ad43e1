"""Gauges of earning, by model and slice of its traffic, which the launcher sets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from skipserve.earning.ladder import OWN
from skipserve.earning.progress import Progress
from skipserve.intervals import spelled


class EarningGauges:
    """The gauges of earning.

    Args:
        registry: That shows them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str, *labels: str) -> Gauge:
            keys = ("model", "slice", *labels)
            return Gauge(f"skipserve_earning_{name}", about, keys, registry=registry)

        self._epoch = gauge("epoch", "Epoch of earning, from 1.")
        self._rows = gauge("rows", "Evidence rows of the epoch, of all replicas.")
        self._disagreements = gauge(
            "disagreements",
            "Of the epoch's evidence rows, those that a candidate would have answered otherwise "
            "than full depth; candidates count from 1, careful to bold.",
            "candidate",
        )
        self._in_force = gauge(
            "in_force",
            "Candidate in force for a risk, from 1; absent where none is.",
            "risk",
        )
        self._proposed = gauge(
            "proposed",
            "1 if the candidate in force for a risk was proposed on traffic, 0 if it is one of the "
            "artifact's own; absent where none is in force.",
            "risk",
        )
        self._needed = gauge(
            "needed_rows",
            "Evidence rows of the epoch that the next candidate takes in all, if as many disagree "
            "as until now; absent if the epoch ends before.",
            "risk",
        )
        self._left = gauge(
            "left_seconds",
            "Seconds until the next candidate, at the rate at which evidence comes in.",
            "risk",
        )
        self._proposing = gauge(
            "proposing_rows",
            "Rows of the epoch that propose its candidates and are no evidence; absent once they "
            "have.",
        )
        self._proposing_needed = gauge(
            "proposing_needed_rows", "So many rows propose; absent once they have."
        )
        self._numbers = (
            *(self._epoch, self._rows, self._disagreements),
            *(self._in_force, self._proposed, self._needed, self._left),
            *(self._proposing, self._proposing_needed),
        )
        self._problem = gauge(
            "problem",
            "1 while what a model has earned cannot be kept: it serves at full depth, or by its "
            "artifact's own certificates; the log says why.",
        )

    def show(
        self,
        model: str,
        of_slice: str,
        epoch: int,
        disagreements: Sequence[int],
        found: Sequence[Progress],
        problem: str,
    ) -> None:
        """Show how far a slice of a model's traffic is; see the class ``Exposition``."""
        self._problem.labels(model, of_slice).set(int(bool(problem)))
        if not found:
            self._forget(model=model, slice=of_slice)
            return
        self._epoch.labels(model, of_slice).set(epoch)
        proposing = found[0].proposing
        self._rows.labels(model, of_slice).set(0 if proposing else found[0].rows)
        show(self._proposing, found[0].rows if proposing else None, model, of_slice)
        show(self._proposing_needed, found[0].needed if proposing else None, model, of_slice)
        # Another ladder may have fewer.
        forget(self._disagreements, model=model, slice=of_slice)
        for candidate, count in enumerate(disagreements, 1):
            self._disagreements.labels(model, of_slice, str(candidate)).set(count)
        for one in found:
            at = model, of_slice, spelled(one.risk)
            place = one.in_force
            show(self._in_force, None if place is None else place.candidate + 1, *at)
            show(self._proposed, None if place is None else place.proposal != OWN, *at)
            show(self._needed, None if proposing else one.needed, *at)
            show(self._left, None if proposing else one.seconds, *at)

    def forget(self, model: str) -> None:
        """Remove the gauges of a model."""
        forget(self._problem, model=model)
        self._forget(model=model)

    def _forget(self, **labels: str) -> None:
        for gauge in self._numbers:
            forget(gauge, **labels)


def show(gauge: Gauge, value: float | None, *labels: str) -> None:
    """Set a gauge; ``None`` removes its series, as no number is better than an old one."""
    if value is not None:
        gauge.labels(*labels).set(value)
    else:
        with contextlib.suppress(KeyError):
            gauge.remove(*labels)


def forget(gauge: Gauge, **labels: str) -> None:
    """Take away all series of a gauge that have these labels."""
    for metric in gauge.collect():
        for sample in metric.samples:
            if labels.items() <= sample.labels.items():
                show(gauge, None, *sample.labels.values())
