"""Requests of the compatible endpoints, answered in this process by models of texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct
from text_models import SENT

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.answers import answer_of
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.rerank import Ranking
from skipserve.protocols.tei import Rerank
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction
from skipserve.safety.switch import ControlState, Switch
from skipserve.service.service import Service
from skipserve.slices import Slices
from skipserve.tasks import Score, Units


@pytest.mark.parametrize(("risk", "told"), [(0.2, "0.2"), (None, None)])
def test_a_reply_names_its_risk_unless_it_ran_at_full_depth(
    engines: dict[str, Engine], risk: float | None, told: str | None
) -> None:
    engine, body = engines["vectors"], json.dumps({"inputs": SENT}).encode()
    service = Service(engine, ServingConfig(risk=risk, evidence=0, metrics=False))
    (reply,) = service.answer([RawRequest(body, {}, protocol="tei.embed")])
    depth = engine.predict(SENT, risk=risk).depth_run.tolist()
    assert reply.headers.get("x-skipserve-risk") == told
    assert reply.headers["x-skipserve-depth"] == ",".join(map(str, depth))


@pytest.mark.parametrize(
    ("codec", "documents", "found"),
    [(Rerank, "texts", None), (Ranking, "documents", "results")],
)
def test_scores_of_any_size_are_ranked_as_certificates_rank_them(
    engines: dict[str, Engine], codec: type[Rerank | Ranking], documents: str, found: str | None
) -> None:
    scores = np.array([30, 60, 50, -60, -30, 0, 50], np.float32)[:, None]
    engine = engines["pairs"]
    names = [f"film {i}" for i in range(len(scores))]
    body = json.dumps({"query": "great", documents: names}).encode()
    asked = codec(engine.manifest, 8).decode(RawRequest(body, {}))
    rows = engine.inputs.prepare([["great", one] for one in names])
    depth = np.full(len(scores), engine.manifest.depth)
    ran = Prediction(None, scores, depth, np.zeros(len(scores), bool))
    answer = replace_struct(answer_of(ran, engine.off, engine.manifest.task), rows=rows)
    reply = json.loads(asked.encode(answer).body)
    told = reply if found is None else reply[found]
    assert [one["index"] for one in told] == [1, 2, 6, 0, 5, 4, 3]
    shown = [one.get("score", one.get("relevance_score")) for one in told]
    assert shown[-2:] == pytest.approx([np.exp(-30), np.exp(-60)], rel=1e-9)
    # A reply whose first documents are those of full depth is one that a certificate calls so.
    for top in range(1, len(scores)):
        place = np.empty_like(scores)
        place[[one["index"] for one in told], 0] = -np.arange(len(scores))
        units = Units(Score(tolerance=1, top=top), len(scores), np.zeros(len(scores), np.uint64))
        assert not units.differ(place, scores).any()


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("tei.embed", {"inputs": SENT}),
        ("openai.embeddings", {"model": "vectors", "input": SENT}),
        ("vllm.pooling", {"model": "vectors", "input": SENT}),
    ],
)
def test_a_header_says_which_slice_a_body_is_of(
    artifacts: dict[str, Artifact], tmp_path: Path, protocol: str, body: dict[str, Any]
) -> None:
    artifact = artifacts["vectors"]
    assert artifact.manifest.router is not None
    slices = Slices(parameter="tenant", values=("acme",))
    asked = {"slices": slices, "certificate": "earned", "risks": (0.2,)}
    router = artifact.manifest.router.model_copy(update=asked)
    manifest = artifact.manifest.model_copy(update={"router": router})
    engine = Engine(replace(artifact, manifest=manifest), provider="cpu")
    switch = Switch(tmp_path / "vectors")
    switch.keep(slices.names)
    switch.write(ControlState(epoch=1, in_force=(0,)), "acme")
    service = Service(engine, ServingConfig(risk=0.2, evidence=1e-9), switch=switch)
    sent = json.dumps(body).encode()
    replies = service.answer(
        [
            RawRequest(sent, headers, protocol=protocol)
            for headers in ({}, {"x-skipserve-slice": "acme"}, {"x-skipserve-slice": "x" * 65})
        ]
    )
    assert [reply.status for reply in replies] == [200, 200, 400]
    risks = [reply.headers.get("x-skipserve-risk") for reply in replies]
    assert risks == [None, "0.2", None]
    assert b"tenant has 65 characters" in replies[2].body
    switch.close()
