"""Hugging Face folders: read as transformers reads them, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import onnx
import pytest
from folders import FAMILIES, LABELS, LONGEST, sentences
from moods import ODD, SCRIPT, logits, prepared
from small_project import REORDERED

from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.errors import ConfigError, CutError
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.sources.inputs import files_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_computes_what_transformers_does(family: str, tmp_path: Path) -> None:
    net = folders.write(tmp_path / "net", family)
    read = read_folder(tmp_path / "net", SCRIPT)
    assert read.names == LABELS and read.source.kind == "hugging_face"
    session = open_model(prepare(read.model))
    prepare_texts = prepared(read, tmp_path / "tokens")
    pairs = [["ba de", "fi"], ["lu", "go " * 40]]
    for texts in (sentences(9), ODD[:5], [ODD[-1]], pairs):
        (got,) = session.run(["logits"], dict(prepare_texts(texts)))
        np.testing.assert_allclose(got, logits(net, tmp_path / "net", texts), atol=1e-4)


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folders.write(tmp_path / "net")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "net")
    prepare_texts = prepared(read_folder(tmp_path / "net", SCRIPT), tmp_path / "tokens")
    values: list[Any] = [*sentences(100), *ODD]
    for batch in (values, *([one] for one in values)):
        expected = tokenizer(batch, truncation=True, padding=True, return_tensors="np")
        got = prepare_texts(batch)
        assert got.keys() == expected.keys()
        for name in got:
            np.testing.assert_array_equal(got[name], expected[name])
    pairs = list(zip(values, reversed(values), strict=True))
    expected = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, padding=True)
    got = prepare_texts([list(pair) for pair in pairs])
    assert {name: got[name].tolist() for name in got} == dict(expected)
    assert got["input_ids"].shape[1] == LONGEST and got["token_type_ids"].any()


def test_a_folder_of_optimum_is_read_too(moods: Path, tmp_path: Path) -> None:
    shutil.copytree(moods / "net", tmp_path / "net")
    read = read_folder(moods / "net", SCRIPT)
    model = read.model
    for one in model.graph.input:  # as optimum names them
        for dim, word in zip(
            one.type.tensor_type.shape.dim, ("batch_size", "sequence_length"), strict=True
        ):
            dim.dim_param = word
    onnx.save(model, tmp_path / "net" / "model.onnx")
    (tmp_path / "net" / "model.safetensors").unlink()
    other = read_folder(tmp_path / "net", SCRIPT)
    texts = sentences(5)
    rows = dict(prepared(other, tmp_path / "tokens")(texts))
    (got,) = open_model(prepare(other.model)).run(["logits"], rows)
    (expected,) = open_model(prepare(read.model)).run(["logits"], rows)
    np.testing.assert_allclose(got, expected, atol=REORDERED)
    assert other.names == LABELS and other.limits == {"sequence_length": 40}


@pytest.mark.parametrize("text", [("body",), ("body", "title"), ()])
def test_the_build_file_that_bring_writes_names_folder_and_texts(
    moods: Path, tmp_path: Path, text: tuple[str, ...]
) -> None:
    options = BringOptions(str(moods / "net"), moods / "rows.jsonl", labels="mood", text=text)
    file = tmp_path / "net.toml"
    file.write_text(build_text(options, "net", moods))
    build = read_build_file(file)
    assert build.brought is not None
    source, data = build.brought.source, build.brought.data
    assert (source.folder, source.exporters) == ("net", ("torchscript", "dynamo"))
    assert (data.rows, data.labels, data.values) == ("rows.jsonl", "mood", text)
    names = {one.name for one in files_of(build.brought, moods)}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "rows.jsonl"}


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def as_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_its_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if not k.startswith("classifier")}
    save_file(kept, file, {"format": "pt"})


def damaged(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def with_code(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["own.Tokens", None]}}
    file.write_text(json.dumps(values))


BAD = [
    (without("config.json"), r"net has no config\.json; expected a Hugging Face folder"),
    (damaged, r"config\.json is not JSON"),
    (without("tokenizer.json"), r"net has no tokenizer \(tokenizer\.json\)"),
    (without("model.safetensors"), r"net holds no weights; expected model\.safetensors"),
    (as_a_pickle, r"weights as a pickle \(pytorch_model\.bin\)"),
    (change_config(auto_map={"AutoModel": "own.Net"}), r"config\.json needs code of its own"),
    (with_code, r"tokenizer_config\.json needs code of its own \(auto_map\)"),
    (without_its_head, r"no weights for classifier\.bias, classifier\.weight.*never trained"),
    (change_config(architectures=["BertModel"]), "holds a BertModel; expected …ForSequence"),
    (change_config(architectures=None), "a model of no named architecture"),
    (change_config(id2label={"0": "a", "2": "b"}), "must name the classes 0, 1, …"),
    (change_config(id2label={"0": "a", "1": "a"}), "each once and differently"),
    (change_config(hidden_size=64), "cannot be opened by transformers|has no weights"),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_a_folder_that_cannot_be_brought_says_why_in_one_line(
    moods: Path, tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    shutil.copytree(moods / "net", tmp_path / "net")
    change(tmp_path / "net")
    with pytest.raises((ConfigError, CutError), match=says) as refused:
        read_folder(tmp_path / "net", SCRIPT)
    assert "\n" not in str(refused.value)


def test_classes_without_names_are_numbered_as_transformers_does(
    moods: Path, tmp_path: Path
) -> None:
    shutil.copytree(moods / "net", tmp_path / "net")
    change_config(id2label=None, label2id=None, num_labels=3)(tmp_path / "net")
    read = read_folder(tmp_path / "net", SCRIPT)
    assert read.names == ()
    assert any("LABEL_0, LABEL_1" in note for note in read.notes)
