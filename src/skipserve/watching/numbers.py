"""Numbers for a person, from two readings of ``/metrics``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skipserve.intervals import rate
from skipserve.watching.scrape import Scrape

TARGET_S = "0.015"  # the edge of the latency histogram at the target of the service
DURATION = "skipserve_request_duration_seconds"
WORST_FIRST = ("disabled", "fell_back", "uncertified", "on", "off")


@dataclass(frozen=True)
class Earning:
    """The progress of one slice of traffic towards an earned certificate.

    Attributes:
        of_slice: Its name; "" where traffic is one whole.
        state: Of the router there.
        rows: Evidence rows of the epoch.
        needed: So many it takes for the next candidate, for the risk that is nearest to it;
            ``None`` if all are earned, or the epoch ends before.
        seconds: Until then.
        epoch: Number of the epoch.
        in_force: Candidates in force by risk, from 1.
        candidates: How many there are.
        problem: Whether nothing can be earned now; the log says why.
        proposing: Rows that propose what is earned next, and how many shall; ``None`` once they
            have.
    """

    of_slice: str
    state: str
    rows: float
    needed: float | None
    seconds: float | None
    epoch: float
    in_force: Mapping[str, float]
    candidates: int
    problem: bool
    proposing: tuple[float, float] | None = None

    def told(self) -> str:
        """In words, as ``earning: 1,240 of about 2,000 rows``."""
        if self.proposing is not None:
            rows, needed = self.proposing
            return f"proposing: {rows:,.0f} of {needed:,.0f} rows"
        text = f"earning: {self.rows:,.0f} "
        text += "rows" if self.needed is None else f"of about {self.needed:,.0f} rows"
        if self.seconds is None:
            return text
        left = f"{self.seconds:,.0f} s" if self.seconds < 600 else f"{self.seconds / 60:,.0f} min"
        return f"{text}, {left}"


@dataclass(frozen=True)
class ModelNumbers:
    """One model between two looks; ``None`` where there was nothing to say it from.

    Attributes:
        model: Its name.
        runs_on: Backend, provider and precision.
        requests_per_s: Answered, whatever the status.
        errors: Share of them answered 5xx.
        p50_s: Seconds in the worker, as are ``p90_s`` and ``p99_s``.
        within_target: Share within 15 ms.
        skip_rate: Share of the blocks left out, of rows with the router on.
        skip_rates: The same for each block, from the first.
        held_back: Share of those rows that the guard sent to full depth.
        state: Of the router; where slices of the traffic differ, of the one that stands worst.
        risk: Certified ε in force; of slices, the largest.
        evidence_rows: Evidence rows since the service started, at that risk.
        disagreements: Those of them whose answer differed.
        alarm: Wealth of the bet against the certificate; of slices, the largest.
        alarm_level: Where skipping is switched off.
        fallbacks: Times it was.
        drift: Largest stability index of the signal at any decision.
        earning: How far each slice of its traffic is with earning a certificate; none where it
            earns none.
    """

    model: str
    runs_on: str
    requests_per_s: float
    errors: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    within_target: float | None
    skip_rate: float | None
    skip_rates: tuple[float, ...]
    held_back: float | None
    state: str
    risk: float | None
    evidence_rows: float
    disagreements: float
    alarm: float | None
    alarm_level: float | None
    fallbacks: float
    drift: float | None
    earning: tuple[Earning, ...]

    @property
    def disagreement(self) -> float | None:
        """Share of the evidence rows that disagreed."""
        return _share(self.disagreements, self.evidence_rows)

    @property
    def breaks_certificate(self) -> bool:
        """Whether the lower end of the 99 % interval of the disagreement is above ε."""
        if self.risk is None:
            return False
        return rate(int(self.disagreements), int(self.evidence_rows), 0.99).low > self.risk


@dataclass(frozen=True)
class Numbers:
    """Numbers of all models between two readings.

    Attributes:
        seconds: Between them.
        version: Of skipserve.
        restarts: Workers that died since the service started.
        models: By name.
    """

    seconds: float
    version: str
    restarts: float
    models: tuple[ModelNumbers, ...]


def numbers(before: Scrape, after: Scrape) -> Numbers:
    """Numbers between two readings of a service, the newer one last."""
    added = after.since(before)
    models = sorted(after.by("model", "skipserve_model_info"))
    return Numbers(
        added.time_s,
        next(iter(after.by("version", "skipserve_build_info")), ""),
        after.total("skipserve_worker_restarts_total") or 0.0,
        tuple(_of_model(model, added, after) for model in models),
    )


def quantile(q: float, buckets: Mapping[str, float]) -> float | None:
    """A quantile of a histogram, interpolated as Prometheus does.

    Args:
        q: Between 0 and 1.
        buckets: Cumulative counts by upper edge; the last edge is ``+Inf``.

    Returns:
        Its value, the last finite edge if it lies beyond, or ``None`` if nothing was counted.
    """
    edges = sorted((float(edge), count) for edge, count in buckets.items())
    if not edges or not edges[-1][1]:
        return None
    rank = q * edges[-1][1]
    low, below = 0.0, 0.0
    for edge, count in edges:
        if count >= rank and count > below:
            return (
                low if math.isinf(edge) else low + (edge - low) * (rank - below) / (count - below)
            )
        low, below = edge, count
    return low


def _of_model(model: str, added: Scrape, after: Scrape) -> ModelNumbers:
    buckets = added.by("le", f"{DURATION}_bucket", model=model)
    codes = added.by("code", "skipserve_requests_total", model=model)
    requests = sum(codes.values())
    failed = sum(count for code, count in codes.items() if code.startswith("5"))
    run = added.by("block", "skipserve_block_rows_total", model=model, action="run")
    skipped = added.by("block", "skipserve_block_rows_total", model=model, action="skipped")
    blocks = sorted(run.keys() | skipped.keys(), key=int)
    rows = {block: run.get(block, 0.0) + skipped.get(block, 0.0) for block in blocks}
    risk = after.largest("skipserve_certified_risk_ratio", model=model)
    return ModelNumbers(
        model=model,
        runs_on=_runs_on(model, after),
        requests_per_s=requests / added.time_s,
        errors=_share(failed, requests),
        p50_s=quantile(0.5, buckets),
        p90_s=quantile(0.9, buckets),
        p99_s=quantile(0.99, buckets),
        within_target=_share(buckets.get(TARGET_S, 0.0), buckets.get("+Inf", 0.0)),
        skip_rate=_share(sum(skipped.values()), sum(rows.values())),
        skip_rates=tuple(skipped.get(block, 0.0) / rows[block] for block in blocks if rows[block]),
        held_back=_share(
            added.total("skipserve_guard_held_back_rows_total", model=model) or 0.0,
            added.total("skipserve_rows_total", model=model, router="on") or 0.0,
        ),
        state=_state(after, model=model),
        risk=risk,
        evidence_rows=_at_risk(after, "skipserve_evidence_rows_total", model, risk),
        disagreements=_at_risk(after, "skipserve_evidence_disagreements_total", model, risk),
        alarm=after.largest("skipserve_alarm_evidence", model=model),
        alarm_level=after.total("skipserve_alarm_level", model=model),
        fallbacks=after.total("skipserve_router_fallbacks_total", model=model) or 0.0,
        drift=max(
            after.by("stage", "skipserve_signal_drift_ratio", model=model).values(), default=None
        ),
        earning=tuple(_earning(model, after)),
    )


def _earning(model: str, after: Scrape) -> Iterator[Earning]:
    for of_slice in sorted(after.by("slice", "skipserve_earning_problem", model=model)):
        at = {"model": model, "slice": of_slice}
        problem = bool(after.total("skipserve_earning_problem", **at))
        rows = after.total("skipserve_earning_rows", **at)
        if rows is None and not problem:
            continue
        needed = after.by("risk", "skipserve_earning_needed_rows", **at)
        nearest = min(needed, key=lambda risk: needed[risk], default="")
        left = after.by("risk", "skipserve_earning_left_seconds", **at)
        proposing = after.total("skipserve_earning_proposing_rows", **at)
        propose = after.total("skipserve_earning_proposing_needed_rows", **at)
        yield Earning(
            of_slice=of_slice,
            state=_state(after, **at),
            rows=rows or 0.0,
            needed=needed.get(nearest),
            seconds=left.get(nearest),
            epoch=after.total("skipserve_earning_epoch", **at) or 0.0,
            in_force=after.by("risk", "skipserve_earning_in_force", **at),
            candidates=len(after.by("candidate", "skipserve_earning_disagreements", **at)),
            problem=problem,
            proposing=None if proposing is None or propose is None else (proposing, propose),
        )


def _at_risk(after: Scrape, name: str, model: str, risk: float | None) -> float:
    """The sum of a counter of a model at a risk; at every risk where none is certified."""
    counts = after.by("risk", name, model=model)
    return sum(count for at, count in counts.items() if risk is None or float(at) == risk)


def _runs_on(model: str, after: Scrape) -> str:
    parts = (
        "/".join(after.by(label, "skipserve_model_info", model=model))
        for label in ("backend", "provider", "precision")
    )
    return " ".join(parts)


def _state(after: Scrape, **at: str) -> str:
    states = after.by("state", "skipserve_router_state", **at)
    held = [state for state, value in states.items() if value]
    # Of slices that differ, what wants looking at first.
    return next((state for state in WORST_FIRST if state in held), "unknown")


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
