"""Requests get the thresholds that are certified for their risk."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from certified import DEPTH, RISKS, native

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.certificates_file import write_certificates
from skipserve.artifacts.serving import ServingConfig
from skipserve.certification.certifying import certify_artifact
from skipserve.intervals import p_value
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Rung
from skipserve.service.service import Service
from skipserve.training.recipes import open_recipe


def test_the_certificates_are_those_of_the_file_that_ran(directory):
    artifact = open_artifact(directory)
    made = artifact.certificates
    of = {"disagreement": [], "accuracy_lost": []}
    for one in made.certificates:
        of[one.measure].append(one)
    assert all([one.risk for one in each] == list(RISKS) for each in of.values())
    assert not made.refusals
    for one in of["accuracy_lost"]:
        assert one.accuracy_lost < one.risk
        assert one.p_value <= 0.05
    for one in of["disagreement"]:
        assert one.files == artifact.hashes("onnx", "fp32")
        assert set(one.files) == {path.name for path in directory.glob("*.fp32.[ob][ni]*")}
        assert (one.precision, one.provider, one.confidence) == ("fp32", "cpu", 0.95)
        assert one.samples == 10_000
        assert one.p_value == p_value(one.disagreements, one.samples, one.risk) <= 0.05
        assert one.thresholds == made.candidates[one.candidate]
        assert one.guard_limit == artifact.manifest.router.guard_limit
        assert 1 / DEPTH <= one.run_rate < 1
        assert 0 < one.held_back < 0.05
    careful, bold = of["disagreement"]
    assert careful.candidate <= bold.candidate
    assert bold.run_rate <= careful.run_rate


def test_a_certified_risk_runs_fewer_blocks_and_disagrees_rarely(routed, moons):
    full, fast = routed.predict(moons), routed.predict(moons, risk=0.05)
    assert full.depth_run.tolist() == [DEPTH] * len(moons)
    assert not full.held_back.any()
    assert fast.depth_run.mean() < DEPTH
    assert fast.depth_run[fast.held_back].tolist() == [DEPTH] * fast.held_back.sum()
    assert (fast.labels != full.labels).mean() <= 0.1
    everything = fast.depth_run == DEPTH
    np.testing.assert_allclose(fast.answers[everything], full.answers[everything], atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "given"), [(0.02, 0.02), (0.03, 0.02), (0.05, 0.05), (0.9, 0.05)]
)
def test_the_boldest_certificate_within_the_risk_is_taken(routed, asked, given):
    setting = routed.setting(asked)
    assert (setting.risk, setting.reason) == (given, "")
    certificate = routed.certified()[given]
    expected = [np.inf if one is None else one for one in certificate.thresholds]
    np.testing.assert_array_equal(setting.thresholds, np.float32(expected))


def test_a_risk_below_all_certified_runs_at_full_depth(routed, moons, caplog):
    with caplog.at_level(logging.WARNING):
        answers = routed.predict(moons, risk=0.001)
    assert (answers.depth_run == DEPTH).all()
    assert "risk 0.001 is not certified, only 0.02, 0.05" in caplog.text
    assert routed.setting(0.001).risk is None


def test_accuracy_lost_is_a_risk_of_its_own(routed, copied, moons):
    setting = routed.setting(0.03, "accuracy_lost")
    assert (setting.risk, setting.measure, setting.reason) == (0.02, "accuracy_lost", "")
    test = open_recipe("two_moons").draw("test")
    full, fast = routed.predict(moons), routed.predict(moons, 0.05, "accuracy_lost")
    right = test.labels.numpy()
    assert (full.labels == right).mean() - (fast.labels == right).mean() <= 0.1
    candidates = open_artifact(copied).certificates.candidates
    write_certificates(copied, Certificates(candidates=candidates))
    certify_artifact(copied, moons, [0.1], 0.95, provider="cpu")  # without labels
    unlabelled = skipserve.open(copied, provider="cpu")
    assert unlabelled.setting(0.1).risk == 0.1
    refused = unlabelled.setting(0.1, "accuracy_lost")
    assert (refused.risk, refused.measure) == (None, "accuracy_lost")
    assert "no certificate of accuracy_lost" in refused.reason


ASKED = [
    ("off", None),
    ("on", 0.05),
    ({"risk": 0.05}, 0.05),
    ({"risk": 0.02}, 0.02),
    ({"risk": 0.001}, None),
    (None, 0.05),
]


def oip(rows, router=None) -> RawRequest:
    tensor = {"name": "inputs", "datatype": "FP32", "shape": list(rows.shape)}
    body: dict[str, object] = {"inputs": [{**tensor, "data": rows.ravel().tolist()}]}
    if router is not None:
        body["parameters"] = {"router": router}
    return RawRequest(json.dumps(body).encode(), {"content-type": "application/json"})


@pytest.fixture(scope="module")
def service(routed):
    return Service(routed, ServingConfig(max_rows=200, risk=0.05, evidence=0))


def test_each_request_of_a_batch_gets_its_own_setting(service, routed, moons):
    # Requests of unequal size, so that a row with its neighbour's thresholds would show.
    parts = np.split(moons, np.cumsum([90, 80, 120, 60, 100]))[: len(ASKED)]
    parts[-1] = parts[-1][:110]
    replies = service.answer([native(part, asked[0]) for part, asked in zip(parts, ASKED)])  # noqa: B905
    for part, (asked, risk), reply in zip(parts, ASKED, replies, strict=True):
        body = json.loads(reply.body)
        assert (reply.status, body["depth"]) == (200, DEPTH)
        expected = routed.predict(part, risk=risk)
        depth = [output["depth_run"] for output in body["outputs"]]
        assert depth == expected.depth_run.tolist()
        assert [output["label"] for output in body["outputs"]] == expected.labels.tolist()
        assert body["router"] == ("off" if risk is None else "on")
        if risk is None:
            assert set(depth) == {DEPTH}
            assert "risk" not in body
            assert all("held_back" not in output for output in body["outputs"])
        else:
            assert body["risk"] == risk
            held = [output["held_back"] for output in body["outputs"]]
            assert held == expected.held_back.tolist()
            assert min(depth) < DEPTH
        assert ("router_reason" in body) == (asked == {"risk": 0.001})
    assert "is not certified" in json.loads(replies[4].body)["router_reason"]


@pytest.mark.parametrize(
    ("asked", "risk"), [("off", None), ("on", 0.05), (0.02, 0.02), (0.001, None), (None, 0.05)]
)
def test_open_inference_asks_with_a_parameter(service, routed, moons, asked, risk):
    (reply,) = service.answer([oip(moons[:150], asked)])
    told = json.loads(reply.body)["parameters"]
    assert (told["router"], told.get("risk")) == ("off" if risk is None else "on", risk)
    assert ("router_reason" in told) == (asked == 0.001)
    outputs = {one["name"]: one["data"] for one in json.loads(reply.body)["outputs"]}
    expected = routed.predict(moons[:150], risk=risk)
    assert outputs["depth_run"] == expected.depth_run.tolist()
    assert outputs["held_back"] == expected.held_back.tolist()
    assert outputs["label"] == expected.labels.tolist()


def test_a_request_may_name_the_measure(service, moons):
    asked = {"risk": 0.05, "measure": "accuracy_lost"}
    wrong = {"risk": 0.05, "measure": "speed"}
    named, refused = service.answer([native(moons[:50], asked), native(moons[:50], wrong)])
    body = json.loads(named.body)
    assert (body["router"], body["risk"], body["measure"]) == ("on", 0.05, "accuracy_lost")
    assert refused.status == 400
    assert "accuracy_lost" in json.loads(refused.body)["error"]["message"]
    tensors = json.loads(oip(moons[:50], 0.05).body)
    replies = []
    for measure in ("accuracy_lost", "speed"):
        tensors["parameters"]["router_measure"] = measure
        replies += service.answer([RawRequest(json.dumps(tensors).encode(), {})])
    assert [reply.status for reply in replies] == [200, 400]
    outputs = {one["name"]: one["data"] for one in json.loads(replies[0].body)["outputs"]}
    assert outputs["depth_run"] == [output["depth_run"] for output in body["outputs"]]
    assert "expected disagreement or accuracy_lost" in json.loads(replies[1].body)["error"]


def test_a_wrong_risk_fails_alone(service, moons):
    few = moons[:2]
    replies = service.answer(
        [native(few, {"risk": 0}), native(few, "fast"), oip(few, 2), oip(few, True), native(few)]
    )
    assert [reply.status for reply in replies] == [400, 400, 400, 400, 200]
    codes = [json.loads(reply.body)["error"] for reply in replies[:4]]
    assert [codes[0]["code"], codes[1]["code"]] == ["invalid_risk", "invalid_parameter"]
    assert codes[2].startswith("[invalid_risk]")
    assert codes[3].startswith("[invalid_parameter]")


def test_without_a_risk_of_its_own_a_service_runs_at_full_depth(routed, moons):
    plain = Service(routed, ServingConfig(max_rows=200))
    default, on = plain.answer([native(moons[:50]), native(moons[:50], "on")])
    body = json.loads(default.body)
    assert {output["depth_run"] for output in body["outputs"]} == {DEPTH}
    assert (body["router"], "router_reason" in body) == ("off", False)
    # "on" means 1 %, which nobody certified here.
    body = json.loads(on.body)
    assert body["router"] == "off"
    assert "risk 0.01 is not certified" in body["router_reason"]


def test_a_service_that_cannot_keep_its_risk_says_so(directory, caplog):
    other = Engine(open_artifact(directory), backend="torchscript", provider="cpu")
    with caplog.at_level(logging.WARNING):
        Service(other, ServingConfig(max_rows=10, risk=0.05, evidence=0))
    assert "serves at full depth: no certificate" in caplog.text


def test_own_certificates_hold_beside_what_traffic_earns(routed):
    """Traffic earns one measure at the risks of the model; the others are as they were."""
    rung = Rung(routed.candidates[0], 1.0, 0)
    of_002 = [rung, None]
    for own in (False, True):
        assert routed.setting(0.03, in_force=of_002, own=own).risk == 0.02
        nothing = routed.setting(0.001, in_force=of_002, own=own)
        assert nothing.reason == "no certificate of risk 0.001 is earned yet"
    lost = routed.setting(0.03, "accuracy_lost", of_002, own=True)
    assert (lost.risk, lost.measure) == (0.02, "accuracy_lost")
    assert lost.candidate == routed.certified("accuracy_lost")[0.02].candidate
    refused = routed.setting(0.03, "accuracy_lost", of_002, own=False)
    assert (refused.risk, refused.reason) == (None, "accuracy_lost is certified offline only")


def test_so_do_those_of_risks_that_are_none_of_the_models(copied, moons):
    certify_artifact(copied, moons, [0.1], provider="cpu")
    engine = skipserve.open(copied, provider="cpu")
    rung = Rung(engine.candidates[0], 1.0, 0)
    asked = [(0.05, 0.02), (0.1, 0.1), (0.2, 0.1)]
    for risk, given in asked:
        assert engine.setting(risk, in_force=[rung, None], own=True).risk == given
        assert engine.setting(risk, in_force=[rung, None], own=False).risk == 0.02
    own = engine.setting(0.1, in_force=[rung, None], own=True)
    assert own.candidate == engine.certified()[0.1].candidate
