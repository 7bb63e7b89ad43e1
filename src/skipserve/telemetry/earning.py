"""What the launcher shows of earning, by model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from skipserve.earning.progress import Progress


class EarningGauges:
    """The series of earning.

    Args:
        registry: That shows them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"skipserve_earning_{name}", about, ("model", *labels), registry=registry)

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
        self._problem = gauge(
            "problem",
            "1 while what a model has earned cannot be kept: it serves at full depth, or by its "
            "artifact's own certificates; the log says why.",
        )
        self._shown: dict[str, tuple[int, set[str]]] = {}

    def show(
        self,
        model: str,
        epoch: int,
        disagreements: Sequence[int],
        found: Sequence[Progress],
        problem: str,
    ) -> None:
        """Show how far a model is; see :meth:`skipserve.telemetry.exposition.Exposition`."""
        self._problem.labels(model).set(int(bool(problem)))
        if not found:
            self._forget_numbers(model)
            return
        self._epoch.labels(model).set(epoch)
        proposing = found[0].proposing
        self._rows.labels(model).set(0 if proposing else found[0].rows)
        show(self._proposing, found[0].rows if proposing else None, model)
        show(self._proposing_needed, found[0].needed if proposing else None, model)
        # Another ladder may have fewer.
        for candidate in range(len(disagreements) + 1, self._shown.get(model, (0, set()))[0] + 1):
            show(self._disagreements, None, model, str(candidate))
        for candidate, count in enumerate(disagreements, 1):
            self._disagreements.labels(model, str(candidate)).set(count)
        for one in found:
            risk = f"{one.risk:g}"
            show(self._in_force, None if one.in_force is None else one.in_force + 1, model, risk)
            show(self._needed, None if proposing else one.needed, model, risk)
            show(self._left, one.seconds, model, risk)
        self._shown[model] = len(disagreements), {f"{one.risk:g}" for one in found}

    def forget(self, model: str) -> None:
        """Show nothing of a model any more."""
        show(self._problem, None, model)
        self._forget_numbers(model)

    def _forget_numbers(self, model: str) -> None:
        candidates, risks = self._shown.pop(model, (0, set()))
        show(self._epoch, None, model)
        for gauge in (self._rows, self._proposing, self._proposing_needed):
            show(gauge, None, model)
        for candidate in range(1, candidates + 1):
            show(self._disagreements, None, model, str(candidate))
        for risk in risks:
            for gauge in (self._in_force, self._needed, self._left):
                show(gauge, None, model, risk)


def show(gauge: Gauge, value: float | None, *labels: str) -> None:
    """Set a gauge; ``None`` takes the series away: no number is better than an old one."""
    if value is not None:
        gauge.labels(*labels).set(value)
    else:
        with contextlib.suppress(KeyError):
            gauge.remove(*labels)
