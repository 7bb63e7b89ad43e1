"""Calibration in a build: what is certified, for which file, and what a build keeps."""

from __future__ import annotations

import json
import logging
import zipfile
from functools import cache, partial

import numpy as np
import pytest
from certified import DEPTH, RISKS, change, native
from small_project import build

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.certificates_file import CERTIFICATES, write_certificates
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.certification.certifying import certify_artifact
from skipserve.certification.trial import Trial
from skipserve.errors import ArtifactError
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.tasks import Units
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow


def test_a_build_calibrates_between_export_and_package(routed_project, project):
    assert routed_project[1] == ["train", "export", "calibrate", "package"]
    assert build(project) == []


def build_and_say(project):
    said: list[str] = []
    build_file = read_build_file(project / "export" / "small.toml")
    run_steps(build_file, lambda epoch: None, said.append)
    return [line.split()[1] for line in said if line.endswith("…")], "\n".join(said)


def edit(project, old, new):
    file = project / "export" / "small.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_certificates_are_made_with_the_batches_that_serve(project, copied):
    edit(project, "[serving]", "[serving]\nbatch_size = 200")
    assert build(project) == ["calibrate", "package"]
    made = open_artifact(copied).certificates.certificates
    assert {one.batch_size for one in made} == {200}


def test_the_file_of_the_backend_that_serves_is_certified(project, copied):
    edit(project, "[serving]", '[serving]\nbackend = "torchscript"')
    assert build(project) == ["calibrate", "package"]
    assert skipserve.open(copied, backend="torchscript", provider="cpu").setting(0.05).risk == 0.05
    assert not skipserve.open(copied, provider="cpu").certified()


@pytest.mark.parametrize("formats", ['["torchscript"]', '["onnx"]'])
def test_a_lone_format_is_certified_whatever_serves(project, copied, formats):
    edit(project, '["onnx", "torchscript"]', formats)
    build(project)
    backend = "torchscript" if "torchscript" in formats else "onnxruntime"
    assert set(skipserve.open(copied, backend=backend, provider="cpu").certified()) == set(RISKS)


def test_a_build_that_can_certify_nothing_says_so(project, copied):
    edit(project, '["fp32"]', '["fp16"]')
    steps, said = build_and_say(project)
    assert "calibrate" in steps
    assert "small: nothing is certified: FP16 is emulated on a CPU" in said
    made = open_artifact(copied).certificates
    assert made.candidates
    assert not made.certificates
    assert build(project) == []


def test_what_was_certified_later_outlives_a_build(project, copied):
    rows = open_recipe("two_moons").draw("certify").inputs[:2_000].numpy()
    own = open_artifact(copied).certificates
    certify_artifact(copied, rows, [0.05, 0.2], 0.95, backend="torchscript", provider="cpu")
    later = certify_artifact(copied, rows, [0.05], 0.95, provider="cpu")
    assert build(project) == ["package"]
    assert open_artifact(copied).certificates == later
    with zipfile.ZipFile(project / "model_store" / "small.mar") as archive:
        assert archive.read(CERTIFICATES) == (copied / CERTIFICATES).read_bytes()
    assert build(project) == []
    write_certificates(copied, Certificates(candidates=own.candidates))  # as if interrupted
    assert build(project)[0] == "calibrate"
    assert open_artifact(copied).certificates == own


def test_a_certificate_of_one_risk_leaves_those_of_others(copied):
    before = open_artifact(copied).certificates.certificates
    rows = open_recipe("two_moons").draw("certify").inputs[:3_000].numpy()
    made = certify_artifact(copied, rows, [0.03], provider="cpu")
    assert [one for one in made.certificates if one.risk != 0.03] == list(before)
    assert set(skipserve.open(copied, provider="cpu").certified()) == {*RISKS, 0.03}
    again = certify_artifact(copied, rows[:2_000], [0.02], provider="cpu")
    of = [(one.measure, one.risk, one.samples) for one in again.certificates]
    assert sorted(of) == [
        ("accuracy_lost", 0.02, 10_000),  # the new rows came without labels
        ("accuracy_lost", 0.05, 10_000),
        ("disagreement", 0.02, 2_000),
        ("disagreement", 0.03, 3_000),
        ("disagreement", 0.05, 10_000),
    ]


def test_two_that_certify_at_once_take_nothing_from_each_other(copied, moons):
    certify = partial(certify_artifact, copied, moons, provider="cpu")
    meanwhile = cache(lambda: certify([0.2]))
    made = certify([0.1, 0.1], on_progress=lambda doing, share: meanwhile())
    assert open_artifact(copied).certificates == made
    assert sorted({one.risk for one in made.certificates}) == [*RISKS, 0.1, 0.2]
    assert len(made.certificates) == 2 * len(RISKS) + 2


def test_candidates_that_were_proposed_meanwhile_are_not_those_that_were_tested(copied, moons):
    anew = Certificates(candidates=open_artifact(copied).certificates.candidates[1:])
    propose = cache(lambda: write_certificates(copied, anew))
    with pytest.raises(ArtifactError, match="proposed anew while the earlier ones were tested"):
        certify_artifact(
            copied, moons, [0.1], provider="cpu", on_progress=lambda doing, share: propose()
        )
    assert open_artifact(copied).certificates == anew


def test_a_refusal_takes_the_place_of_a_certificate_and_the_other_way_round(copied):
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    refused = certify_artifact(copied, rows[:20], [0.02], provider="cpu")
    assert [(one.measure, one.risk) for one in refused.refusals] == [("disagreement", 0.02)]
    assert set(skipserve.open(copied, provider="cpu").certified()) == {0.05}
    again = certify_artifact(copied, rows, [0.02], provider="cpu")
    assert not again.refusals
    assert set(skipserve.open(copied, provider="cpu").certified()) == set(RISKS)


@pytest.mark.parametrize("changed", [{"guard_limit": 2.0}, {"thresholds": [2.0, 2.0, 2.0]}])
def test_what_is_of_other_candidates_or_another_guard_does_not_stay(copied, moons, changed):
    change(copied / CERTIFICATES, **changed)
    made = certify_artifact(copied, moons, [0.1], provider="cpu")
    assert [one.risk for one in made.certificates] == [0.1]


def test_a_model_says_what_confidence_its_certificates_must_have(project, copied):
    edit(project, "[router]", "[router]\nconfidence = 0.9")
    build(project)
    artifact = open_artifact(copied)
    spec = artifact.manifest.router
    assert (spec.confidence, spec.risks) == (0.9, RISKS)
    assert {one.confidence for one in artifact.certificates.certificates} == {0.9}
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    made = certify_artifact(copied, rows[:3_000], provider="cpu")  # as the model has it
    mine = [one for one in made.certificates if one.samples == 3_000]
    assert [(one.risk, one.confidence) for one in mine] == [(risk, 0.9) for risk in RISKS]


def test_a_weaker_certificate_is_written_and_not_served(copied, moons, caplog):
    said: list[str] = []
    weak = certify_artifact(copied, moons[:5], [0.03], 0.01, provider="cpu", say=said.append)
    assert said[0] == (
        "note: small asks for certificates of 0.95; those made now, of 0.01, will not be served"
    )
    assert [one.confidence for one in weak.certificates if one.risk == 0.03] == [0.01]
    with caplog.at_level(logging.WARNING):
        engine = skipserve.open(copied, provider="cpu")
    assert "disagreement 0.03 is not used: its confidence is 0.01, the model asks for 0.95" in (
        caplog.text
    )
    assert engine.setting(0.03).risk == 0.02


def test_a_model_with_weak_certificates_alone_runs_at_full_depth_and_says_why(copied, moons):
    change(copied / CERTIFICATES, confidence=0.9499)
    engine = skipserve.open(copied, provider="cpu")
    assert not engine.certified()
    service = Service(engine, ServingConfig(max_rows=200, risk=0.05, evidence=0))
    for asked in (None, "on", {"risk": 0.05}):
        body = json.loads(service.answer([native(moons[:50], asked)])[0].body)
        assert {output["depth_run"] for output in body["outputs"]} == {DEPTH}
        assert body["router_reason"] == (
            "risk 0.05 is certified with a confidence of 0.9499, the model asks for 0.95; "
            "run `skipserve certify` where it serves"
        )


def test_a_weaker_certificate_takes_no_place_from_one_that_serves(copied, moons):
    certify_artifact(copied, moons, [0.05], 0.5, provider="cpu")
    setting = skipserve.open(copied, provider="cpu").setting(0.05)
    assert (setting.risk, setting.reason) == (0.05, "")


def test_other_risks_are_certified_without_training_again(project, copied):
    weights = project / "checkpoints" / "small" / "checkpoint.safetensors"
    before = weights.read_bytes()
    file = project / "export" / "small.toml"
    file.write_text(file.read_text().replace("[0.02, 0.05]", "[0.03]"))
    redone = build(project)
    assert "train" not in redone
    assert redone[-2:] == ["calibrate", "package"]
    assert weights.read_bytes() == before
    assert set(skipserve.open(copied, provider="cpu").certified()) == {0.03}
    assert build(project) == []


def test_lost_certificates_are_made_again(project, copied):
    before = (copied / CERTIFICATES).read_bytes()
    (copied / CERTIFICATES).unlink()
    assert build(project) == ["calibrate"]  # they came out the same: the archive holds them
    assert (copied / CERTIFICATES).read_bytes() == before


def test_the_signals_of_calibration_are_kept_in_tenths(directory):
    engine = skipserve.open(directory, provider="cpu")
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    for risk, certificate in engine.certified().items():
        signals = engine.predict(rows, risk).signals
        for column, deciles in zip(signals.T, certificate.deciles, strict=True):
            below = [(column < decile).sum() / (~np.isnan(column)).sum() for decile in deciles]
            assert below == pytest.approx(np.arange(1, 10) / 10, abs=0.01)


@pytest.mark.parametrize("tight", [False, True])
def test_what_is_read_once_tells_what_every_candidate_does(directory, moons, tight):
    engine = Engine.for_many(open_artifact(directory), provider="cpu")
    limit = engine.guard_limit
    if tight:  # a fifth of the rows would be held back, but for those that leave before
        distances = engine.read(engine.check(moons)).distances
        limit = float(np.quantile(distances.max(axis=1), 0.8))
    truth = engine.predict(moons).labels
    units = Units(engine.manifest.task, len(moons))
    trial = Trial(engine, engine.check(moons), truth, units, limit, 64, lambda line: None)
    assert trial.foresees
    outcomes = [(trial.foresee(one), trial.run(one)) for one in engine.candidates]
    assert all(foreseen.same(ran) for foreseen, ran in outcomes)
    assert len({ran.run_rate for _, ran in outcomes}) > 1
    if tight:
        assert all(0 < ran.held_back <= 0.2 for _, ran in outcomes)
    for foreseen, ran in zip(trial.deciles[::2], trial.deciles[1::2], strict=True):
        for one, other in zip(foreseen, ran, strict=True):
            assert (one is None) == (other is None)
            assert one is None or np.allclose(one, other)
