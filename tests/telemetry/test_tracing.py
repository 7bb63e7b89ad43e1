"""Spans as a collector receives them, over OTLP/HTTP."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from collecting import Collector

from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import LaunchError
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.telemetry.journal import Journal
from skipserve.telemetry.tracing import ENDPOINTS, asked_for, open_tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVING = ServingConfig(max_rows=8)
JSON = {"content-type": "application/json"}
GOOD = b'{"inputs": [[0.5, -0.25], [1, 2]]}'


@pytest.fixture
def traced(engine: Engine, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    return Service(engine, SERVING, journal=Journal("small", tracing=open_tracing()))


def request(body: bytes, name: str, flags: str | None = "01") -> RawRequest:
    parent = {} if flags is None else {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
    return RawRequest(body, JSON | parent, name)


def test_a_requests_phases_stand_under_its_callers_span(traced, collector):
    before = time.time_ns()
    traced.answer([request(GOOD, "seven")])
    spans = {span.name: span for span in collector.wait_for(4)}
    whole = spans.pop("predict small")
    assert set(spans) == {"decode", "inference", "encode"}
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    assert collector.attributes(whole) == {
        "skipserve.model": "small",
        "skipserve.request_id": "seven",
        "skipserve.rows": 2,
        "skipserve.depth_run": 4.0,
        "http.response.status_code": 200,
    }
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (whole.trace_id, whole.span_id)
    ends = [spans[name].end_time_unix_nano for name in ("decode", "inference", "encode")]
    starts = [spans[name].start_time_unix_nano for name in ("decode", "inference", "encode")]
    assert starts == [whole.start_time_unix_nano, *ends[:2]]
    assert ends[2] == whole.end_time_unix_nano
    slack = 1_000_000  # two clocks
    assert before - slack <= starts[0] < ends[2] <= time.time_ns() + slack
    assert collector.services == {"skipserve"}


def test_a_refused_request_has_no_inference_and_says_why(traced, collector):
    traced.answer([request(b'{"inputs": [[0.5]]}', "bad", None)])
    spans = {span.name: span for span in collector.wait_for(3)}
    assert set(spans) == {"predict small", "decode", "encode"}
    assert not spans["predict small"].parent_span_id
    attributes = collector.attributes(spans["predict small"])
    assert attributes["error.type"] == "wrong_shape"
    assert attributes["http.response.status_code"] == 400


def test_a_caller_that_does_not_sample_gets_no_spans(traced, collector):
    traced.answer([request(GOOD, "not sampled", "00"), request(GOOD, "sampled", "01")])
    spans = collector.wait_for(4)
    names = {collector.attributes(span).get("skipserve.request_id") for span in spans}
    assert names == {"sampled", None}


def test_off_is_free():
    # In a fresh interpreter without the variables: not even imported.
    code = (
        "import sys; from skipserve.telemetry.tracing import open_tracing; "
        "sys.exit(open_tracing().on or any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PATH": ""}).returncode == 0


def test_asked_for_and_not_installed_is_an_error(monkeypatch):
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(LaunchError, match=r"pip install 'skipserve\[otel\]'"):
        asked_for()


def test_a_protocol_it_does_not_speak_is_an_error(monkeypatch):
    monkeypatch.setenv(ENDPOINTS[1], "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(LaunchError, match="speaks http/protobuf"):
        asked_for()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not asked_for()
