"""The journal of requests: lines in the log, spans in traces.

One line for each reply that is not 200, none for the others but for a sampled share of them.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.prediction import Prediction
from skipserve.telemetry.logs import fields
from skipserve.telemetry.tracing import NO_TRACING, Phases, Tracing

# Refused requests must not fill the disk with log lines.
REFUSALS_PER_S = 10
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Requests that were answered together.

    Attributes:
        requests: As they arrived.
        replies: One for each.
        answers: For the rows of each; ``None`` for one whose rows did not run.
        phases: When what happened.
        rows: Of all requests that were taken in meanwhile.
    """

    requests: Sequence[RawRequest]
    replies: Sequence[Reply]
    answers: Sequence[Prediction | None]
    phases: Phases
    rows: int


class Journal:
    """Writes the log lines and spans of one model.

    Args:
        model: Its name.
        access_log: Share of the answered requests that leave a line.
        tracing: Where spans go.
    """

    def __init__(self, model: str, access_log: float = 0.0, tracing: Tracing = NO_TRACING) -> None:
        self._model = model
        self._share = access_log
        self._tracing = tracing
        self._refusals = _Allowance(REFUSALS_PER_S)

    def tells(self, replies: Sequence[Reply]) -> bool:
        """Whether these replies need a line or a span."""
        return self._share > 0 or self._tracing.on or any(one.status != 200 for one in replies)

    def write(self, batch: Batch) -> None:
        """Write the lines and spans of one batch."""
        for i, (request, reply) in enumerate(zip(batch.requests, batch.replies, strict=True)):
            answer = batch.answers[i]
            rows = 0 if answer is None else len(answer)
            depth_run = None if answer is None else float(answer.depth_run.mean())
            if self._tracing.on:
                self._tracing.record(self._model, request, reply, rows, depth_run, batch.phases)
            # Internal errors have been logged where they happened.
            if 400 <= reply.status < 500:
                self._refused(request, reply)
            elif self._share and random.random() < self._share:  # noqa: S311 - a sample
                self._answered(request, reply, rows, depth_run, batch.rows, batch.phases)

    def _refused(self, request: RawRequest, reply: Reply) -> None:
        left_out = self._refusals.take(time.monotonic())
        if left_out is None:
            return
        extra = self._of(request, reply)
        extra["left_out_before"] = left_out or None
        logger.warning("refused: %s", _text(reply.body), extra=fields(**extra))

    def _answered(
        self,
        request: RawRequest,
        reply: Reply,
        rows: int,
        depth_run: float | None,
        batch_rows: int,
        phases: Phases,
    ) -> None:
        extra = self._of(request, reply) | {
            "rows": rows,
            "batch_rows": batch_rows,
            "depth_run": None if depth_run is None else round(depth_run, 2),
            "decode_s": round(phases.decoded - phases.start, 6),
            "inference_s": round(phases.inferred - phases.decoded, 6),
            "duration_s": round(phases.end - phases.start, 6),
        }
        logger.info("answered", extra=fields(**extra))

    def _of(self, request: RawRequest, reply: Reply) -> dict[str, object]:
        trace = _TRACE.fullmatch(request.headers.get("traceparent", ""))
        return {
            "request_id": request.id,
            "trace_id": trace.group(1) if trace else None,
            "model": self._model,
            "status": reply.status,
            "code": reply.reason,
        }


class _Allowance:
    """A rate limit for lines, which counts what it suppressed."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._second = -1
        self._taken = self._left_out = 0

    def take(self, now_s: float) -> int | None:
        """The number of lines suppressed since the last one; ``None`` to suppress this one."""
        if int(now_s) != self._second:
            self._second, self._taken = int(now_s), 0
        if self._taken == self._per_s:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


def _text(body: bytes | str) -> str:
    text = body if isinstance(body, str) else body.decode(errors="replace")
    return text if len(text) <= 500 else text[:500] + "…"
