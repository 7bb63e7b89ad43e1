"""Rows of different shapes: padded with a mask, run apart without; answers as if alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import texts
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from small_project import REORDERED

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.engine import Engine
from skipserve.runtime.flights import Flights
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits, RowResults
from skipserve.service.service import Service

RISK = 0.2
SERVING = ServingConfig(risk=RISK, evidence=1.0)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="session", params=["masked", "bare"])
def engine(request: pytest.FixtureRequest, texts_root: Path) -> Engine:
    """A network of texts, with a mask and without."""
    return skipserve.open(texts.build(texts_root, request.param), provider="cpu")


@pytest.fixture(scope="session")
def service(engine: Engine) -> Service:
    return Service(engine, SERVING)


def asked(engine: Engine, count: int, length: int, seed: int, router: object = None) -> RawRequest:
    rows = texts.texts(count, length, seed)
    inputs: Any = {spec.name: rows[spec.name].tolist() for spec in engine.manifest.signature.inputs}
    body = {"inputs": inputs, "parameters": {"router": router}}
    return RawRequest(json.dumps(body).encode(), JSON)


def assert_alike(reply: Reply, alone: Reply) -> None:
    assert reply.status == alone.status
    got, expected = json.loads(reply.body), json.loads(alone.body)
    if reply.status != 200:
        assert got == expected
        return
    for one, other in zip(got.pop("outputs"), expected.pop("outputs"), strict=True):
        assert one.pop("probabilities") == pytest.approx(other.pop("probabilities"), abs=REORDERED)
        assert one == other
    assert got == expected


requests = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([1, 2, 5, 8, 13]),
        st.integers(0, 9),
        st.sampled_from([None, "on", "off"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=requests)
def test_texts_of_any_length_are_answered_as_if_alone(
    engine: Engine, service: Service, batch: list[tuple[int, int, int, object]]
) -> None:
    made = [asked(engine, *one) for one in batch]
    bad = RawRequest(b'{"inputs": 3}', JSON)
    replies = service.answer([*made, bad])
    for request, reply in zip([*made, bad], replies, strict=True):
        assert_alike(reply, service.answer([request])[0])


def test_labels_are_told_by_name_and_rows_leave_at_any_depth(engine: Engine) -> None:
    service = Service(engine, ServingConfig(risk=RISK, evidence=0))
    outputs = json.loads(service.answer([asked(engine, 60, 8, 3)])[0].body)["outputs"]
    assert all(one["name"] == texts.CLASSES[one["label"]] for one in outputs)
    assert len({one["depth_run"] for one in outputs}) > 1


def sample(name: str, engine: Engine, **labels: str) -> float:
    labels = {"model": engine.manifest.name, **labels}
    return REGISTRY.get_sample_value(f"skipserve_{name}", labels) or 0.0


def test_runs_are_one_with_a_mask_and_one_a_length_without_and_each_row_is_counted_once(
    engine: Engine, service: Service
) -> None:
    def now() -> tuple[float, ...]:
        return (
            sample("batch_rows_count", engine),
            sample("batch_rows_sum", engine),
            sample("rows_total", engine, router="on"),
            sample("evidence_rows_total", engine, slice="", risk=str(RISK)),
            sample("phase_duration_seconds_count", engine, phase="inference"),
            sum(
                sample("request_duration_seconds_count", engine, depth=depth)
                for depth in ("full", "skipped")
            ),
        )

    before = now()
    service.answer([asked(engine, 2, 4, 0), asked(engine, 3, 7, 1), asked(engine, 1, 4, 2)])
    runs = 1 if engine.manifest.signature.mask else 2
    rise = tuple(after - earlier for after, earlier in zip(now(), before, strict=True))
    assert rise == (runs, 6, 6, 6, 1, 3)


class TooLong(Engine):
    """A network that breaks at more than ten tokens, as one of fixed positions does."""

    def run_once(self, rows: Rows, limits: Limits | None) -> RowResults:
        if rows.shapes[0][0] > 10:
            raise RuntimeError("position 10 is out of bounds")
        return super().run_once(rows, limits)

    def flights(self, most: int) -> Flights:
        return Flights(self.run_once, None, most)


def test_a_text_that_the_network_cannot_run_harms_no_neighbour(
    engine: Engine, texts_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from skipserve.artifacts.artifact import open_artifact

    artifact = open_artifact(texts_root / "artifacts" / engine.manifest.name)
    service = Service(TooLong(artifact, provider="cpu"), SERVING)
    batch: Sequence[RawRequest] = [asked(engine, 2, 4, 0), asked(engine, 1, 11, 1)]
    batch = [*batch, asked(engine, 1, 6, 2)]
    replies = service.answer(batch)
    assert [reply.status for reply in replies] == [200, 500, 200]
    assert "position 10 is out of bounds" in caplog.text
    for request, reply in zip(batch, replies, strict=True):
        assert_alike(reply, service.answer([request])[0])


def test_a_token_that_the_network_does_not_know_harms_no_neighbour_of_its_shape(
    engine: Engine, service: Service
) -> None:
    beyond = {"input_ids": [[texts.TOKENS] * 4], "attention_mask": [[1] * 4]}
    inputs = {spec.name: beyond[spec.name] for spec in engine.manifest.signature.inputs}
    poison = RawRequest(json.dumps({"inputs": inputs}).encode(), JSON)
    batch = [poison if seed in (2, 7) else asked(engine, 1, 4, seed) for seed in range(10)]
    statuses = [reply.status for reply in service.answer(batch)]
    assert statuses == [400 if one is poison else 200 for one in batch]


def test_padding_is_what_the_mask_says(texts_root: Path) -> None:
    """A row padded by the client is answered as the same row without padding."""
    engine = skipserve.open(texts.build(texts_root, "masked"), provider="cpu")
    rows = texts.texts(5, 4)
    padded = {name: np.pad(one, [(0, 0), (0, 3)]) for name, one in rows.items()}
    padded["input_ids"][:, 4:] = 7  # whatever stands there
    bare, full = engine.predict(rows), engine.predict(padded)
    np.testing.assert_allclose(bare.answers, full.answers, rtol=0, atol=REORDERED)
