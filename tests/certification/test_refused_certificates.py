"""What cannot be certified, and certificates that do not hold, are refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from certified import DEPTH, RISKS, change

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.certification.certifying import certify_artifact
from skipserve.errors import ArtifactError, ConfigError, InputError
from skipserve.files import sha256_of
from skipserve.training.recipes import open_recipe


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        ([0, 1], r"labels must have shape \[600\], one for each row; got \[2\]"),
        ([0] * 599 + [2], "row 599 has class 2, small knows 0 … 1"),
        ([0.0] * 600, "must hold whole numbers, got float64"),
    ],
)
def test_labels_of_other_samples_are_refused(copied, moons, labels, wrong):
    with pytest.raises(ConfigError, match=wrong):
        certify_artifact(copied, moons, [0.1], 0.95, labels=np.array(labels), provider="cpu")


def test_rows_of_another_task_are_refused(copied, moons):
    with pytest.raises(ConfigError, match=r"guard holds back .* not like the rows its router"):
        certify_artifact(copied, moons * 40 + 100, [0.1], 0.95, provider="cpu")


@pytest.mark.parametrize("risk", [0, 1, 2, -0.1, float("nan")])
def test_a_risk_outside_0_to_1_is_refused(routed, moons, risk):
    with pytest.raises(InputError, match="between 0 and 1") as refused:
        routed.predict(moons, risk=risk)
    assert refused.value.code == "invalid_risk"


def test_another_file_has_no_certificate(directory, moons):
    other = skipserve.open(directory, backend="torchscript", provider="cpu")
    setting = other.setting(0.05)
    assert setting.risk is None
    assert "no certificate for these files in fp32 on cpu" in setting.reason
    assert (other.predict(moons, risk=0.05).depth_run == DEPTH).all()


def test_a_model_without_a_router_says_so(engine, rows):
    assert engine.setting(0.05).reason == "the model has no router"
    assert (engine.predict(rows, risk=0.05).depth_run == engine.manifest.depth).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"files": {}},
        {"precision": "fp16"},
        {"provider": "cuda"},
        {"thresholds": [0.5, 0.5]},
        {"thresholds": [0.5, 0.5, 0.5]},
        {"guard_limit": 2.0},
        {"guard_limit": None},
        {"candidate": 999},
    ],
)
def test_a_certificate_of_something_else_is_not_used(copied, moons, changed):
    change(copied / CERTIFICATES, **changed)
    changed_engine = skipserve.open(copied, provider="cpu")
    assert not changed_engine.certified()
    assert (changed_engine.predict(moons, risk=0.05).depth_run == DEPTH).all()


@pytest.mark.parametrize("change_row", [lambda row: row[:-1], lambda row: [*row, 1.0]])
def test_candidates_of_another_router_are_one_line(copied, change_row):
    file = copied / CERTIFICATES
    content = json.loads(file.read_text())
    content["candidates"][1] = change_row(content["candidates"][1])
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"candidate 2 has \d thresholds, the router takes 3"):
        open_artifact(copied)


def test_a_certificate_is_of_all_files_it_was_made_with(copied):
    """Another stage, or other weights, are another model, though the plain graph is the same."""
    file = copied / CERTIFICATES
    whole = json.loads(file.read_text())
    names = set(whole["certificates"][0]["files"])
    assert {"plain.fp32.onnx", "stage0.fp32.onnx", "routed.fp32.onnx", "weights.fp32.bin"} < names
    for name in names:
        changed = json.loads(json.dumps(whole))
        for one in changed["certificates"]:
            one["files"][name] = "0" * 64
        file.write_text(json.dumps(changed))
        assert not skipserve.open(copied, provider="cpu").certified(), name
    manifest = copied / "manifest.json"
    file.write_text(json.dumps(whole))
    (copied / "weights.fp32.bin").write_bytes((copied / "weights.fp32.bin").read_bytes() + b"\0")
    about = json.loads(manifest.read_text())
    for one in about["files"]:
        one["sha256"] = sha256_of(copied / one["path"])
    manifest.write_text(json.dumps(about))
    assert not skipserve.open(copied, provider="cpu").certified()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"certificates": [{}]}', '{"unknown": 1}'])
def test_damaged_certificates_are_an_error(copied, content):
    (copied / CERTIFICATES).write_text(content)
    with pytest.raises(ArtifactError, match=r"is damaged: .*; delete it and run `skipserve calib"):
        open_artifact(copied)
    (copied / CERTIFICATES).unlink()
    assert not open_artifact(copied).certificates.candidates  # as calibrate takes it


def test_a_place_below_the_first_candidate_is_damage(copied):
    change(copied / CERTIFICATES, candidate=-1)
    with pytest.raises(ArtifactError, match=r"is damaged: .*candidate = -1"):
        open_artifact(copied)


def test_too_few_samples_are_refused_with_the_number_it_takes(copied, moons):
    before = open_artifact(copied).certificates.certificates
    made = certify_artifact(copied, moons[:100], [0.01], 0.95, provider="cpu")
    assert made.certificates == before
    (refusal,) = made.refusals
    assert refusal.risk == 0.01
    assert "100 rows cannot" in refusal.reason
    assert "at least 299" in refusal.reason
    assert open_artifact(copied).certificates == made
    assert 0.01 not in skipserve.open(copied, provider="cpu").certified()


def test_another_file_is_certified_beside_the_first(copied):
    samples = open_recipe("two_moons").draw("certify").inputs[:2_000].numpy()
    said: list[str] = []
    made = certify_artifact(
        copied, samples, [0.05], 0.95, backend="torchscript", provider="cpu", say=said.append
    )
    assert len({tuple(one.files) for one in made.certificates}) == 2
    assert "2000 disagree" in said[0]
    other = skipserve.open(copied, backend="torchscript", provider="cpu")
    assert other.setting(0.05).risk == 0.05
    assert set(skipserve.open(copied, provider="cpu").certified()) == set(RISKS)


def test_what_cannot_be_certified_is_an_error(copied, artifact, moons):
    with pytest.raises(ArtifactError, match="has no router"):
        certify_artifact(artifact.directory, moons, [0.05], 0.95)
    with pytest.raises(InputError, match="shape"):
        certify_artifact(copied, moons[:, :1], [0.05], 0.95, provider="cpu")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        certify_artifact(copied, moons, [1.5], 0.95, provider="cpu")
    (copied / CERTIFICATES).unlink()
    with pytest.raises(ArtifactError, match="has no candidates"):
        certify_artifact(copied, moons, [0.05], 0.95, provider="cpu")


@pytest.mark.parametrize(
    ("thresholds", "limit"),
    [
        ([0.5, 0.5], np.inf),
        ([0.5] * 4, np.inf),
        ([[0.5] * 3], np.inf),
        ([0.5, np.nan, 0.5], np.inf),
        ([0.5] * 3, np.nan),
    ],
)
def test_wrong_thresholds_are_refused(routed, moons, thresholds, limit):
    with pytest.raises(InputError, match="takes 3 thresholds") as refused:
        routed.run_thresholds(routed.check(moons), np.array(thresholds, np.float32), limit)
    assert refused.value.code == "wrong_thresholds"
