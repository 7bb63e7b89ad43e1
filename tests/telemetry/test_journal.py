"""The journal: which requests get a line, and its fields."""

from __future__ import annotations

import json
import logging

import pytest

from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.request_id import request_id
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.telemetry.journal import REFUSALS_PER_S, Journal

SERVING = ServingConfig(max_rows=8)
JSON = {"content-type": "application/json"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = RawRequest(b'{"inputs": [[0.5, -0.25], [1, 2]]}', JSON, "good")
BAD = RawRequest(
    b'{"inputs": [[0.5]]}', JSON | {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, "bad"
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "skipserve")
    return lambda: [(r.levelname, r.getMessage(), r.fields) for r in caplog.records]


def test_by_default_only_what_was_refused_leaves_a_line(engine: Engine, lines):
    replies = Service(engine, SERVING).answer([GOOD, BAD])
    ((level, message, said),) = lines()
    assert level == "WARNING"
    assert message == "refused: " + replies[1].body.decode()
    assert said == {
        **{"request_id": "bad", "trace_id": TRACE, "model": "small"},
        **{"status": 400, "code": "wrong_shape"},
    }


def test_an_access_log_has_a_line_for_every_answer(engine: Engine, lines):
    service = Service(engine, SERVING, journal=Journal("small", access_log=1.0))
    service.answer([GOOD, BAD, GOOD])
    answered = [said for _, message, said in lines() if message == "answered"]
    assert [said["request_id"] for said in answered] == ["good", "good"]
    assert answered[0]["rows"] == 2
    assert answered[0]["batch_rows"] == 4
    assert answered[0]["depth_run"] == engine.manifest.depth
    assert 0 < answered[0]["inference_s"] < answered[0]["duration_s"]


def test_a_sampled_access_log_has_about_its_share(engine: Engine, lines):
    service = Service(engine, SERVING, journal=Journal("small", access_log=0.25))
    for _ in range(25):
        service.answer([GOOD] * 16)
    assert 50 < len(lines()) < 150  # 100 ± 8.7; six deviations are 52


def test_a_flood_of_refusals_is_counted_and_not_written(engine: Engine, lines, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    service = Service(engine, SERVING)
    service.answer([BAD] * (REFUSALS_PER_S + 5))
    assert len(lines()) == REFUSALS_PER_S
    now = 101.0
    service.answer([BAD])
    assert lines()[-1][2]["left_out_before"] == 5
    assert len(lines()) == REFUSALS_PER_S + 1


class Broken(Engine):
    def run_once(self, *_):
        raise RuntimeError("bad allocation")


def test_what_fails_inside_leaves_one_line_with_every_request_in_it(artifact, lines):
    replies = Service(Broken(artifact, provider="cpu"), SERVING).answer([GOOD, GOOD])
    assert [reply.status for reply in replies] == [500, 500]
    ((level, _, said),) = lines()
    assert (level, said) == ("ERROR", {"request_ids": ["good", "good"]})


def test_every_reply_carries_the_requests_name(engine: Engine):
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    oip = RawRequest(json.dumps({"inputs": [tensor]}).encode(), JSON, "oip")
    replies = Service(engine, SERVING).answer([GOOD, BAD, oip])
    assert [reply.headers["x-request-id"] for reply in replies] == ["good", "bad", "oip"]


@pytest.mark.parametrize("good", ["a", "b6c1-4f", "Root=1-67891233-abcdef012345678912345678"])
def test_a_clients_name_is_kept(good):
    assert request_id({"x-request-id": good}, "made") == good


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nx-evil: 1", "é", '"', "a" * 129, "a\n"])
def test_a_name_that_is_none_is_replaced(bad):
    assert request_id({"x-request-id": bad}, "made") == "made"
