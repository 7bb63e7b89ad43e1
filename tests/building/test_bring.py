"""Bringing a network: one command from an ONNX file to a certified artifact and a verdict."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import numpy as np
import onnx
import pytest
import torch
from command_line import CommandLine
from logits import Logits
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_project import build as steps_taken
from typer.testing import CliRunner

import skipserve
from skipserve.artifacts.archive import unpack
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.torch_files import export_module
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions, build_text, proposed_file
from skipserve.building.buildfile import read_build_file
from skipserve.building.fixed_alone import fixed_alone
from skipserve.building.products import certified_files
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.building.worth import Worth
from skipserve.certification.certifying import certify_artifact
from skipserve.cli import app
from skipserve.errors import ConfigError, CutError
from skipserve.files import held
from skipserve.runtime.rows import Rows
from skipserve.samples import read_samples
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow

REORDERED = 1e-5


@pytest.fixture
def points(brought: Path) -> NDArray[np.float32]:
    with np.load(brought / "rows.npz") as arrays:
        return arrays["point"][:200]


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


def test_a_file_is_answered_in_batches(
    brought: Path, points: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought)
    rows, out = tmp_path / "rows.npz", tmp_path / "answers.jsonl"
    np.savez(rows, point=points)
    ran = CliRunner().invoke(
        app, ["predict", "moons", str(rows), "--out", str(out), "--risk", "5%"]
    )
    assert ran.exit_code == 0, ran.output
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    engine = skipserve.open("artifacts/moons")
    expected = engine.predict(points, risk=0.05)
    assert [row["label"] for row in answers] == expected.labels.tolist()
    assert [row["depth_run"] for row in answers] == expected.depth_run.tolist()


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".npz"])
def test_answers_are_written_as_asked(
    kind: str,
    brought: Path,
    points: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from skipserve.sources.columns import read_columns

    monkeypatch.chdir(brought)
    rows, out = tmp_path / "rows.npz", tmp_path / f"answers{kind}"
    np.savez(rows, point=points)
    ran = CliRunner().invoke(app, ["predict", "moons", str(rows), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    columns = read_columns(out)
    assert (columns["depth_run"] == 4).all()
    assert len(columns["label"]) == len(points)


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


def _save_rows(file: Path, count: int = 400, **other: NDArray[np.generic]) -> Path:
    random = np.random.default_rng(0)
    columns = {"point": random.standard_normal((count, 2)).astype(np.float32), **other}
    np.savez(file, **columns)
    return file


def _chain(file: Path, batch: int | str = "batch", outputs: int = 3) -> Path:
    """A graph of two layers, too short to route."""
    random = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(random.standard_normal((2, 4)).astype(np.float32), "a"),
        onnx.numpy_helper.from_array(random.standard_normal((4, outputs)).astype(np.float32), "b"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["point", "a"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "b"], ["logits"]),
        ],
        "chain",
        [helper.make_tensor_value_info("point", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, outputs])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), file)
    return file


def test_bad_input_is_one_sentence_and_leaves_nothing(brought: Path, tmp_path: Path) -> None:
    good, rows = brought / "moons.onnx", _save_rows(tmp_path / "rows.npz")
    nan = np.full((400, 2), np.nan, np.float32)
    cases: list[tuple[Path, Path, str | None, type[Exception], str]] = [
        (tmp_path / "none.onnx", rows, None, ConfigError, "is not there"),
        (_bytes(tmp_path / "text.onnx", b"hello"), rows, None, CutError, "not an ONNX file"),
        (
            _bytes(tmp_path / "short.onnx", good.read_bytes()[:200]),
            *(rows, None, CutError, "ONNX file"),
        ),
        (good, tmp_path / "none.npz", None, ConfigError, "is not there"),
        (good, _bytes(tmp_path / "bad.npz", b"PK"), None, ConfigError, "is no .npz file"),
        (good, _bytes(tmp_path / "rows.txt", b"1"), None, ConfigError, "rows are read from"),
        (good, _save_rows(tmp_path / "few.npz", 50), None, ConfigError, "at least 200"),
        (good, _save_rows(tmp_path / "nan.npz", point=nan), None, ConfigError, "NaN"),
        (good, rows, "colour", ConfigError, "no column 'colour'"),
        (
            good,
            _save_rows(tmp_path / "long.npz", label=np.zeros(7, np.int64)),
            *("label", ConfigError, "one entry a row"),
        ),
        (_chain(tmp_path / "chain.onnx"), rows, None, CutError, "no block was found"),
        (_chain(tmp_path / "fixed.onnx", batch=8), rows, None, CutError, "fixed at 8"),
        (_chain(tmp_path / "one.onnx", outputs=1), rows, None, CutError, "at least two classes"),
    ]
    for source, data, labels, error, sentence in cases:
        options = BringOptions(str(source), data, labels=labels, name="bad")
        with pytest.raises(error, match=sentence) as raised:
            bring(options, tmp_path / "project")
        assert "\n" not in str(raised.value), raised.value
        assert not list((tmp_path / "project").rglob("*.toml")), sentence
        assert not list((tmp_path / "project").rglob("manifest.json")), sentence


def _bytes(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def test_too_few_rows_for_a_risk_say_how_many_it_takes(checkpoint: Path, tmp_path: Path) -> None:
    network = Logits(load_checkpoint(checkpoint).network.eval())
    model = export_module(network.eval(), (torch.zeros(2, 2),), ("point",), "logits")
    onnx.save(model, tmp_path / "moons.onnx")
    samples = open_recipe("two_moons").draw("certify").inputs.numpy()[:300]
    np.savez(tmp_path / "rows.npz", point=samples)
    outcome = bring(BringOptions(str(tmp_path / "moons.onnx"), tmp_path / "rows.npz"), tmp_path)
    assert isinstance(outcome.worth, str)
    assert "at least 299" in outcome.verdict


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


@pytest.mark.parametrize("name", [None, "moons"])
def test_another_name_is_asked_for_before_a_build_file_is_replaced(
    brought: Path, tmp_path: Path, name: str | None
) -> None:
    (tmp_path / "export").mkdir()
    mine = tmp_path / "export" / "moons.toml"
    mine.write_text("# mine\n")
    with pytest.raises(ConfigError, match="--name"):
        bring(BringOptions(str(brought / "moons.onnx"), brought / "rows.npz", name=name), tmp_path)
    assert mine.read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.onnx", "--data", "rows.npz"], "none.onnx is not there"),
        (["none", "--data", "rows.npz"], "no folder that is there"),
        (["moons.onnx", "--data", "none.npz", "--name", "x"], "does not exist|is not there"),
        (["moons.onnx", "--data", "rows.npz", "--name", "x", "--labels", "lable"], "mean 'label'"),
        (["moons.onnx", "--data", "rows.npz", "--name", "a-b"], "name"),
        (
            ["moons.onnx", "--data", "rows.npz", "--name", "x", "--precision", "int4"],
            "is not one of",
        ),
    ],
)
def test_a_wrong_command_is_one_line(
    brought: Path, command_line: CommandLine, words: list[str], says: str
) -> None:
    ended = command_line("bring", *words, folder=brought)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert re.search(says, ended.err), ended.err
    assert not (brought / "export" / "x.toml").exists()


def test_a_wrong_risk_is_refused_by_the_command(brought: Path) -> None:
    ran = CliRunner().invoke(
        app, ["bring", "x.onnx", "--data", str(brought / "rows.npz"), "--risk", "lots"]
    )
    assert ran.exit_code == 2
    assert "'lots' is not between 0" in ran.output
