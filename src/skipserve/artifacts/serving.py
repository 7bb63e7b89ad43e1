"""Serving settings of one model: [serving] in its build file and in its archive.

Settings of the host (sockets, processes) are in hosts/config.py.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from skipserve.artifacts.asked import AskedPrecision, AskedProvider, BackendName
from skipserve.intervals import spelled
from skipserve.schema import Record


class ServingConfig(Record):
    """Serving defaults of one model; the options of `skipserve serve` override them.

    Attributes:
        backend: ``onnxruntime`` or ``torchscript``.
        precision: ``auto`` is FP16 on a GPU and FP32 on a CPU, where the artifact has such files.
        provider: ``auto`` takes a GPU where there is one.
        threads: Cores used inside one operation; 0 takes all.
        batch_size: Most requests in one batch; 1 turns batching off.
        max_batch_delay_ms: Longest wait of a batch that is not full for more requests. None by
            default: a batch is what came in while the last one ran. TorchServe waits for whole
            milliseconds, one at least.
        join_ms: Requests that come so soon after a batch has begun set out at once, before those of
            its rows that are deep on their way; 0: behind them. New requests are answered sooner
            by it, deep ones later. TorchServe hands over whole batches: it has no effect there.
        queue_size: Requests that may wait; one more is answered 503.
        max_wait_ms: A request that would wait longer for its batch, by the pace of the last ones,
            is answered 503 at once. ``response_timeout_s`` if left out. No effect behind
            TorchServe.
        response_timeout_s: A request that waits longer is answered 503, and a worker that takes
            longer for a batch is ended and started again.
        max_rows: Most rows in one request; more are answered 413.
        access_log: Share of the requests that leave a line in the log; errors always do.
        risk: ε of the router for requests that name no risk; full depth if left out.
        overload_risk: Largest ε that a request which names none may get while requests wait longer
            than 15 ms for their batch: the router moves from ``risk`` along its certified risks,
            and back. It needs ``risk``. Left out, the router stays at ``risk``. No effect behind
            TorchServe.
        evidence: Share of the routed rows that is run at full depth, to see what every candidate
            would have answered; 0 turns the alarm off, and earning too.
        alarm_alpha: Chance that the alarm is raised although the certificate holds, in each stretch
            that the same is in force (docs/guarantees.md).
        metrics: Counting can be turned off to measure what it costs.
    """

    backend: BackendName = "onnxruntime"
    precision: AskedPrecision = "auto"
    provider: AskedProvider = "auto"
    threads: Annotated[int, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    max_batch_delay_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    join_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    queue_size: Annotated[int, Field(ge=1)] = 1000
    max_wait_ms: Annotated[float, Field(gt=0, le=86_400_000)] | None = None
    response_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    max_rows: Annotated[int, Field(ge=1)] = 1024
    access_log: Annotated[float, Field(ge=0, le=1)] = 0.0
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    overload_risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    evidence: Annotated[float, Field(ge=0, le=1)] = 0.01
    alarm_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    metrics: bool = True

    @property
    def asks_evidence(self) -> bool:
        """Whether a share of evidence was named, rather than left at its default, and is not 0."""
        return self.evidence > 0 and "evidence" in self.model_fields_set

    @property
    def refuse_s(self) -> float:
        """Requests that would wait longer than this many seconds are refused at once."""
        return self.response_timeout_s if self.max_wait_ms is None else self.max_wait_ms / 1e3

    def model_post_init(self, _context: Any) -> None:
        risk, most = self.risk, self.overload_risk
        if risk is not None and most is not None and most <= risk:
            raise ValueError(
                f"overload_risk is {spelled(most)}, expected more than risk, {spelled(risk)}"
            )
