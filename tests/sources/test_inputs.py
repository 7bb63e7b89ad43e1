"""What a brought network depends on: whatever changes it is an input of its build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from residual_graphs import wide

from skipserve.building.buildfile import read_build_file
from skipserve.building.fingerprints import fingerprint
from skipserve.building.sourced import Sourced
from skipserve.building.steps import steps
from skipserve.sources.columns import read_columns
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.sources.graph_files import graph_files, sha256_of_graph
from skipserve.sources.hugging_face.folder import open_folder
from skipserve.sources.inputs import files_of
from skipserve.sources.module_code import code_of


def save_outside(file: Path, scale: float = 1.0) -> Path:
    """A graph whose weights all lie beside it."""
    model = wide()
    for one in model.graph.initializer:
        one.raw_data = (scale * np.frombuffer(one.raw_data, np.float32)).tobytes()
    beside = f"{file.name}_data"
    (file.parent / beside).unlink(missing_ok=True)
    onnx.save(model, file, save_as_external_data=True, location=beside, size_threshold=0)
    return file


def test_weights_beside_a_graph_are_of_it(tmp_path: Path) -> None:
    file = save_outside(tmp_path / "net.onnx")
    graph, whole = file.read_bytes(), sha256_of_graph(file)
    assert [one.name for one in graph_files(file)] == ["net.onnx", "net.onnx_data"]
    save_outside(file, scale=2.0)
    assert file.read_bytes() == graph  # other weights, and the same graph
    assert sha256_of_graph(file) != whole
    brought = Brought(source=SourceConfig(onnx="net.onnx"), data=DataConfig(rows="rows.npz"))
    assert list(files_of(brought, tmp_path)) == [
        *(file, tmp_path / "net.onnx_data", tmp_path / "rows.npz")
    ]


def test_a_graph_with_its_weights_in_it_is_one_file_and_so_is_none(tmp_path: Path) -> None:
    onnx.save(wide(), tmp_path / "net.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    for name in ("net.onnx", "text.onnx", "missing.onnx"):
        assert graph_files(tmp_path / name) == [tmp_path / name]


def test_weights_outside_the_folder_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = save_outside(tmp_path / "in" / "net.onnx")
    model = onnx.load(file, load_external_data=False)
    for one in model.graph.initializer:
        one.external_data[0].value = "../secret"
    file.write_bytes(model.SerializeToString())
    assert graph_files(file) == [file]


def test_so_are_those_beside_the_graph_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["XForSequenceClassification"]}')
    save_outside(tmp_path / "model.onnx")
    before = open_folder(tmp_path).sha256()
    assert tmp_path / "model.onnx_data" in list(open_folder(tmp_path).files())
    save_outside(tmp_path / "model.onnx", scale=2.0)
    assert open_folder(tmp_path).sha256() != before


def test_pictures_that_a_column_names_are_inputs(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    config = {"architectures": ["XForImageClassification"]}
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    (tmp_path / "net" / "model.safetensors").write_bytes(b"")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"a picture")
    lines = [{"file": name, "mood": "glad"} for name in ("a.png", "b.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    brought = Brought(source=SourceConfig(folder="net"), data=DataConfig(rows="rows.jsonl"))
    found = [one.name for one in files_of(brought, tmp_path)]
    assert found[-3:] == ["rows.jsonl", "a.png", "b.png"]
    assert len(read_columns(tmp_path / "rows.jsonl")["file"]) == 2


def test_the_code_of_a_module_is_what_it_imports_from_its_project(tmp_path: Path) -> None:
    texts = {
        "nets/__init__.py": "",
        "nets/small.py": "import torch\nfrom .layers import Block\nfrom nets import sizes\n",
        "nets/layers.py": "import helpers.shapes as shapes\n",
        "nets/sizes.py": "WIDTH = 4\n",
        "nets/unused.py": "",
        "helpers/shapes.py": "def broken(:\n",
        "torch_like.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [str(one.relative_to(tmp_path)) for one in code_of("nets.small:make", tmp_path)]
    assert found == [
        *("helpers/shapes.py", "nets/__init__.py", "nets/layers.py", "nets/sizes.py"),
        "nets/small.py",
    ]
    assert code_of("nowhere_at_all:make", tmp_path) == []


def test_of_an_installed_package_it_is_what_it_imports_from_itself(tmp_path: Path) -> None:
    found = {str(one) for one in code_of("skipserve.training.loop:fit", tmp_path)}
    assert any(one.endswith("skipserve/training/loop.py") for one in found)
    assert any(one.endswith("skipserve/networks/config.py") for one in found)
    assert all("skipserve" in one for one in found)


MODULE = """
from pathlib import Path

import numpy as np
import torch
from torch import nn


def make():
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.fill_(float(np.load(Path(__file__).parent / "weights.npy")))
        layer.bias.zero_()
    return layer.eval(), torch.zeros(2, 2)
"""
BUILD = """
name = "net"
[source]
module = "weighed_net:make"
[data]
rows = "rows.npz"
"""


@pytest.mark.parametrize("change", ["weights", "code", "rows"])
def test_a_module_that_was_trained_again_is_exported_again(tmp_path: Path, change: str) -> None:
    (tmp_path / "weighed_net.py").write_text(MODULE)
    np.save(tmp_path / "weights.npy", 1.0)
    np.savez(tmp_path / "rows.npz", x=np.zeros((3, 2)))
    (tmp_path / "net.toml").write_text(BUILD)

    def inputs() -> str:
        build = read_build_file(tmp_path / "net.toml")
        made = steps(build, lambda _: None, lambda _: None, lambda _, __: None, Sourced(build))
        (export,) = (one for one in made if one.name == "export")
        return fingerprint(export.inputs())

    before = inputs()
    assert inputs() == before
    if change == "weights":
        np.save(tmp_path / "weights.npy", 2.0)
    elif change == "code":
        (tmp_path / "weighed_net.py").write_text(f"{MODULE}\nCHANGED = True\n")
    else:
        np.savez(tmp_path / "rows.npz", x=np.ones((3, 2)))
    assert inputs() != before
