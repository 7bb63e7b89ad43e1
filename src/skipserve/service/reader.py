"""Requests as they arrived in, rows and what they ask of the router out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.messages import Asked, RawRequest, Reply, Speaks, most_bytes
from skipserve.protocols.native import NativeProtocol
from skipserve.protocols.oip import OpenInference, speaks_oip
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.protocols.v1 import V1Protocol, speaks_v1
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.safety.switch import REASONS, SwitchState
from skipserve.service.runs import Job
from skipserve.telemetry.logs import fields

INTERNAL = InputError(
    "internal", "the request failed inside the server; its log says why, by X-Request-ID"
)
# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01

logger = logging.getLogger(__name__)


@dataclass
class Admission:
    """When requests were taken in together, in seconds of ``perf_counter``."""

    start: float
    read: float = 0.0


@dataclass(frozen=True)
class Read(Job):
    """A request that can be answered.

    Attributes:
        place: Among those that were asked.
        request: As it arrived.
        admission: When it was taken in.
        wanted: The setting that it asked for and that is certified.
        encode: Makes its reply.
        refuse: Makes one that says what is wrong.
        read_s: Seconds that reading took.
    """

    place: int
    request: RawRequest
    admission: Admission
    wanted: Setting
    encode: Callable[[Prediction, Setting], Reply]
    refuse: Callable[[InputError], Reply]
    read_s: float


class Reader:
    """Reads requests to one model, whatever protocol they speak.

    Args:
        engine: The open model.
        serving: Its serving settings.
    """

    def __init__(self, engine: Engine, serving: ServingConfig) -> None:
        manifest = engine.manifest
        self._engine = engine
        self.default = engine.setting(serving.risk)
        self._on = engine.setting(serving.risk or RISK_IF_ON)
        self._switched_off = {
            state: replace(engine.off, reason=reason) for state, reason in REASONS.items()
        }
        self._native = NativeProtocol(manifest, serving.max_rows)
        self._v1 = V1Protocol(manifest, serving.max_rows)
        self._oip = OpenInference(manifest, serving.max_rows)
        self._by_name: dict[str, Speaks] = {
            "native": self._native,
            "oip": self._oip,
            "v1": self._v1,
        }
        self._most_bytes = most_bytes(serving.max_rows, manifest.signature)

    def read(
        self, request: RawRequest, place: int, admission: Admission, state: SwitchState
    ) -> Read | Reply:
        """Read a request, or say what is wrong with it.

        Args:
            request: As it arrived.
            place: Among those that were asked.
            admission: When it was taken in.
            state: Of the router's switch.
        """
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
            return Read(
                *(rows, setting, request.id, place, request, admission, wanted),
                *(question.encode, protocol.refuse),
                perf_counter() - start,
            )
        except InputError as error:
            return named(protocol.refuse(error), request)
        except Exception:
            logger.exception("a request could not be decoded", extra=fields(request_id=request.id))
            return named(protocol.refuse(INTERNAL), request)

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return named(self._spoken(request).refuse(error), request)

    def _spoken(self, request: RawRequest) -> Speaks:
        if request.protocol:
            return self._by_name[request.protocol]
        if speaks_oip(request):
            return self._oip
        return self._v1 if speaks_v1(request) else self._native

    def _resolve(self, asked: Asked) -> Setting:
        if asked is None:
            return self.default
        if isinstance(asked, str):
            return self._on if asked == "on" else self._engine.off
        return self._engine.setting(asked.risk, asked.measure)


def named(reply: Reply, request: RawRequest) -> Reply:
    """The reply with the request's name in its headers, if it has one."""
    if request.id:
        reply.headers[REQUEST_ID] = request.id
    return reply
