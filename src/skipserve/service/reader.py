"""Requests as they arrived in, rows and what they ask of the router out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise

import msgspec

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.answers import Answer
from skipserve.protocols.compatible import speaking
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.json_types import Columns
from skipserve.protocols.messages import (
    Question,
    RawRequest,
    Reply,
    Speaks,
    Tensors,
    Values,
    most_bytes,
)
from skipserve.protocols.native import NativeProtocol
from skipserve.protocols.oip import OpenInference, speaks_oip
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.protocols.text_bound import check_together
from skipserve.protocols.v1 import V1Protocol, speaks_v1
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import Rows
from skipserve.safety.switch import Standing
from skipserve.service.in_force import InForce
from skipserve.service.runs import Job
from skipserve.telemetry.logs import fields

INTERNAL = InputError(
    "internal", "the request failed inside the server; its log says why, by X-Request-ID"
)

logger = logging.getLogger(__name__)


@dataclass
class Admission:
    """When requests were taken in together, in seconds of ``perf_counter``."""

    start: float
    read: float = 0.0


class _Asked(msgspec.Struct, frozen=True):
    request: RawRequest
    place: int
    question: Question
    setting: Setting
    refuse: Callable[[InputError], Reply]


class Read(Job, frozen=True):
    """A request that can be answered.

    Attributes:
        place: Among those that were asked.
        admission: When it was taken in.
        standing: In force as its rows were drawn; says what they are evidence for.
        encode: Makes its reply.
        refuse: Makes one that says what is wrong.
    """

    place: int
    admission: Admission
    standing: Standing
    encode: Callable[[Answer], Reply]
    refuse: Callable[[InputError], Reply]


class Reader:
    """Reads requests to one model, whatever protocol they speak.

    Args:
        engine: The open model.
        serving: Its serving settings.
        version: As clients name it.
    """

    def __init__(self, engine: Engine, serving: ServingConfig, version: str) -> None:
        manifest = engine.manifest
        self._engine = engine
        self._native = NativeProtocol(manifest, serving.max_rows)
        self._v1 = V1Protocol(manifest, serving.max_rows)
        self._oip = OpenInference(manifest, serving.max_rows, version)
        self._by_name: dict[str, Speaks] = {
            "native": self._native,
            "oip": self._oip,
            "v1": self._v1,
            **speaking(manifest, serving.max_rows),
        }
        self._takes_texts = manifest.text is not None
        self._most_bytes = most_bytes(serving.max_rows, manifest.signature, manifest.preprocessing)

    def read(
        self, requests: Sequence[RawRequest], first: int, admission: Admission, in_force: InForce
    ) -> tuple[list[Read], list[tuple[int, Reply]]]:
        """Read requests: those that can be answered, and replies to the others with their places.

        Args:
            requests: As they arrived.
            first: Place of the first among those that were asked.
            admission: When they were taken in.
            in_force: What requests get that leave the router on.
        """
        asked: list[_Asked] = []
        refused: list[tuple[int, Reply]] = []
        for place, request in enumerate(requests, first):
            one = self._decode(request, place, in_force)
            if isinstance(one, _Asked):
                asked.append(one)
            else:
                refused.append((place, one))
        good = []
        for one, rows in zip(asked, self._checked(asked), strict=True):
            if isinstance(rows, Rows):
                good.append(
                    Read(
                        *(rows, one.setting, one.request),
                        *(in_force.draw(one.setting, len(rows)), one.place, admission),
                        *(in_force.standing, one.question.encode, one.refuse),
                    )
                )
            else:
                refused.append((one.place, named(one.refuse(rows), one.request)))
        return good, refused

    def _decode(self, request: RawRequest, place: int, in_force: InForce) -> _Asked | Reply:
        protocol = self._by_name.get(request.protocol, self._native)
        try:
            plain = unpacked(request, self._most_bytes)
            protocol = self._spoken(plain)
            if request.explain:
                raise InputError(
                    "no_explanations", "no model here has explanations; ask for predictions"
                )
            question = protocol.decode(plain)
            if self._takes_texts and isinstance(question.rows, Values):
                check_together(question.rows.values)
            if question.tokenize is not None:
                return named(self._tokens(question, question.tokenize), request)
            setting = in_force.resolve(question.asked)
        except InputError as error:
            return named(protocol.refuse(error), request)
        except Exception:
            logger.exception("a request could not be decoded", extra=fields(request_id=request.id))
            return named(protocol.refuse(INTERNAL), request)
        return _Asked(request, place, question, setting, protocol.refuse)

    def _checked(self, asked: Sequence[_Asked]) -> list[Rows | InputError]:
        """The rows of each, or what is wrong with them: all at once, if nothing is."""
        values = [one for one in asked if isinstance(one.question.rows, Values)]
        if values:
            ready = iter(self._prepared(values))
            return [
                next(ready) if isinstance(one.question.rows, Values) else self._check(one)
                for one in asked
            ]
        columns = [one.question.rows for one in asked if isinstance(one.question.rows, Columns)]
        if len(columns) < len(asked) or len(asked) < 2 or not all(one.even for one in columns):
            return [self._check(one) for one in asked]
        with suppress(Exception):  # whose fault it is comes out one by one
            whole = self._rows(Columns.together(columns))
            return _apart(whole, [one.rows for one in columns])
        return [self._check(one) for one in asked]

    def _prepared(self, asked: Sequence[_Asked]) -> list[Rows | InputError]:
        """The tensors that become of values: of all requests at once, if nothing is wrong."""
        if len(asked) > 1:
            questions = (one.question.rows for one in asked)
            some = [rows.values for rows in questions if isinstance(rows, Values)]
            with suppress(Exception):  # whose fault it is comes out one by one
                whole = self._rows(Values([value for values in some for value in values]))
                return _apart(whole, [len(values) for values in some])
        return [self._check(one) for one in asked]

    def _check(self, one: _Asked) -> Rows | InputError:
        """The rows of a request, or what is wrong: no request may take its neighbours with it."""
        try:
            return self._rows(one.question.rows)
        except InputError as error:
            return error
        except Exception:  # libraries decode what strangers send; memory may run out
            logger.exception("rows could not be made", extra=fields(request_id=one.request.id))
            return INTERNAL

    def _rows(self, rows: Tensors | Values) -> Rows:
        if isinstance(rows, Values):
            return self._engine.prepare(rows.values)
        return self._engine.check(rows)

    def _tokens(self, question: Question, special: bool) -> Reply:
        assert isinstance(question.rows, Values)
        tokens = self._engine.tokens(question.rows.values, special)
        return Reply(msgspec.json.encode(tokens))

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return named(self._spoken(request).refuse(error), request)

    def _spoken(self, request: RawRequest) -> Speaks:
        if request.protocol:
            return self._by_name[request.protocol]
        if speaks_oip(request):
            return self._oip
        return self._v1 if speaks_v1(request) else self._native


def _apart(rows: Rows, counts: Sequence[int]) -> list[Rows | InputError]:
    """The rows of each of several requests."""
    return [rows[slice(*places)] for places in pairwise(accumulate(counts, initial=0))]


def named(reply: Reply, request: RawRequest) -> Reply:
    """The reply with the request's name in its headers, if it has one."""
    if request.id:
        reply.headers[REQUEST_ID] = request.id
    return reply
