"""The engine and the artifact it opens: answers, agreement between files, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_project import REORDERED

import skipserve
from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.parity import TOLERANCES
from skipserve.errors import ArtifactError, InputError, LaunchError
from skipserve.runtime.backends import TorchScript, has_gpu, open_onnx
from skipserve.runtime.engine import Engine
from skipserve.runtime.warming import warm_up
from skipserve.training.checkpoint import load_checkpoint

FILES = ("plain.fp32.onnx", "weights.fp32.bin", "plain.fp16.onnx", "plain.fp32.pt", "plain.fp16.pt")
EVERY_FILE = pytest.mark.parametrize(
    ("backend", "precision"),
    [(backend, p) for backend in ("onnxruntime", "torchscript") for p in ("fp32", "fp16")],
)


# --- answers ---


@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_prediction_has_one_answer_a_row(
    engine: Engine, rows: NDArray[np.float32], count: int
) -> None:
    prediction = engine.predict(rows[:count])
    assert (prediction.labels.shape, prediction.labels.dtype) == ((count,), np.int64)
    assert (prediction.depth_run.shape, prediction.depth_run.dtype) == ((count,), np.int64)
    assert prediction.answers.shape == (count, 2)
    assert prediction.answers.dtype == np.float32
    assert (prediction.depth_run == 4).all()
    assert (prediction.labels == prediction.answers.argmax(axis=1)).all()
    np.testing.assert_allclose(prediction.answers.sum(axis=1), 1, atol=REORDERED)


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], dtype=np.int8),
        np.array([[1, 2], [3, 4]], dtype=np.float16),
        np.array([[1, 3], [2, 4]], dtype=np.float64).T,
        torch.tensor([[1, 2], [3, 4]]),
    ],
    ids=["lists", "tuples", "int8", "float16", "transposed float64", "tensor"],
)
def test_anything_array_like_is_answered(engine: Engine, inputs: object) -> None:
    expected = engine.run(engine.check(np.float32([[1, 2], [3, 4]])))
    np.testing.assert_array_equal(engine.predict(inputs).answers, expected.answers)


@EVERY_FILE
def test_a_row_in_a_batch_is_answered_as_alone(
    artifact: Artifact, rows: NDArray[np.float32], backend: Any, precision: Any
) -> None:
    engine = Engine(artifact, backend=backend, precision=precision, provider="cpu")
    batch = engine.predict(rows)
    single = np.concatenate([engine.predict(row[None]).answers for row in rows])
    assert (batch.answers.argmax(1) == single.argmax(1)).all()
    tolerance = {"fp32": REORDERED, "fp16": TOLERANCES["fp16"]}[precision]
    np.testing.assert_allclose(batch.answers, single, rtol=0, atol=tolerance)


@EVERY_FILE
def test_every_file_answers_as_the_network_does(
    artifact: Artifact,
    checkpoint: Path,
    rows: NDArray[np.float32],
    backend: Any,
    precision: Any,
) -> None:
    with torch.no_grad():
        logits = load_checkpoint(checkpoint).network.double()(torch.from_numpy(rows).double())
    expected = logits.softmax(dim=1).numpy()
    engine = Engine(artifact, backend=backend, precision=precision, provider="cpu")
    assert (engine.backend, engine.precision, engine.provider) == (backend, precision, "cpu")
    difference = np.abs(engine.predict(rows).answers - expected).max()
    assert difference <= TOLERANCES[precision], f"largest difference {difference:.3g}"


def test_the_manifests_example_is_true(engine: Engine) -> None:
    example = engine.manifest.example
    prediction = engine.predict({name: [one] for name, one in example.inputs.items()})
    assert prediction.labels[0] == engine.manifest.task.labels(np.array([example.answer]))[0]
    np.testing.assert_allclose(
        prediction.answers[0], example.answer, rtol=0, atol=TOLERANCES["fp32"]
    )


def test_part_of_a_prediction_holds_the_answers_of_its_rows(
    engine: Engine, rows: NDArray[np.float32]
) -> None:
    whole = engine.predict(rows)
    part = whole.rows(3, 7)
    np.testing.assert_array_equal(part.labels, whole.labels[3:7])
    np.testing.assert_array_equal(part.answers, whole.answers[3:7])
    np.testing.assert_array_equal(part.depth_run, whole.depth_run[3:7])


@pytest.mark.parametrize("threads", [0, 2])
def test_threads_change_no_answer(
    artifact: Artifact, engine: Engine, rows: NDArray[np.float32], threads: int
) -> None:
    other = Engine(artifact, provider="cpu", threads=threads)
    warm_up(other, batch_size=4)
    np.testing.assert_allclose(
        other.predict(rows).answers, engine.predict(rows).answers, atol=REORDERED
    )


# --- rows that cannot be answered ---

BAD_ROWS: dict[str, tuple[object, str, int | None, str]] = {
    "row too long": ([[1, 2, 3]], "wrong_shape", 0, "has shape [2], got rows of shape [3]"),
    "one row, not in a list": ([1, 2], "wrong_shape", 0, "has shape [2]"),
    "a number": (1.0, "wrong_shape", None, "has shape [2]"),
    "None": (None, "wrong_shape", None, "has shape [2]"),
    "no row": (np.zeros((0, 2)), "empty", None, "send at least one"),
    "ragged": ([[1, 2], [3]], "ragged", None, "rows of one length"),
    "words": ([["1", "2"]], "wrong_type", None, "must be numbers"),
    "None in a row": ([[1, None]], "wrong_type", None, "must be numbers"),
    "complex": ([[1, 2j]], "wrong_type", None, "must be numbers"),
    "huge integers": ([[10**400, 1]], "wrong_type", None, "must be numbers"),
    "NaN": ([[1, 2], [3, np.nan]], "not_finite", 1, "row 1 holds NaN"),
    "infinity": ([[1, 2], [3, 4], [-np.inf, 5]], "not_finite", 2, "row 2 holds"),
    "beyond float32": ([[1, 2], [1e39, np.nan]], "not_finite", 1, "beyond float32"),
    "infinity in float16": (np.float16([[1, 2], [np.inf, 1]]), "not_finite", 1, "row 1 holds"),
}


@pytest.mark.parametrize(("inputs", "code", "row", "says"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_told_what_was_expected(
    engine: Engine, inputs: object, code: str, row: int | None, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.predict(inputs)
    assert (caught.value.code, caught.value.row) == (code, row)
    assert says in caught.value.message


array_likes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=1),
    max_leaves=8,
)


@given(inputs=array_likes)
def test_no_input_raises_anything_but_an_input_error(engine: Engine, inputs: object) -> None:
    try:
        prediction = engine.predict(inputs)
    except InputError as error:
        assert error.message
    else:
        assert len(prediction.labels) == len(inputs)  # type: ignore[arg-type]


# --- artifacts that cannot be opened ---


@pytest.fixture
def copy(artifact: Artifact, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may damage."""
    return shutil.copytree(artifact.directory, tmp_path / "copy")


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES: tuple[tuple[Callable[[Path], None], str], ...] = (
    (flip_a_byte, "is not the file the manifest describes"),
    (cut_short, "is not the file the manifest describes"),
    (Path.unlink, "named in the manifest but missing"),
)


def test_an_artifact_is_opened_by_its_directory(copy: Path) -> None:
    assert skipserve.open(str(copy)).predict([[0.5, -0.25]]).labels.shape == (1,)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=["changed", "cut short", "missing"])
def test_a_damaged_file_is_named(
    copy: Path, file: str, damage: Callable[[Path], None], says: str
) -> None:
    damage(copy / file)
    with pytest.raises(ArtifactError, match=f"{file}.*{says}.*build the artifact again"):
        skipserve.open(copy)


def changed(manifest: dict[str, Any], **changes: object) -> str:
    return json.dumps(manifest | changes)


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "no JSON": (lambda m: "{", "is not JSON"),
    "binary": (lambda m: "\0", "is not JSON"),
    "100,000 levels": (lambda m: "[" * 100_000, "is not JSON"),
    "a list": (lambda m: "[1]", "manifest_version is None, this skipserve reads 3"),
    "of another program": (lambda m: '{"name": "x"}', "manifest_version is None"),
    "of a later version": (lambda m: changed(m, manifest_version=4), "manifest_version is 4"),
    "unknown key": (lambda m: changed(m, blocks=4), "unknown key 'blocks'"),
    "key missing": (lambda m: changed({k: m[k] for k in m if k != "files"}), "'files' is missing"),
    "name of a path": (lambda m: changed(m, name="../x"), "name = '../x'"),
    "no depth": (lambda m: changed(m, depth=0), "depth"),
    "no signature": (lambda m: changed(m, signature={}), "'signature.inputs' is missing"),
    "no task": (lambda m: changed(m, task={"kind": "sort"}), "task = "),
    "file outside": (
        lambda m: changed(m, files=[m["files"][0] | {"path": "../copy/plain.fp32.onnx"}]),
        "expected a file beside it and no link",
    ),
}


@pytest.mark.parametrize(("write", "says"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_foreign_manifest_says_what_is_wrong_with_it(
    copy: Path, write: Callable[[dict[str, Any]], str], says: str
) -> None:
    file = copy / "manifest.json"
    file.write_text(write(json.loads(file.read_text())))
    with pytest.raises(ArtifactError) as caught:
        skipserve.open(copy)
    assert says in str(caught.value)
    assert any(
        way in str(caught.value) for way in ("build the artifact again", "make it anew with")
    )


def test_an_artifact_of_version_1_is_refused_with_the_command_that_makes_it_anew(
    copy: Path,
) -> None:
    (copy / "manifest.json").write_text('{"manifest_version": 1, "name": "moons"}')
    says = (
        "manifest_version is 1, .* reads 3; make it anew with `skipserve build export/moons.toml`"
    )
    with pytest.raises(ArtifactError, match=says):
        skipserve.open(copy)


@pytest.mark.parametrize("name", ["", "nowhere", "manifest.json"])
def test_what_is_no_artifact_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json is missing.*skipserve build"):
        skipserve.open(tmp_path / name)


def test_a_precision_that_was_not_exported_is_named_beside_those_that_were(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    files = [file for file in manifest["files"] if file["precision"] == "fp32"]
    (copy / "manifest.json").write_text(changed(manifest, files=files))
    with pytest.raises(ArtifactError, match="no onnx files in fp16, only onnx fp32, torchscript"):
        skipserve.open(copy, precision="fp16")


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
def test_cuda_is_refused_where_there_is_none(artifact: Artifact, backend: Any) -> None:
    with pytest.raises(LaunchError, match=f"{backend} finds no usable CUDA.*provider = 'auto'"):
        Engine(artifact, backend=backend, provider="cuda")


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_auto_is_fp32_on_the_cpu_where_there_is_no_gpu(artifact: Artifact) -> None:
    engine = Engine(artifact)
    assert (engine.provider, engine.precision, engine.fell_back) == ("cpu", "fp32", False)


def open_file(file: Path) -> None:
    if file.suffix == ".onnx":
        open_onnx(file)
    else:
        TorchScript(file, 0, 4)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt", "model.pickle"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04"], ids=["empty", "junk", "zip"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        open_file(tmp_path / name)


@pytest.mark.parametrize("name", ["plain.fp32.onnx", "plain.fp32.pt"])
def test_half_a_model_is_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=name):
        open_file(copy / name)


def test_the_folder_around_an_artifact_makes_no_name_near(copy: Path) -> None:
    elsewhere = copy.parent / "quite_another"
    with pytest.raises(ArtifactError, match="there are") as told:
        skipserve.open(elsewhere)
    assert "did you mean" not in str(told.value)
    near = copy.with_name(copy.name[:-1])
    with pytest.raises(ArtifactError, match="did you mean"):
        skipserve.open(near)
