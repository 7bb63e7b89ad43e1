"""Slices of traffic: each row runs by what its own slice has earned, and gives evidence there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kept_evidence import Kept

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import ConfigError
from skipserve.protocols.messages import RawRequest
from skipserve.protocols.native_schemas import native, v1
from skipserve.protocols.oip_schemas import oip as oip_schema
from skipserve.routing.config import RouterConfig
from skipserve.runtime.engine import Engine
from skipserve.safety.switch import ControlState, Switch
from skipserve.schema import parse
from skipserve.service.service import Service
from skipserve.slices import MOST, Slices
from skipserve.training.recipes import open_recipe

RISK = 0.05
TENANTS = Slices(parameter="tenant", values=("acme", "globex"))


@pytest.fixture(scope="module")
def engine(routed_project):
    artifact = open_artifact(routed_project[0] / "artifacts" / "small")
    router = artifact.manifest.router.model_copy(
        update={"certificate": "earned", "slices": TENANTS}
    )
    manifest = artifact.manifest.model_copy(update={"router": router})
    return Engine(replace(artifact, manifest=manifest), provider="cpu")


@pytest.fixture(scope="module")
def row():
    return open_recipe("two_moons").draw("certify").inputs.numpy()[:1].tolist()


def in_force(engine, risk=RISK):
    place = len(engine.candidates) - 1
    return tuple(place if one == risk else None for one in engine.manifest.router.risks)


def asking(row, tenant=None, **headers):
    parameters = {} if tenant is None else {"parameters": {"tenant": tenant}}
    return RawRequest(json.dumps({"inputs": row, **parameters}).encode(), headers)


def by_row(row, tenant):
    body = {"instances": row, "parameters": {"tenant": tenant}}
    return RawRequest(json.dumps(body).encode(), {}, protocol="v1")


def tensors(engine, row, parameters):
    (spec,) = engine.manifest.signature.inputs
    tensor = {"name": spec.name, "datatype": "FP32", "shape": [1, 2], "data": row}
    body = {"inputs": [tensor], "parameters": parameters}
    return RawRequest(json.dumps(body).encode(), {})


@pytest.fixture
def switch(tmp_path):
    switch = Switch(tmp_path / "small")
    switch.keep(TENANTS.names)
    yield switch
    switch.close()


def told(reply):
    return reply.headers.get("x-skipserve-risk")


def test_each_row_of_a_batch_runs_by_what_its_own_slice_has_earned(engine, row, switch):
    switch.write(ControlState(epoch=7, in_force=in_force(engine)), "acme")
    switch.write(ControlState(epoch=3, in_force=(None,) * len(in_force(engine))), "globex")
    kept = {name: Kept() for name in TENANTS.names}
    serving = ServingConfig(risk=RISK, evidence=1e-9)
    service = Service(engine, serving, switch=switch, counts=kept)
    replies = service.answer(
        [
            asking(row, "acme"),
            asking(row, "globex"),
            asking(row, "initech"),
            asking(row),
            by_row(row, "acme"),
            tensors(engine, row, {"tenant": "acme"}),
            asking(row, **{"x-skipserve-slice": "acme"}),
            asking(row, "globex", **{"x-skipserve-slice": "acme"}),
        ]
    )
    assert [reply.status for reply in replies] == [200] * 8
    risk = f"{RISK:g}"
    assert [told(one) for one in replies] == [risk, None, None, None, risk, risk, risk, None]
    # What has nothing in force gives evidence with every row, in its own epoch.
    assert {name: dict(one.rows) for name, one in kept.items()} == {
        "acme": {},
        "globex": {3: 2},
        "other": {0: 2},
    }


def test_an_artifacts_own_certificate_is_none_of_a_slice(engine, row):
    assert RISK in engine.certified()
    (reply,) = Service(engine, ServingConfig(risk=RISK)).answer([asking(row, "acme")])
    assert json.loads(reply.body)["router"] == "off"


@pytest.mark.parametrize("tenant", [7, True, ["acme"], "x" * 65])
def test_a_value_that_is_no_short_text_is_refused(engine, row, tenant):
    asked = [asking(row, tenant), by_row(row, tenant), tensors(engine, row, {"tenant": tenant})]
    for reply in Service(engine, ServingConfig(risk=RISK)).answer(asked):
        assert reply.status == 400 and b"tenant" in reply.body
        assert b"at most 64" in reply.body or b"expected a text" in reply.body


def test_undeclared_values_without_end_make_nothing_grow(engine, row, switch):
    kept = {name: Kept() for name in TENANTS.names}
    service = Service(engine, ServingConfig(risk=RISK), switch=switch, counts=kept)
    before = _series()
    for first in range(0, 10_000, 1000):
        replies = service.answer([asking(row, f"tenant{first + i}") for i in range(1000)])
        assert {reply.status for reply in replies} == {200}
    assert kept["other"].rows == {0: 10_000} and not kept["acme"].rows
    assert _series() == before
    assert set(switch.controls()) == set(TENANTS.names)


def _series():
    from prometheus_client import REGISTRY

    return {
        (sample.name, *sorted(sample.labels.items()))
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("model") == "small"
    }


@pytest.mark.parametrize(
    ("slices", "problem"),
    [
        (
            {"parameter": "tenant", "values": ["acme", 7]},
            "1 = 7: expected a text in quotes",
        ),
        ({"parameter": "tenant", "values": ["x" * 65]}, "at most 64 characters"),
        ({"parameter": "tenant", "values": ["a b"]}, "'a b': expected letters, digits and any of"),
        ({"parameter": "tenant", "values": ["acme", "acme"]}, "'acme' is declared twice"),
        ({"parameter": "tenant", "values": ["other"]}, "'other' is what all undeclared"),
        (
            {"parameter": "tenant", "values": [f"t{i}" for i in range(MOST + 1)]},
            "64 in the list",
        ),
        ({"parameter": "tenant"}, "belong together"),
        ({"values": ["acme"]}, "belong together"),
        ({"parameter": "router", "values": ["acme"]}, "says something else"),
        (
            {"parameter": "Tenant", "values": ["acme"]},
            "'Tenant': expected small letters",
        ),
    ],
)
def test_what_is_declared_wrongly_is_said_in_one_line(slices, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        parse(RouterConfig, {"certificate": "earned", "slices": slices}, "small.toml: router")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("certificate", ["offline", "both"])
def test_slices_are_earned_and_nothing_else(certificate):
    slices = {"parameter": "tenant", "values": ["acme"]}
    with pytest.raises(ConfigError, match="slices need certificate = 'earned'"):
        parse(RouterConfig, {"certificate": certificate, "slices": slices}, "small.toml: router")


def test_rows_of_slices_are_judged_apart(engine, switch):
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:200]
    rows = np.float32(rows / 2 + rows.mean(0) / 2)
    kept = {name: Kept() for name in TENANTS.names}
    service = Service(engine, ServingConfig(risk=RISK), switch=switch, counts=kept)
    names = ["acme", "globex", "nobody"]
    service.answer([asking(rows[i::3].tolist(), name) for i, name in enumerate(names)])
    for i, name in enumerate(("acme", "globex", "other")):
        checked = engine.check(rows[i::3])
        full = engine.run(checked).labels
        differ = [
            int((engine.run_thresholds(checked, one, engine.guard_limit).labels != full).sum())
            for one in engine.candidates
        ]
        assert kept[name].disagreements[0].tolist() == differ


def test_the_document_of_the_interface_names_the_parameter(engine):
    for spoken in (native, v1, oip_schema):
        ((_, schema), *_) = spoken(engine.manifest, 8).requests.items()
        assert '"tenant": {"anyOf": [{"type": "string", "maxLength": 64}' in json.dumps(schema)
