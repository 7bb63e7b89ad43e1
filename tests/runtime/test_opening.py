"""Artifacts that cannot be opened: one line says what is wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skipserve
from skipserve.artifacts.artifact import Artifact
from skipserve.errors import ArtifactError, LaunchError
from skipserve.runtime.backends import TorchScript, has_gpu, open_onnx
from skipserve.runtime.engine import Engine

FILES = ("plain.fp32.onnx", "weights.fp32.bin", "plain.fp16.onnx", "plain.fp32.pt", "plain.fp16.pt")


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
