"""One model behind any server: requests of a batch in, replies out, in the same order.

    decode (one request at a time) → engine.run (all good rows at once) → encode

Rows of different shapes are padded to one where the signature has a mask, and run apart where it
has none. A bad request gets its own error and leaves its neighbours alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.messages import (
    Asked,
    RawRequest,
    Reply,
    Speaks,
    most_bytes,
)
from skipserve.protocols.native import NativeProtocol
from skipserve.protocols.oip import OpenInference, speaks_oip
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.protocols.v1 import V1Protocol, speaks_v1
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting, overflow
from skipserve.safety.switch import REASONS, AlwaysOn, Switch, SwitchState
from skipserve.service.idle import AtOnce, Idle
from skipserve.service.runs import Job, Ran, Runs, answers_of
from skipserve.service.shadow import Answered, Shadow
from skipserve.telemetry.journal import Batch, Journal
from skipserve.telemetry.logs import fields
from skipserve.telemetry.metrics import NoMetrics, open_metrics
from skipserve.telemetry.tracing import Phases

INTERNAL = InputError(
    "internal", "the request failed inside the server; its log says why, by X-Request-ID"
)
# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded(Job):
    wanted: Setting  # what was asked for and is certified
    encode: Callable[[Prediction, Setting], Reply]
    refuse: Callable[[InputError], Reply]
    decode_s: float


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
        self._runs = Runs(engine)
        self._oip = OpenInference(engine.manifest, serving.max_rows)
        self._most_bytes = most_bytes(serving.max_rows, engine.manifest.signature)
        self._by_name: dict[str, Speaks] = {
            "native": self._native,
            "oip": self._oip,
            "v1": self._v1,
        }
        metrics = open_metrics(engine, self._default)  # says, too, that this worker is there
        self._metrics = metrics if serving.metrics else NoMetrics()
        budget_s = serving.shadow_budget_ms / 1e3
        self._shadow = Shadow(engine, self._metrics, serving.shadow, budget_s, idle.message_waits)

    def answer(self, requests: Sequence[RawRequest]) -> list[Reply]:
        """Answer the requests of one batch; never raises for what a client sent."""
        start = perf_counter()
        state = self._switch.state()
        decoded = [self._decode(request, state) for request in requests]
        before = perf_counter()
        good = [(i, item) for i, item in enumerate(decoded) if isinstance(item, _Decoded)]
        runs = self._runs.run(good)
        after = perf_counter()
        parts = answers_of(len(requests), runs)
        replies = self._encode(decoded, parts, runs, after - before)
        for request, reply in zip(requests, replies, strict=True):
            if request.id:
                reply.headers[REQUEST_ID] = request.id
        end = perf_counter()

        def observe() -> None:
            skipped = 0
            for run in runs:
                in_force = [job.setting for job in run.jobs for _ in range(len(job.rows))]
                wanted = [job.wanted for job in run.jobs for _ in range(len(job.rows))]
                self._metrics.rows(run.prediction, in_force)
                skipped += self._count_skipped(run, replies)
                self._shadow.draw(Answered(run.rows, run.prediction, wanted, state != "on"))
            rows = [len(run.rows) for run in runs]
            self._metrics.phases(rows, before - start, after - before, end - after)
            self._metrics.requests([reply.status for reply in replies], skipped, end - start)
            phases = Phases(start, before, after, end)
            self._journal.write(Batch(requests, replies, parts, phases))
            self._shadow.work()

        self._put_off(observe)
        return replies

    def _count_skipped(self, run: Ran[_Decoded], replies: Sequence[Reply]) -> int:
        shallow = run.prediction.depth_run < self._engine.manifest.depth
        if not shallow.any():
            return 0
        answered = [replies[place].status == 200 for place in run.places]
        starts = np.cumsum([0, *(len(item.rows) for item in run.jobs[:-1])])
        return int((np.logical_or.reduceat(shallow, starts) & answered).sum())

    def _decode(self, request: RawRequest, state: SwitchState) -> _Decoded | Reply:
        start = perf_counter()
        protocol = self._by_name.get(request.protocol, self._native)
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
                rows, setting, request.id, wanted, question.encode, protocol.refuse, decode_s
            )
        except InputError as error:
            return protocol.refuse(error)
        except Exception:
            logger.exception("a request could not be decoded", extra=fields(request_id=request.id))
            return protocol.refuse(INTERNAL)

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        reply = self._spoken(request).refuse(error)
        if request.id:
            reply.headers[REQUEST_ID] = request.id
        return reply

    def fail(self, request: RawRequest) -> Reply:
        """Say that a request failed for no fault of its own."""
        return self.refuse(request, INTERNAL)

    def waited(self, seconds: Sequence[float]) -> None:
        """Take in how long the requests of a batch waited for it."""
        self._metrics.waited(seconds)

    def _spoken(self, request: RawRequest) -> Speaks:
        if request.protocol:
            return self._by_name[request.protocol]
        if speaks_oip(request):
            return self._oip
        return self._v1 if speaks_v1(request) else self._native

    def _resolve(self, asked: Asked) -> Setting:
        if asked is None:
            return self._default
        if isinstance(asked, str):
            return self._on if asked == "on" else self._engine.off
        return self._engine.setting(asked.risk, asked.measure)

    def _encode(
        self,
        decoded: Sequence[_Decoded | Reply],
        parts: Sequence[Prediction | None],
        runs: Sequence[Ran[_Decoded]],
        inference_s: float,
    ) -> list[Reply]:
        replies = []
        finite = all(np.isfinite(run.prediction.probabilities).all() for run in runs)
        for item, part in zip(decoded, parts, strict=True):
            if isinstance(item, Reply):
                replies.append(item)
                continue
            if part is None:
                replies.append(item.refuse(INTERNAL))
                continue
            if not finite and not np.isfinite(part.probabilities).all():
                replies.append(item.refuse(overflow(part)))
                continue
            reply = item.encode(part, item.setting)
            reply.headers["server-timing"] = (
                f"decode;dur={item.decode_s * 1e3:.3f}, inference;dur={inference_s * 1e3:.3f}"
            )
            replies.append(reply)
        return replies
