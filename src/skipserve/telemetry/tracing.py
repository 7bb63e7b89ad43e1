"""OpenTelemetry spans of requests: decode, inference and encode under one span per request.

On where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and the extra ``otel`` is installed; the SDK reads
all its other settings (sampler, service name, headers) from the environment as well. A client's
``traceparent`` (W3C Trace Context) is the parent. Spans are made after the reply is sent, from
times that were taken anyway.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from skipserve.errors import LaunchError
from skipserve.protocols.messages import RawRequest, Reply

if TYPE_CHECKING:
    from opentelemetry.context import Context

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")


@dataclass(frozen=True)
class Phases:
    """Times of a batch in seconds of ``perf_counter``."""

    start: float
    decoded: float
    inferred: float
    end: float


class Tracing(Protocol):
    """Receives spans."""

    on: bool

    def record(
        self,
        model: str,
        request: RawRequest,
        reply: Reply,
        rows: int,
        depth_run: float | None,
        phases: Phases,
    ) -> None:
        """Make the spans of one answered request."""
        ...


class _NoTracing:
    on = False

    def record(self, *_: object) -> None:
        """Nothing."""


NO_TRACING: Tracing = _NoTracing()


def asked_for() -> bool:
    """Whether the environment enables tracing.

    Raises:
        LaunchError: If it asks and they cannot be made.
    """
    asked = [name for name in ENDPOINTS if os.environ.get(name)]
    if not asked or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    try:
        import opentelemetry.sdk  # noqa: F401
    except ModuleNotFoundError:
        raise LaunchError(
            f"{asked[0]} is set, but OpenTelemetry is not installed; "
            "run `pip install 'skipserve[otel]'`, or unset it"
        ) from None
    for name in PROTOCOLS:
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            raise LaunchError(
                f"{name}={os.environ[name]}; skipserve speaks http/protobuf, on the "
                "collector's port 4318; unset it"
            )
    return True


def open_tracing() -> Tracing:
    """Tracing as configured in the environment.

    Raises:
        LaunchError: If it asks for what cannot be had.
    """
    return _OpenTelemetry() if asked_for() else NO_TRACING


class _OpenTelemetry:
    on = True

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "skipserve"}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer("skipserve")
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self,
        model: str,
        request: RawRequest,
        reply: Reply,
        rows: int,
        depth_run: float | None,
        phases: Phases,
    ) -> None:
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        # The wall clock may jump between requests, not within one.
        epoch = time.time() - time.perf_counter()

        def nanoseconds(moment: float) -> int:
            return int((epoch + moment) * 1e9)

        attributes: dict[str, str | int | float] = {
            "skipserve.model": model,
            "skipserve.request_id": request.id,
            "skipserve.rows": rows,
            "http.response.status_code": reply.status,
        }
        if depth_run is not None:
            attributes["skipserve.depth_run"] = depth_run
        if reply.status != 200:
            attributes["error.type"] = reply.reason or str(reply.status)
        span = self._tracer.start_span(
            f"predict {model}",
            context=self._propagator.extract(request.headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=nanoseconds(phases.start),
        )
        if span.is_recording():
            if reply.status >= 500:
                span.set_status(StatusCode.ERROR)
            inside: Context = set_span_in_context(span)
            steps = [("decode", phases.start, phases.decoded)]
            if rows:
                steps.append(("inference", phases.decoded, phases.inferred))
            steps.append(("encode", phases.inferred, phases.end))
            for name, start, end in steps:
                self._tracer.start_span(name, inside, start_time=nanoseconds(start)).end(
                    nanoseconds(end)
                )
        span.end(nanoseconds(phases.end))
