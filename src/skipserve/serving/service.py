"""One model behind any server: requests of a batch in, replies out, in the same order.

    decode (one request at a time) → engine.run (all good rows at once) → encode

A bad request gets its own error and leaves its neighbours alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InputError
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting, overflow
from skipserve.serving.messages import Asked, RawRequest, Reply, error_reply
from skipserve.serving.metrics import open_metrics
from skipserve.serving.native import NativeProtocol
from skipserve.serving.oip import OpenInference, speaks_oip
from skipserve.serving.oip import Request as OipRequest

# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded:
    rows: NDArray[np.float32]
    setting: Setting
    oip: OipRequest | None
    decode_s: float


class Service:
    """Answers batches of requests for one model.

    Args:
        engine: The open model.
        max_rows: Most rows in one request.
        risk: ε for a request that asks for nothing; full depth for ``None``.
        put_off: Does work once the replies are on their way; at once by default.
    """

    def __init__(
        self,
        engine: Engine,
        max_rows: int,
        risk: float | None = None,
        put_off: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        self._put_off = put_off
        self._default = engine.setting(risk)
        self._on = engine.setting(risk or RISK_IF_ON)
        if self._default.reason:
            logger.warning(
                "%s serves at full depth: %s", engine.manifest.name, self._default.reason
            )
        self._engine = engine
        self._native = NativeProtocol(engine.manifest, max_rows)
        self._oip = OpenInference(engine.manifest, max_rows)
        self._metrics = open_metrics(engine, self._default)

    def answer(self, requests: Sequence[RawRequest]) -> list[Reply]:
        """Answer the requests of one batch; never raises for what a client sent."""
        start = perf_counter()
        decoded = [self._decode(request) for request in requests]
        good = [item for item in decoded if isinstance(item, _Decoded)]
        before = perf_counter()
        prediction = self._run(good)
        after = perf_counter()
        replies = self._encode(decoded, prediction, after - before)
        end = perf_counter()

        def observe() -> None:
            skipped = 0
            if prediction is not None:
                self._metrics.rows(prediction, _router_on(good))
                skipped = self._count_skipped(decoded, replies, prediction)
            rows = sum(len(item.rows) for item in good)
            self._metrics.phases(rows, before - start, after - before, end - after)
            self._metrics.requests([reply.status for reply in replies], skipped, end - start)

        self._put_off(observe)
        return replies

    def _count_skipped(
        self,
        decoded: Sequence[_Decoded | Reply],
        replies: Sequence[Reply],
        prediction: Prediction,
    ) -> int:
        shallow = prediction.depth_run < self._engine.manifest.depth
        count = first = 0
        if shallow.any():
            for item, reply in zip(decoded, replies, strict=True):
                if isinstance(item, _Decoded):
                    last = first + len(item.rows)
                    count += reply.status == 200 and bool(shallow[first:last].any())
                    first = last
        return count

    def _decode(self, request: RawRequest) -> _Decoded | Reply:
        start = perf_counter()
        protocol: NativeProtocol | OpenInference = self._native
        try:
            if speaks_oip(request):
                protocol = self._oip
            rows: NDArray[Any]
            oip = None
            if isinstance(protocol, OpenInference):
                oip, rows, asked = protocol.decode(request)
            else:
                rows, asked = protocol.decode(request)
            setting = self._resolve(asked)
            return _Decoded(self._engine.check(rows), setting, oip, perf_counter() - start)
        except InputError as error:
            return protocol.refuse(error)
        except Exception:
            logger.exception("a request could not be decoded")
            return _internal_error()

    def _resolve(self, asked: Asked) -> Setting:
        if asked is None:
            return self._default
        if isinstance(asked, str):
            return self._on if asked == "on" else self._engine.off
        return self._engine.setting(asked)

    def _run(self, good: Sequence[_Decoded]) -> Prediction | None:
        if not good:
            return None
        counts = [len(item.rows) for item in good]
        rows = good[0].rows if len(good) == 1 else np.concatenate([item.rows for item in good])
        try:
            if self._engine.manifest.router is None:
                return self._engine.run(rows)
            # Rows of one batch may have been asked for at different risks.
            thresholds = np.repeat([item.setting.thresholds for item in good], counts, axis=0)
            limits = np.array([item.setting.guard_limit for item in good], dtype=np.float32)
            return self._engine.run(rows, thresholds, np.repeat(limits, counts))
        except Exception:
            logger.exception("a batch of %d rows failed", len(rows))
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
                protocol = self._native if item.oip is None else self._oip
                replies.append(protocol.refuse(overflow(part)))
                continue
            reply = (
                self._native.encode(part, item.setting)
                if item.oip is None
                else self._oip.encode(item.oip, part)
            )
            reply.headers["server-timing"] = (
                f"decode;dur={item.decode_s * 1e3:.3f}, inference;dur={inference_s * 1e3:.3f}"
            )
            replies.append(reply)
        return replies


def _router_on(good: Sequence[_Decoded]) -> NDArray[np.bool_]:
    return np.repeat(
        [item.setting.risk is not None for item in good], [len(item.rows) for item in good]
    )


def _internal_error() -> Reply:
    return error_reply(500, "internal", "the request failed inside the server; its log says why")
