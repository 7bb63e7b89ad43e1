"""The service: every request of a batch gets the reply it would get alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import REGISTRY
from small_project import REORDERED

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.protocols.oip_replies import HEADER_LENGTH
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits, RowResults
from skipserve.service.service import Service

JSON = {"content-type": "application/json"}
MAX_ROWS = 8
SERVING = ServingConfig(max_rows=MAX_ROWS)


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, SERVING)


def native(rows: object) -> RawRequest:
    return RawRequest(json.dumps({"inputs": rows}).encode(), JSON)


def oip(rows: list[list[float]], **fields: object) -> RawRequest:
    shape = [len(rows), 2]
    tensor = {"name": "inputs", "datatype": "FP32", "shape": shape, "data": rows} | fields
    return RawRequest(json.dumps({"inputs": [tensor]}).encode(), JSON)


def binary(rows: list[list[float]]) -> RawRequest:
    chunk = np.float32(rows).tobytes()
    header = oip(rows, data=None, parameters={"binary_data_size": len(chunk)}).body
    return RawRequest(header + chunk, {HEADER_LENGTH: str(len(header))})


# name: request, status
REQUESTS: dict[str, tuple[RawRequest, int]] = {
    "native, one row": (native([[0.5, -0.25]]), 200),
    "native, three rows": (native([[1.5, 0.25], [0, 0], [-1, 1]]), 200),
    "JSON tensor, two rows": (oip([[2, -0.5], [0.1, 0.2]]), 200),
    "bytes, as many rows as allowed": (binary([[i / 4, -i / 8] for i in range(MAX_ROWS)]), 200),
    "native, a row too short": (native([[1, 2], [3]]), 400),
    "native, beyond float32": (native([[1e39, 1]]), 400),
    "native, too many rows": (native([[1, 2]] * (MAX_ROWS + 1)), 413),
    "a form": (RawRequest(None, {"content-type": "application/x-www-form-urlencoded"}), 415),
    "tensor of another shape": (oip([[1, 2]], shape=[1, 3]), 400),
    "bytes cut short": (RawRequest(binary([[1, 2]]).body[:-1], binary([[1, 2]]).headers), 400),
    "no JSON": (RawRequest(b"\xff", JSON), 400),
}
names = st.lists(st.sampled_from(list(REQUESTS)), max_size=16)


def assert_same(reply: Reply, other: Reply) -> None:
    """The same status and body; probabilities as far as the size of the batch lets them be."""
    assert (reply.status, reply.reason) == (other.status, other.reason)
    assert reply.headers.keys() == other.headers.keys()
    one, two = (_flatten(json.loads(r.body)) for r in (reply, other))
    assert one.keys() == two.keys()
    for path, value in one.items():
        expected = two[path]
        assert value == (pytest.approx(expected, abs=REORDERED) if "prob" in path else expected)


def _flatten(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        # A tensor's data goes by the tensor's name.
        path += str(value.get("name", ""))
        parts = [_flatten(inner, f"{path}.{key}") for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [_flatten(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    else:
        return {path: value}
    return {key: inner for part in parts for key, inner in part.items()}


@pytest.fixture(scope="module")
def alone(service: Service) -> dict[str, Reply]:
    """Every request's reply when it is the only one of its batch."""
    return {name: service.answer([request])[0] for name, (request, _) in REQUESTS.items()}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_alone(alone: dict[str, Reply], name: str) -> None:
    assert alone[name].status == REQUESTS[name][1]


@given(batch=names)
def test_every_request_of_a_batch_gets_what_it_gets_alone(
    service: Service, alone: dict[str, Reply], batch: list[str]
) -> None:
    replies = service.answer([REQUESTS[name][0] for name in batch])
    assert len(replies) == len(batch)
    for name, reply in zip(batch, replies, strict=True):
        assert_same(reply, alone[name])


def test_answers_are_the_engines(service: Service, engine: Engine) -> None:
    rows = [[1.5, 0.25], [0, 0], [-1, 1]]
    outputs = json.loads(service.answer([native(rows)])[0].body)["outputs"]
    expected = engine.predict(rows)
    assert [output["label"] for output in outputs] == expected.labels.tolist()
    probabilities = np.float32([output["probabilities"] for output in outputs])
    np.testing.assert_array_equal(probabilities, expected.answers)


@pytest.mark.parametrize(
    ("name", "shape"), [("native, one row", dict), ("JSON tensor, two rows", str)]
)
def test_explanations_are_refused_in_the_protocols_own_shape(
    service: Service, alone: dict[str, Reply], name: str, shape: type
) -> None:
    asked = replace(REQUESTS[name][0], explain=True)
    refused, answered = service.answer([asked, REQUESTS[name][0]])
    assert refused.status == 404
    error = json.loads(refused.body)["error"]
    assert isinstance(error, shape)
    assert "no_explanations" in str(error)
    assert "predictions" in str(error)
    assert_same(answered, alone[name])


def test_predictions_of_instances_are_the_engines(service: Service, engine: Engine) -> None:
    rows = [[1.5, 0.25], [0, 0]]
    body = json.dumps({"instances": rows}).encode()
    (reply,) = service.answer([RawRequest(body, JSON)])
    labels = [one["label"] for one in json.loads(reply.body)["predictions"]]
    assert labels == engine.predict(rows).labels.tolist()


@pytest.mark.parametrize("name", REQUESTS)
def test_phase_times_go_back_with_every_answer(alone: dict[str, Reply], name: str) -> None:
    timing = alone[name].headers.get("server-timing", "")
    found = re.fullmatch(r"decode;dur=\d+\.\d{3}, inference;dur=\d+\.\d{3}", timing)
    assert (found is not None) == (alone[name].status == 200)


@pytest.mark.parametrize("request_", [native([[3e38, -3e38]]), oip([[-3e38, 3e38]])])
def test_a_row_too_large_for_the_network_is_refused_and_its_neighbour_answered(
    service: Service, alone: dict[str, Reply], request_: RawRequest
) -> None:
    # Its activations overflow: a 200 would carry a label and probabilities that mean nothing.
    refused, answered = service.answer([request_, REQUESTS["native, one row"][0]])
    assert refused.status == 400
    assert "not_finite" in str(refused.body)
    assert_same(answered, alone["native, one row"])


@pytest.fixture(scope="module")
def torchscript(artifact: Artifact) -> Service:
    return Service(Engine(artifact, backend="torchscript", provider="cpu"), SERVING)


@pytest.mark.parametrize("name", [name for name, (_, status) in REQUESTS.items() if status == 200])
def test_torchscript_answers_every_protocol(
    torchscript: Service, alone: dict[str, Reply], name: str
) -> None:
    reply = torchscript.answer([REQUESTS[name][0]])[0]
    assert_same(reply, alone[name])


# --- failures inside ---


class OutOfMemory(Engine):
    """An engine that opens and then fails at every batch."""

    def run_once(self, rows: Rows, limits: Limits | None) -> RowResults:
        raise RuntimeError("bad allocation at 0xdead")


def test_a_failing_engine_is_a_500_for_those_who_did_nothing_wrong(
    artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(OutOfMemory(artifact, provider="cpu"), SERVING)
    replies = service.answer([request for request, _ in REQUESTS.values()])
    expected = [500 if status == 200 else status for _, status in REQUESTS.values()]
    assert [reply.status for reply in replies] == expected
    assert json.loads(replies[0].body)["error"]["code"] == "internal"
    assert b"0xdead" not in b"".join(bytes(reply.body) for reply in replies)
    assert "bad allocation at 0xdead" in caplog.text


# --- metrics ---


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"skipserve_{name}", {"model": "small", **labels}) or 0.0


COUNTED: dict[str, Callable[[], float]] = {
    "answered": lambda: sample("requests_total", code="200"),
    "bad": lambda: sample("requests_total", code="400"),
    "too large": lambda: sample("requests_total", code="413"),
    "latencies": lambda: sample("request_duration_seconds_count", depth="full"),
    "batches": lambda: sample("batch_rows_count"),
    "rows": lambda: sample("batch_rows_sum"),
    "decoded": lambda: sample("phase_duration_seconds_count", phase="decode"),
    "inferred": lambda: sample("phase_duration_seconds_count", phase="inference"),
    "encoded": lambda: sample("phase_duration_seconds_count", phase="encode"),
}


@pytest.mark.parametrize(
    ("batch", "counts"),
    [
        (
            ["native, one row", "native, three rows", "no JSON", "native, too many rows"],
            {"answered": 2, "bad": 1, "too large": 1, "latencies": 2}
            | {"batches": 1, "rows": 4, "decoded": 1, "inferred": 1, "encoded": 1},
        ),
        (["no JSON"], {"bad": 1, "decoded": 1, "encoded": 1}),
    ],
    ids=["mixed", "all bad"],
)
def test_a_batch_is_counted(service: Service, batch: list[str], counts: dict[str, int]) -> None:
    before = {name: count() for name, count in COUNTED.items()}
    service.answer([REQUESTS[name][0] for name in batch])
    rise = {name: count() - before[name] for name, count in COUNTED.items()}
    assert rise == dict.fromkeys(COUNTED, 0) | counts


class Later:
    """A worker that is idle when the test says so."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def when_idle(self, work: Callable[[], None]) -> None:
        self.work.append(work)


def test_counting_can_be_put_off_until_the_replies_are_sent(engine: Engine) -> None:
    later = Later()
    before = COUNTED["answered"]()
    replies = Service(engine, SERVING, later).answer([REQUESTS["native, one row"][0]])
    assert replies[0].status == 200
    assert COUNTED["answered"]() == before
    for work in later.work:
        work()
    assert COUNTED["answered"]() == before + 1


def test_a_wait_is_counted_though_nobody_could_be_answered(service: Service) -> None:
    """Who waited too long is not run, and how long the queue is shows all the same."""
    before = sample("queue_wait_seconds_count")
    service.waited([0.1, 60.0])
    assert sample("queue_wait_seconds_count") == before + 2


def test_the_metrics_say_what_really_runs(service: Service, engine: Engine) -> None:
    hash_ = engine.manifest.source.sha256[:12]
    runs = {"backend": "onnxruntime", "provider": "cpu", "precision": "fp32", "checkpoint": hash_}
    assert sample("model_info", task="classify", **runs) == 1
    assert REGISTRY.get_sample_value("skipserve_provider_fallback", {"model": "small"}) == 0
