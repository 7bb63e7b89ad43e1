"""Hugging Face folders of picture classifiers: read as transformers reads them, brought, served."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import picture_folders
import pytest
import torch
from picture_folders import FAMILIES, LABELS, write_classes
from pictures import odd
from PIL import Image
from small_project import REORDERED
from small_router import small_router

import skipserve
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.artifacts.torch_files import quietly
from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.building.scoring import score
from skipserve.building.steps import run_steps
from skipserve.errors import ConfigError
from skipserve.graph.memory import open_model
from skipserve.preprocessing.pictures import Pictures
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.runtime.engine import Engine
from skipserve.service.service import Service
from skipserve.sources.brought import signature_of
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.sources.inputs import files_of

pytestmark = pytest.mark.slow


MODEL = """
name = "shades"
[source]
folder = "net"
exporters = ["torchscript"]
[data]
rows = "pictures"
labels = "label"
""" + small_router(0, 2, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_answers_as_transformers_does(family: str, tmp_path: Path) -> None:
    from transformers import pipeline

    picture_folders.write(tmp_path / "net", family)
    read = read_folder(tmp_path / "net", ("torchscript",))
    assert read.names == LABELS and read.source.kind == "hugging_face"
    (spec,) = signature_of(read.model).inputs
    assert spec.shape == ("batch", 3, 32, 32)
    some = list(odd().values())
    assert read.prepared is not None and read.prepared.config.kind == "picture"
    (logits,) = open_model(read.model).run(None, Pictures(read.prepared.config)(some))
    theirs = pipeline("image-classification", model=str(tmp_path / "net"), device="cpu")
    answers = theirs([base64.b64encode(one).decode() for one in some], top_k=3)
    for row, answer in zip(logits, answers, strict=True):
        found = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        expected = {one["label"]: one["score"] for one in answer}
        np.testing.assert_allclose(found, [expected[name] for name in LABELS], atol=2e-5)


def test_optimums_layout(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    made = picture_folders.write(folder, "vit")
    (folder / "model.safetensors").unlink()
    names = ("batch_size", "num_channels", "height", "width")
    with quietly():
        torch.onnx.export(
            made,
            (torch.rand(2, 3, 32, 32),),
            str(folder / "model.onnx"),
            dynamo=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": dict(enumerate(names)), "logits": {0: names[0]}},
        )
    (spec,) = signature_of(read_folder(folder, ("torchscript",)).model).inputs
    assert spec.shape == ("batch", 3, 32, 32)
    graph = onnx.load(folder / "model.onnx")
    graph.graph.input[0].name = "pictures"
    for node in graph.graph.node:
        node.input[:] = ["pictures" if name == "pixel_values" else name for name in node.input]
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(ConfigError, match="takes pictures; expected pixel_values"):
        read_folder(folder, ("torchscript",))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shades")
    picture_folders.write(root / "net", "resnet")
    write_classes(root / "pictures", 500)
    (root / "export").mkdir()
    (root / "export" / "shades.toml").write_text(MODEL)
    run_steps(read_build_file(root / "export" / "shades.toml"), lambda one: None, lambda one: None)
    return root


@pytest.fixture(scope="module")
def shades(project: Path) -> Artifact:
    return open_artifact(project / "artifacts" / "shades")


def test_a_folder_is_brought_and_served(project: Path, shades: Artifact) -> None:
    manifest = shades.manifest
    assert manifest.task.names == LABELS and manifest.depth == 6
    assert not {"preprocessor_config.json"} & {one.path for one in manifest.files}
    engine = Engine(shades, provider="cpu")
    service = Service(engine, ServingConfig())
    files = sorted((project / "pictures").rglob("*.*"))[:6]
    sent = [base64.b64encode(one.read_bytes()).decode() for one in files]
    body = {"inputs": [*sent, manifest.example.value], "parameters": {"router": "off"}}
    request = RawRequest(json.dumps(body).encode(), {"content-type": JSON})
    rows = json.loads(service.answer([request])[0].body)["outputs"]
    assert rows[-1]["label"] == int(np.argmax(manifest.example.answer))
    np.testing.assert_allclose(rows[-1]["probabilities"], manifest.example.answer, atol=REORDERED)
    scored = score(shades, project / "pictures", None, 64, 1, lambda what, part: None)
    np.testing.assert_allclose(
        scored.prediction.answers[:6],
        [one["probabilities"] for one in rows[:6]],
        atol=REORDERED,
    )


def test_a_pipeline_answers_as_transformers_does(project: Path, shades: Artifact) -> None:
    from transformers import pipeline

    theirs = pipeline("image-classification", model=str(project / "net"), device="cpu")
    ours = skipserve.pipeline("image-classification", shades.directory)
    files = [str(one) for one in sorted((project / "pictures").rglob("*.*"))[:4]]
    for asked in (files, files[0], Image.open(files[1])):
        for options in ({}, {"top_k": 2}):
            found, expected = ours(asked, **options), theirs(asked, **options)
            flat = [list(chain(*one)) if asked is files else one for one in (found, expected)]
            assert [one["label"] for one in flat[0]] == [one["label"] for one in flat[1]]
            scores = [[one["score"] for one in some] for some in flat]
            np.testing.assert_allclose(*scores, atol=2e-5)
    with pytest.raises(ConfigError, match="takes no texts"):
        skipserve.pipeline("text-classification", shades.directory)
    with pytest.raises(
        ConfigError, match="only for text-classification, sentiment-analysis, image"
    ):
        skipserve.pipeline("image-segmentation", shades.directory)


def test_a_picture_that_changed_is_exported_anew(project: Path, tmp_path: Path) -> None:
    build = read_build_file(project / "export" / "shades.toml")
    assert build.brought is not None
    files = list(files_of(build.brought, build.root))
    assert len([one for one in files if one.suffix in (".png", ".jpg")]) == 500
    assert project / "net" / "preprocessor_config.json" in files


Change = Callable[[Path], object]


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _processor(folder: Path, **changes: Any) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


BAD: dict[str, tuple[Change, str]] = {
    "no processor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "has no preprocessor_config.json",
    ),
    "a processor of another kind": (
        lambda folder: _processor(folder, image_processor_type="DetrImageProcessor"),
        "the processor DetrImageProcessor is not known",
    ),
    "code of its own": (lambda folder: _config(folder, auto_map={"AutoModel": "a.B"}), "auto_map"),
    "another size": (
        lambda folder: _processor(folder, size={"height": 40, "width": 40}),
        "does not take pictures of 40 × 40|cannot be exported",
    ),
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    picture_folders.write(folder, "vit")
    return folder


@pytest.mark.parametrize("what", BAD)
def test_folders_that_are_refused(what: str, vit: Path, tmp_path: Path) -> None:
    change, says = BAD[what]
    shutil.copytree(vit, tmp_path / "net")
    change(tmp_path / "net")
    with pytest.raises(ConfigError, match=says) as refused:
        read_folder(tmp_path / "net", ("torchscript",))
    assert "\n" not in str(refused.value)


def test_a_build_file_of_pictures(project: Path) -> None:
    """A folder of class folders needs no more options."""
    options = BringOptions(str(project / "net"), project / "pictures")
    text = build_text(options, "net", project)
    assert 'folder = "net"' in text and 'rows = "pictures"' in text
    assert 'labels = "label"' in text
    options = BringOptions(str(project / "net"), project / "rows.jsonl", picture="file")
    text = build_text(options, "net", project)
    assert 'picture = "file"' in text and "labels" not in text
