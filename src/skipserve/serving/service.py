"""One model behind any server: requests of a batch in, replies out, in the same order.

    decode (one request at a time) → engine.run (all good rows at once) → encode

A bad request gets its own error and leaves its neighbours alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InputError
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting, overflow
from skipserve.serving.config import ServingConfig
from skipserve.serving.content_coding import unpacked
from skipserve.serving.idle import AtOnce, Idle
from skipserve.serving.journal import Batch, Journal
from skipserve.serving.logs import fields
from skipserve.serving.messages import (
    Asked,
    RawRequest,
    Reply,
    Speaks,
    error_reply,
    most_bytes,
)
from skipserve.serving.metrics import NoMetrics, open_metrics
from skipserve.serving.native import NativeProtocol
from skipserve.serving.oip import OpenInference, speaks_oip
from skipserve.serving.request_id import HEADER as REQUEST_ID
from skipserve.serving.shadow import Answered, Shadow
from skipserve.serving.switch import REASONS, AlwaysOn, Switch, SwitchState
from skipserve.serving.tracing import Phases
from skipserve.serving.v1 import V1Protocol, speaks_v1

# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded:
    rows: NDArray[np.float32]
    wanted: Setting  # what was asked for and is certified
    setting: Setting  # what is in force
    encode: Callable[[Prediction, Setting], Reply]
    refuse: Callable[[InputError], Reply]
    decode_s: float
    id: str


class Service:
    """Answers batches of requests for one model.

    Args:
        engine: The open model.
        serving: Its serving settings.
        idle: Does work once the replies are on their way; at once by default.
        switch: Turns the router off for a while; always on by default.
        journal: Tells of the requests; by default only of those that were refused.
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServingConfig,
        idle: Idle | None = None,
        switch: Switch | None = None,
        journal: Journal | None = None,
    ) -> None:
        idle = idle or AtOnce()
        self._put_off = idle.when_idle
        self._switch = switch or AlwaysOn()
        self._journal = journal or Journal(engine.manifest.name, serving.access_log)
        self._default = engine.setting(serving.risk)
        self._on = engine.setting(serving.risk or RISK_IF_ON)
        self._switched_off = {
            state: replace(engine.off, reason=reason) for state, reason in REASONS.items()
        }
        if self._default.reason:
            logger.warning(
                "%s serves at full depth: %s", engine.manifest.name, self._default.reason
            )
        self._engine = engine
        self._native = NativeProtocol(engine.manifest, serving.max_rows)
        self._v1 = V1Protocol(engine.manifest, serving.max_rows)
        self._oip = OpenInference(engine.manifest, serving.max_rows)
        self._most_bytes = most_bytes(serving.max_rows, engine.manifest.row_shape)
        metrics = open_metrics(engine, self._default)  # says, too, that this worker is there
        self._metrics = metrics if serving.metrics else NoMetrics()
        budget_s = serving.shadow_budget_ms / 1e3
        self._shadow = Shadow(engine, self._metrics, serving.shadow, budget_s, idle.message_waits)

    def answer(self, requests: Sequence[RawRequest]) -> list[Reply]:
        """Answer the requests of one batch; never raises for what a client sent."""
        start = perf_counter()
        state = self._switch.state()
        decoded = [self._decode(request, state) for request in requests]
        good = [item for item in decoded if isinstance(item, _Decoded)]
        before = perf_counter()
        rows = _joined([item.rows for item in good])
        prediction = self._run(good, rows)
        after = perf_counter()
        replies = self._encode(decoded, prediction, after - before)
        for request, reply in zip(requests, replies, strict=True):
            if request.id:
                reply.headers[REQUEST_ID] = request.id
        end = perf_counter()

        def observe() -> None:
            skipped = 0
            if prediction is not None:
                in_force = [item.setting for item in good for _ in item.rows]
                wanted = [item.wanted for item in good for _ in item.rows]
                self._metrics.rows(prediction, in_force)
                skipped = self._count_skipped(decoded, replies, prediction)
                self._shadow.draw(Answered(rows, prediction, wanted, state != "on"))
            self._metrics.phases(len(rows), before - start, after - before, end - after)
            self._metrics.requests([reply.status for reply in replies], skipped, end - start)
            counts = [len(item.rows) if isinstance(item, _Decoded) else 0 for item in decoded]
            phases = Phases(start, before, after, end)
            self._journal.write(Batch(requests, replies, counts, prediction, phases))
            self._shadow.work()

        self._put_off(observe)
        return replies

    def _count_skipped(
        self,
        decoded: Sequence[_Decoded | Reply],
        replies: Sequence[Reply],
        prediction: Prediction,
    ) -> int:
        shallow = prediction.depth_run < self._engine.manifest.depth
        if not shallow.any():
            return 0
        good = [
            (len(item.rows), reply.status == 200)
            for item, reply in zip(decoded, replies, strict=True)
            if isinstance(item, _Decoded)
        ]
        lengths, answered = zip(*good, strict=True)
        starts = np.cumsum([0, *lengths[:-1]])
        return int((np.logical_or.reduceat(shallow, starts) & answered).sum())

    def _decode(self, request: RawRequest, state: SwitchState) -> _Decoded | Reply:
        start = perf_counter()
        protocol: Speaks = self._native
        try:
            plain = unpacked(request, self._most_bytes)
            protocol = self._spoken(plain)
            if request.explain:
                raise InputError(
                    "no_explanations", "no model here has explanations; ask for predictions"
                )
            question = protocol.decode(plain)
            wanted = self._resolve(question.asked)
            off = state != "on" and wanted.risk is not None
            setting = self._switched_off[state] if off else wanted
            rows = self._engine.check(question.rows)
            decode_s = perf_counter() - start
            return _Decoded(
                rows, wanted, setting, question.encode, protocol.refuse, decode_s, request.id
            )
        except InputError as error:
            return protocol.refuse(error)
        except Exception:
            logger.exception("a request could not be decoded", extra=fields(request_id=request.id))
            return _internal_error()

    def _spoken(self, request: RawRequest) -> Speaks:
        if speaks_oip(request):
            return self._oip
        return self._v1 if speaks_v1(request) else self._native

    def _resolve(self, asked: Asked) -> Setting:
        if asked is None:
            return self._default
        if isinstance(asked, str):
            return self._on if asked == "on" else self._engine.off
        return self._engine.setting(asked.risk, asked.measure)

    def _run(self, good: Sequence[_Decoded], rows: NDArray[np.float32]) -> Prediction | None:
        if not good:
            return None
        counts = [len(item.rows) for item in good]
        try:
            if self._engine.manifest.router is None:
                return self._engine.run(rows)
            # Rows of one batch may have been asked for at different risks.
            thresholds = np.repeat([item.setting.thresholds for item in good], counts, axis=0)
            limits = np.array([item.setting.guard_limit for item in good], dtype=np.float32)
            return self._engine.run(rows, thresholds, np.repeat(limits, counts))
        except Exception:
            ids = [item.id for item in good]
            logger.exception("a batch of %d rows failed", len(rows), extra=fields(request_ids=ids))
            return None

    def _encode(
        self,
        decoded: Sequence[_Decoded | Reply],
        prediction: Prediction | None,
        inference_s: float,
    ) -> list[Reply]:
        replies, first = [], 0
        finite = prediction is not None and bool(np.isfinite(prediction.probabilities).all())
        for item in decoded:
            if isinstance(item, Reply):
                replies.append(item)
                continue
            if prediction is None:
                replies.append(_internal_error())
                continue
            last = first + len(item.rows)
            part = prediction.rows(first, last)
            first = last
            if not finite and not np.isfinite(part.probabilities).all():
                replies.append(item.refuse(overflow(part)))
                continue
            reply = item.encode(part, item.setting)
            reply.headers["server-timing"] = (
                f"decode;dur={item.decode_s * 1e3:.3f}, inference;dur={inference_s * 1e3:.3f}"
            )
            replies.append(reply)
        return replies


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def _internal_error() -> Reply:
    return error_reply(
        500, "internal", "the request failed inside the server; its log says why, by X-Request-ID"
    )
