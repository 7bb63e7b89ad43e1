"""Bringing what cannot be brought: one sentence each, and nothing is left behind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import CommandLine
from logits import Logits
from numpy.typing import NDArray
from onnx import TensorProto, helper
from typer.testing import CliRunner

from skipserve.artifacts.torch_files import export_module
from skipserve.building.bring import bring
from skipserve.building.bring_file import BringOptions
from skipserve.cli import app
from skipserve.errors import ConfigError, CutError
from skipserve.training.checkpoint import load_checkpoint
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow


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
