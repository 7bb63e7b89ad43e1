"""From build file to certified router: what is certified, for which file, and when it is used."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import build

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import CERTIFICATES, Certificates, write_certificates
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.certification.calibrate import certify_artifact
from skipserve.errors import ArtifactError, ConfigError, InputError
from skipserve.files import sha256_of
from skipserve.intervals import p_value
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.training.recipes import open_recipe

DEPTH, RISKS = 4, (0.02, 0.05)


@pytest.fixture
def project(routed_project, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(routed_project[0], tmp_path / "project"))


@pytest.fixture(scope="module")
def directory(routed_project):
    return routed_project[0] / "artifacts" / "small"


@pytest.fixture
def copied(project):
    return project / "artifacts" / "small"


@pytest.fixture(scope="module")
def routed(directory):
    return skipserve.open(directory, provider="cpu")


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()


def change(file, **values):
    """Change every certificate in a file."""
    content = json.loads(file.read_text())
    for certificate in content["certificates"]:
        certificate.update(values)
    file.write_text(json.dumps(content))


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
        {"candidate": -1},
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
    with pytest.raises(ArtifactError, match="is damaged"):
        open_artifact(copied)


def test_too_few_samples_are_refused_with_the_number_it_takes(copied, moons):
    before = open_artifact(copied).certificates.certificates
    made = certify_artifact(copied, moons[:100], [0.01], 0.95, provider="cpu")
    assert made.certificates == before
    (refusal,) = made.refusals
    assert refusal.risk == 0.01
    assert "100 samples" in refusal.reason
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


ASKED = [
    ("off", None),
    ("on", 0.05),
    ({"risk": 0.05}, 0.05),
    ({"risk": 0.02}, 0.02),
    ({"risk": 0.001}, None),
    (None, 0.05),
]


def test_the_signals_of_calibration_are_kept_in_tenths(directory):
    engine = skipserve.open(directory, provider="cpu")
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    for risk, certificate in engine.certified().items():
        signals = engine.predict(rows, risk).signals
        for column, deciles in zip(signals.T, certificate.deciles, strict=True):
            below = [(column < decile).sum() / (~np.isnan(column)).sum() for decile in deciles]
            assert below == pytest.approx(np.arange(1, 10) / 10, abs=0.01)


def native(rows, router=None) -> RawRequest:
    body: dict[str, object] = {"inputs": rows.tolist()}
    if router is not None:
        body["parameters"] = {"router": router}
    return RawRequest(json.dumps(body).encode(), {"content-type": "application/json"})


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
