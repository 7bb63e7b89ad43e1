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
from skipserve.protocols.compatible import compatible_codecs
from skipserve.protocols.content_coding import unpacked
from skipserve.protocols.json_types import Columns
from skipserve.protocols.messages import (
    Codec,
    ParsedRequest,
    RawRequest,
    Reply,
    Tensors,
    Values,
    most_bytes,
)
from skipserve.protocols.native import NativeProtocol
from skipserve.protocols.oip import OpenInference, is_oip_request
from skipserve.protocols.request_id import HEADER as REQUEST_ID
from skipserve.protocols.text_bound import check_together
from skipserve.protocols.v1 import V1Protocol, is_v1_request
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import Rows
from skipserve.service.by_slice import BySlice
from skipserve.service.runs import Job
from skipserve.slices import HEADER as SLICE
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


class _DecodedRequest(msgspec.Struct, frozen=True):
    request: RawRequest
    place: int
    parsed: ParsedRequest
    of_slice: str
    setting: Setting
    refuse: Callable[[InputError], Reply]


class AcceptedRequest(Job, frozen=True):
    """A request that can be answered.

    Attributes:
        place: Its place in the batch.
        admission: When it was taken in.
        epoch: Of the evidence that its rows give.
        encode: Makes its reply.
        refuse: Makes one that says what is wrong.
        of_slice: Of the traffic; "" where that is one whole.
    """

    place: int
    admission: Admission
    epoch: int
    encode: Callable[[Answer], Reply]
    refuse: Callable[[InputError], Reply]
    of_slice: str = ""


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
        self._by_name: dict[str, Codec] = {
            "native": self._native,
            "oip": self._oip,
            "v1": self._v1,
            **compatible_codecs(manifest, serving.max_rows),
        }
        self._takes_texts = manifest.text is not None
        self._most_bytes = most_bytes(serving.max_rows, manifest.signature, manifest.preprocessing)

    def read(
        self, requests: Sequence[RawRequest], first: int, admission: Admission, in_force: BySlice
    ) -> tuple[list[AcceptedRequest], list[tuple[int, Reply]]]:
        """Read requests: those that can be answered, and replies to the others with their places.

        Args:
            requests: As they arrived.
            first: Place of the first request in the batch.
            admission: When they were taken in.
            in_force: What requests get that leave the router on, by slice.
        """
        decoded: list[_DecodedRequest] = []
        refused: list[tuple[int, Reply]] = []
        for place, request in enumerate(requests, first):
            one = self._decode(request, place, in_force)
            if isinstance(one, _DecodedRequest):
                decoded.append(one)
            else:
                refused.append((place, one))
        good = []
        for one, rows in zip(decoded, self._checked(decoded), strict=True):
            if isinstance(rows, Rows):
                here = in_force.of(one.of_slice)
                good.append(
                    AcceptedRequest(
                        *(rows, one.setting, one.request, here.draw(one.setting, len(rows))),
                        place=one.place,
                        admission=admission,
                        epoch=here.control.epoch,
                        encode=one.parsed.encode,
                        refuse=one.refuse,
                        of_slice=one.of_slice,
                    )
                )
            else:
                refused.append((one.place, named(one.refuse(rows), one.request)))
        return good, refused

    def _decode(
        self, request: RawRequest, place: int, in_force: BySlice
    ) -> _DecodedRequest | Reply:
        protocol = self._by_name.get(request.protocol, self._native)
        try:
            plain = unpacked(request, self._most_bytes)
            protocol = self._codec_of(plain)
            if request.explain:
                raise InputError(
                    "no_explanations", "no model here has explanations; ask for predictions"
                )
            parsed = protocol.decode(plain)
            if self._takes_texts and isinstance(parsed.rows, Values):
                check_together(parsed.rows.values)
            if parsed.tokenize is not None:
                return named(self._tokens(parsed, parsed.tokenize), request)
            of_slice = self._slice_of(parsed, plain)
            setting = in_force.of(of_slice).resolve(parsed.router)
        except InputError as error:
            return named(protocol.refuse(error), request)
        except Exception:
            logger.exception("a request could not be decoded", extra=fields(request_id=request.id))
            return named(protocol.refuse(INTERNAL), request)
        return _DecodedRequest(request, place, parsed, of_slice, setting, protocol.refuse)

    def _slice_of(self, parsed: ParsedRequest, request: RawRequest) -> str:
        slices = self._engine.manifest.slices
        if not slices.values:
            return ""
        # A body that says it counts for more: the header is for those that have no place for it.
        said = parsed.of_slice if parsed.of_slice is not None else request.headers.get(SLICE)
        return slices.name_of(said)

    def _checked(self, decoded: Sequence[_DecodedRequest]) -> list[Rows | InputError]:
        """The rows of each, or what is wrong with them: all at once, if nothing is."""
        values = [one for one in decoded if isinstance(one.parsed.rows, Values)]
        if values:
            ready = iter(self._prepared(values))
            return [
                next(ready) if isinstance(one.parsed.rows, Values) else self._check(one)
                for one in decoded
            ]
        columns = [one.parsed.rows for one in decoded if isinstance(one.parsed.rows, Columns)]
        if len(columns) < len(decoded) or len(decoded) < 2 or not all(one.even for one in columns):
            return [self._check(one) for one in decoded]
        with suppress(Exception):  # whose fault it is comes out one by one
            whole = self._rows(Columns.together(columns))
            return _apart(whole, [one.rows for one in columns])
        return [self._check(one) for one in decoded]

    def _prepared(self, decoded: Sequence[_DecodedRequest]) -> list[Rows | InputError]:
        """The tensors that become of values: of all requests at once, if nothing is wrong."""
        if len(decoded) > 1:
            parsed = (one.parsed.rows for one in decoded)
            some = [rows.values for rows in parsed if isinstance(rows, Values)]
            with suppress(Exception):  # whose fault it is comes out one by one
                whole = self._rows(Values([value for values in some for value in values]))
                return _apart(whole, [len(values) for values in some])
        return [self._check(one) for one in decoded]

    def _check(self, one: _DecodedRequest) -> Rows | InputError:
        """The rows of a request, or what is wrong: no request may take its neighbours with it."""
        try:
            return self._rows(one.parsed.rows)
        except InputError as error:
            return error
        except Exception:  # libraries decode what strangers send; memory may run out
            logger.exception("rows could not be made", extra=fields(request_id=one.request.id))
            return INTERNAL

    def _rows(self, rows: Tensors | Values) -> Rows:
        if isinstance(rows, Values):
            return self._engine.prepare(rows.values)
        return self._engine.check(rows)

    def _tokens(self, parsed: ParsedRequest, special: bool) -> Reply:
        assert isinstance(parsed.rows, Values)
        tokens = self._engine.tokens(parsed.rows.values, special)
        return Reply(msgspec.json.encode(tokens))

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return named(self._codec_of(request).refuse(error), request)

    def _codec_of(self, request: RawRequest) -> Codec:
        if request.protocol:
            return self._by_name[request.protocol]
        if is_oip_request(request):
            return self._oip
        return self._v1 if is_v1_request(request) else self._native


def _apart(rows: Rows, counts: Sequence[int]) -> list[Rows | InputError]:
    """The rows of each of several requests."""
    return [rows[slice(*places)] for places in pairwise(accumulate(counts, initial=0))]


def named(reply: Reply, request: RawRequest) -> Reply:
    """The reply with the request's name in its headers, if it has one."""
    if request.id:
        reply.headers[REQUEST_ID] = request.id
    return reply
