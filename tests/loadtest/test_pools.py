"""Known answers for a load test: networks of recipes and brought networks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import texts
from prometheus_client import REGISTRY, generate_latest

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ConfigError
from skipserve.loadtest.answers import check
from skipserve.loadtest.payloads import Choice, body
from skipserve.loadtest.plan import Plan
from skipserve.loadtest.pools import make_subject
from skipserve.loadtest.session import check_disagreement
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.target import Running, Target
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service

CHOICES = [Choice("masked"), Choice("masked", "off", rows=4)]


@contextmanager
def served(service: Service) -> Iterator[Target]:
    """A service behind a plain server, its metrics on the same port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            (reply,) = service.answer([RawRequest(content, {})])
            self.give(reply.status, bytes(reply.body))

        def do_GET(self) -> None:
            self.give(200, BUILD_INFO + generate_latest(REGISTRY))

        def give(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            yield Target(root, f"{root}/metrics")
        finally:
            server.shutdown()
            thread.join()


# What the launcher adds to the workers' metrics.
BUILD_INFO = b'skipserve_build_info{version="test"} 1\n'


@pytest.fixture(scope="module")
def masked(texts_root: Path) -> Path:
    return texts.build(texts_root, "masked")


@pytest.fixture(scope="module")
def engine(masked: Path) -> Engine:
    return skipserve.open(masked, provider="cpu")


@pytest.fixture(scope="module")
def service(engine: Engine) -> Service:
    return Service(engine, ServingConfig(risk=0.2, evidence=0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.npz"
    np.savez(file, **texts.texts(40, 5, seed=7))
    return file


def test_rows_that_are_brought_have_the_answers_of_the_artifact(
    masked: Path, engine: Engine, service: Service, data: Path
) -> None:
    with served(service) as target:
        subject = make_subject(target, masked, CHOICES, data=data)
    pool = subject.pool
    assert len(pool.rows) > 30
    sent = {name: [json.loads(row[i]) for row in pool.rows] for i, name in enumerate(pool.inputs)}
    assert sent.keys() == {"input_ids", "attention_mask"}
    assert pool.full == engine.predict(sent).labels.tolist()
    assert pool.routed["default"] == engine.predict(sent, risk=0.2).labels.tolist()
    assert subject.files == engine.files
    for choice in CHOICES:  # what is asked is answered, and found to be right
        request = RawRequest(body(pool, choice, 38).encode(), {})
        (reply,) = service.answer([request])
        assert check(pool, choice, 38, bytes(reply.body)).failure == ""


def test_without_rows_those_of_the_manifest_are_sent(
    masked: Path, engine: Engine, service: Service
) -> None:
    manifest = engine.manifest
    assert manifest.recipe is None and manifest.depths is not None
    with served(service) as target:
        pool = make_subject(target, masked, CHOICES).pool
    rows = (manifest.example.inputs, manifest.depths.shallow, manifest.depths.deep)
    known = [{name: list(values) for name, values in row.items()} for row in rows]
    for row in pool.rows:
        assert dict(zip(pool.inputs, map(json.loads, row), strict=True)) in known
    assert pool.rows


def test_rows_of_another_model_are_refused(masked: Path, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, ids=np.ones((3, 4), int))
    with served(service) as target, pytest.raises(ConfigError, match="no column 'input_ids'"):
        make_subject(target, masked, CHOICES, data=file)


def test_a_rate_of_rows_is_not_compared_with_a_risk_of_queries(
    masked: Path, service: Service
) -> None:
    with served(service) as target:
        subject = make_subject(target, masked, CHOICES)
    plan, asked = Plan(CHOICES, 1.0, 9.0), Objective(disagreement=0.01)
    assert subject.unit == "rows"
    check_disagreement(plan, asked, [subject])
    queries = replace(subject, unit="queries")
    check_disagreement(plan, Objective(errors=0.0), [queries])
    with pytest.raises(ConfigError, match=r"masked counts queries \(task.top\)") as refused:
        check_disagreement(plan, asked, [queries])
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_model_of_pictures_is_sent_tensors_and_answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import picturing

    artifact = picturing.build(tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("seen"))
    seeing = skipserve.open(artifact.directory, provider="cpu")
    name = seeing.manifest.name
    service = Service(seeing, ServingConfig(risk=0.2, evidence=0))
    choices = [Choice(name), Choice(name, "off", rows=2)]
    with served(service) as target:
        pool = make_subject(target, artifact.directory, choices).pool
    assert pool.inputs == ("pixel_values",)
    assert pool.rows
    for choice in choices:
        (reply,) = service.answer([RawRequest(body(pool, choice, 0).encode(), {})])
        assert check(pool, choice, 0, bytes(reply.body)).failure == ""


def test_metrics_of_another_service_are_one_line(
    masked: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"small": Running("onnxruntime", "cpu", "fp32", "abc")}
    with served(service) as target:
        monkeypatch.setattr(target, "models", lambda: other)
        with pytest.raises(ConfigError, match=r"do not know it.*--metrics-port") as refused:
            make_subject(target, masked, CHOICES)
    assert "\n" not in str(refused.value)
