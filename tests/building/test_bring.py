"""Bringing a network: one command from an ONNX file to a certified artifact and a verdict."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch
from logits import Logits
from numpy.typing import NDArray
from small_project import build as steps_taken

import skipserve
from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions, build_text, proposed_file
from skipserve.building.buildfile import read_build_file
from skipserve.building.fixed_alone import fixed_alone
from skipserve.building.products import certified_files
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth
from skipserve.certification.certifying import certify_artifact
from skipserve.errors import ConfigError
from skipserve.files import held
from skipserve.runtime.rows import Rows
from skipserve.samples import read_samples
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow

REORDERED = 1e-5


def test_what_was_brought_answers_as_its_file_does(
    brought: Path, points: NDArray[np.float32]
) -> None:
    import onnxruntime as ort

    logits = ort.InferenceSession(str(brought / "moons.onnx")).run(None, {"point": points})[0]
    expected = torch.from_numpy(logits).softmax(dim=1).numpy()
    answers = skipserve.open(brought / "artifacts" / "moons").predict(points)
    assert np.abs(answers.answers - expected).max() < REORDERED
    assert (answers.depth_run == 4).all()


def test_a_fixed_depth_alone_answers_as_rows_do_that_leave_there(
    brought: Path, points: NDArray[np.float32]
) -> None:
    artifact = open_artifact(brought / "artifacts" / "moons")
    engine = skipserve.open(artifact.directory)
    spec = artifact.manifest.router
    assert spec is not None
    for place, blocks in enumerate(spec.decisions):
        piece = fixed_alone(artifact, "fp32", blocks)
        assert piece is not None
        assert piece.outputs == ("answer",)
        stop = engine.fixed(place)
        left = engine.run_thresholds(Rows({"point": points}), stop.thresholds, stop.guard_limit)
        assert (left.depth_run == blocks).all()
        (answers,) = piece.run({"point": points})
        np.testing.assert_allclose(answers, left.answers, atol=REORDERED)
    assert fixed_alone(artifact, "fp32", artifact.manifest.depth) is None


def test_it_is_certified_and_skips(brought: Path, points: NDArray[np.float32]) -> None:
    engine = skipserve.open(brought / "artifacts" / "moons")
    certify = Sourced(read_build_file(brought / "export" / "moons.toml")).rows.certify
    certificate, tested = engine.certified()[0.05], certify.rows.tensors["point"]
    differ = engine.predict(tested, risk=0.05).labels != engine.predict(tested).labels
    assert (certificate.disagreements, certificate.samples) == (differ.sum(), len(tested))
    assert certificate.disagreements > 0
    answers = engine.predict(points, risk=0.05)
    assert (answers.depth_run < 4).any()
    full = engine.predict(points)
    assert (answers.labels != full.labels).mean() < 0.1


def test_rows_that_it_was_fitted_to_certify_nothing(brought: Path, tmp_path: Path) -> None:
    artifact = open_artifact(brought / "artifacts" / "moons")
    splits = Sourced(read_build_file(brought / "export" / "moons.toml")).rows
    fitted = len(splits.fit) + len(splits.propose)
    with pytest.raises(ConfigError, match=f"{fitted} of .* rows of .* that moons was fitted to"):
        read_samples(brought / "rows.npz", "label", artifact)
    np.savez(tmp_path / "rows.npz", point=splits.certify.rows.tensors["point"])
    said: list[str] = []
    read = read_samples(tmp_path / "rows.npz", None, artifact, said.append)
    assert (len(read), said) == (len(splits.certify), [])


def test_a_build_keeps_the_certificates_that_others_made(brought: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(brought, root)
    file = root / "export" / "moons.toml"
    file.write_text(file.read_text().replace('labels = "label"\n', ""))
    assert "calibrate" in steps_taken(root, "moons")
    artifact = open_artifact(root / "artifacts" / "moons")
    assert {one.measure for one in artifact.certificates.certificates} == {"disagreement"}
    test = Sourced(read_build_file(file)).rows.test
    labels = np.zeros(len(test), np.int64)
    made = certify_artifact(
        *(artifact.directory, test.rows.tensors, [0.05, 0.3]), labels=labels, provider="cpu"
    )
    assert {one.measure for one in made.certificates} == {"disagreement", "accuracy_lost"}
    assert steps_taken(root, "moons") == ["package"]
    packed = unpack(root / "model_store" / "moons.mar", tmp_path / "store", {}).artifact
    assert packed.certificates == open_artifact(artifact.directory).certificates == made


def test_what_traffic_certifies_a_build_does_not_look_for(brought: Path, tmp_path: Path) -> None:
    file = tmp_path / "moons.toml"
    text = (brought / "export" / "moons.toml").read_text()
    file.write_text(text.replace("[router]", '[router]\ncertificate = "earned"'))
    assert certified_files(read_build_file(file)) == []
    file.write_text(text.replace('["fp32"]', '["fp32", "fp16"]'))
    assert certified_files(read_build_file(file)) == [("onnxruntime", "fp32")]


def test_the_build_file_says_all_of_it_and_builds_nothing_anew(brought: Path) -> None:
    build = read_build_file(brought / "export" / "moons.toml")
    assert build.brought is not None
    assert build.brought.source.onnx == "moons.onnx"
    assert build.serving.risk == 0.05
    before = (brought / "artifacts" / "moons" / "manifest.json").stat().st_mtime_ns
    outcome = bring(
        BringOptions(str(brought / "moons.onnx"), brought / "rows.npz", labels="label", risk=0.05),
        brought,
    )
    assert (brought / "artifacts" / "moons" / "manifest.json").stat().st_mtime_ns == before
    assert isinstance(outcome.worth, Worth)
    assert outcome.verdict.startswith(("worth it", "not worth it"))
    assert "worth it: at a certified risk of 5% it runs" in outcome.verdict
    assert "suffers most" in outcome.verdict


def test_a_certificate_names_every_file(brought: Path) -> None:
    artifact = open_artifact(brought / "artifacts" / "moons")
    names = {file.path for file in artifact.manifest.files}
    assert {"plain.fp32.onnx", "routed.fp32.onnx", "weights.fp32.bin"} <= names
    for certificate in artifact.certificates.certificates:
        assert set(certificate.files) == names


def test_a_torch_module_is_brought_from_python(checkpoint: Path, tmp_path: Path) -> None:
    network = Logits(load_checkpoint(checkpoint).network.eval())
    samples = open_recipe("two_moons").draw("certify")
    rows = {"point": samples.inputs.numpy()[:4000], "y": samples.labels.numpy()[:4000]}
    artifact = skipserve.bring(
        (network, torch.zeros(2, 2)), rows, name="moons", risk=0.05, labels="y", project=tmp_path
    )
    assert artifact.manifest.depth == 4
    assert artifact.manifest.signature.inputs[0].name == "point"
    assert artifact.certificates.candidates


def test_a_star_import_leaves_the_builtin_open() -> None:
    assert "open" not in skipserve.__all__
    assert callable(skipserve.open)


def test_a_name_is_made_of_what_every_place_takes(brought: Path, tmp_path: Path) -> None:
    name, file, _ = proposed_file(BringOptions("json:größe", brought / "rows.npz"), tmp_path)
    assert (name, file) == ("gr_e", tmp_path / "export" / "gr_e.toml")


def test_numbers_are_written_as_they_were_asked(brought: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    for risk, tolerance in ((0.01234561, 1234567.8), (0.01, 2.0), (1 / 3, 1e-9)):
        options = BringOptions(
            *(str(brought / "moons.onnx"), brought / "rows.npz"),
            risk=risk,
            task="regress",
            tolerance=tolerance,
        )
        file.write_text(build_text(options, "net", tmp_path))
        build = read_build_file(file)
        assert build.serving.risk == risk
        assert build.router is not None and risk in build.router.risks
        assert build.brought is not None and build.brought.task.tolerance == tolerance


def test_of_two_builds_of_one_model_the_second_waits(brought: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(brought, root)
    build = read_build_file(root / "export" / "moons.toml")
    said: list[str] = []
    with ThreadPoolExecutor(1) as pool, held(root / ".build" / "moons"):
        second = pool.submit(run_steps, build, lambda _: None, said.append)
        while not said:
            sleep(0.01)
        assert said == ["moons: another build of it is running; waiting for its end"]
        assert not second.done()
    second.result()
    assert all(line.endswith("is up to date") for line in said[1:])
    assert len(said) == 4
