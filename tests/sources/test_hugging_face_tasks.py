"""Hugging Face folders beyond classes: the task that each proposes, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folders
import numpy as np
import picture_folders
import pytest
import torch
from folders import LABELS, given_by, origin_of, sentences
from typer.testing import CliRunner

from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.cli import app
from skipserve.errors import ConfigError
from skipserve.sources.columns import read_columns
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.sources.labels import read_labels
from skipserve.tasks import Classify, MultiLabel, Regress, Score

pytestmark = pytest.mark.slow


TEXT, PICTURE = "BertForSequenceClassification", "ViTForImageClassification"
MANY = {"id2label": {"0": "a", "1": "b", "2": "c"}}
ONE = {"id2label": {"0": "LABEL_0"}}
CROSS = {"sentence_transformers": {"version": "5.0.0"}}
OLD_CROSS = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
SEVERAL = {"problem_type": "multi_label_classification"}
NUMBERS = {"problem_type": "regression"}


def settings_alone(folder: Path, **config: Any) -> Path:
    """A folder that holds settings, and of weights only the name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize(
    ("architecture", "config", "pairs", "kind"),
    [
        (TEXT, MANY, False, "classify"),
        (TEXT, {}, False, "classify"),  # transformers leaves two labels without names out
        (TEXT, MANY | SEVERAL, False, "multilabel"),
        (TEXT, ONE | SEVERAL, False, "multilabel"),
        (TEXT, MANY | NUMBERS, False, "regress"),
        (TEXT, MANY | NUMBERS, True, "regress"),
        (TEXT, ONE, False, "regress"),
        (TEXT, {"num_labels": 1}, False, "regress"),
        (TEXT, ONE, True, "score"),
        (TEXT, ONE | NUMBERS, True, "score"),
        (TEXT, ONE | CROSS, False, "score"),
        (TEXT, ONE | OLD_CROSS, False, "score"),
        (TEXT, MANY | CROSS, True, "classify"),
        (PICTURE, MANY, False, "classify"),
        (PICTURE, MANY | SEVERAL, False, "multilabel"),
        (PICTURE, ONE, False, "regress"),
    ],
)
def test_a_folder_proposes_its_task(
    tmp_path: Path, architecture: str, config: dict[str, Any], pairs: bool, kind: str
) -> None:
    settings_alone(tmp_path / "net", architectures=[architecture], **config)
    said = {"tolerance": 0.5} if kind in ("regress", "score") else {}
    assert task_of(tmp_path / "net", said, "task", pairs).kind == kind
    # Whoever says otherwise is right.
    assert task_of(tmp_path / "net", {"kind": "embed"}, "task", pairs).kind == "embed"


def test_modules_make_a_folder_one_of_embeddings(tmp_path: Path) -> None:
    net = settings_alone(tmp_path / "net", architectures=["BertForMaskedLM"])
    (net / "modules.json").write_text("[]")
    assert task_of(net, {}, "task").kind == "embed"
    settings_alone(net, architectures=[TEXT], **MANY)
    assert task_of(net, {}, "task").kind == "classify"


@pytest.mark.parametrize("kind", ["regress", "score"])
def test_a_number_needs_a_tolerance(tmp_path: Path, kind: str) -> None:
    net = settings_alone(tmp_path / "net", architectures=[TEXT], **ONE)
    pair = ("one", "other") if kind == "score" else ("body",)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "ba", "one": "ba", "other": "de"}\n')
    asked = ["bring", str(net), "--data", str(rows)]
    asked += [part for name in pair for part in ("--text", name)]
    refused = CliRunner().invoke(app, asked)
    assert isinstance(refused.exception, ConfigError)
    said = str(refused.exception)
    assert f"{kind} needs a tolerance: the largest difference from full depth" in said
    assert "--tolerance" in said and "\n" not in said
    with pytest.raises(ConfigError, match=r"regress needs a tolerance.*--tolerance"):
        build_text(BringOptions(str(net), rows, task="regress"), "net", tmp_path)


def build_file(root: Path, **wanted: Any) -> Path:
    file = root / "export" / "net.toml"
    file.parent.mkdir(exist_ok=True)
    asked = BringOptions(str(root / "net"), root / "rows.jsonl", **wanted)
    file.write_text(build_text(asked, "net", root))
    return file


def test_the_build_file_says_what_the_folder_proposes_or_what_was_asked(tmp_path: Path) -> None:
    settings_alone(tmp_path / "net", architectures=[TEXT], **ONE)
    file = build_file(tmp_path, text=("one", "other"), tolerance=0.25)
    assert 'kind = "score"' in file.read_text() and "tolerance = 0.25" in file.read_text()
    build = read_build_file(file)
    assert build.brought is not None and build.brought.task.kind == "score"
    assert build.router is not None and build.router.signal == "agreement"
    assert 'kind = "regress"' in build_file(tmp_path, text=("body",), tolerance=1.0).read_text()
    settings_alone(tmp_path / "net", architectures=[TEXT], **MANY, **SEVERAL)
    assert 'kind = "multilabel"' in build_file(tmp_path).read_text()
    assert 'kind = "classify"' in build_file(tmp_path, task="classify").read_text()


def test_a_build_file_may_leave_the_kind_to_the_folder(tmp_path: Path) -> None:
    settings_alone(tmp_path / "net", architectures=[TEXT], **MANY, **SEVERAL)
    text = 'name = "net"\n[source]\nfolder = "net"\n[data]\nrows = "rows.jsonl"\n[router]\n'
    file = tmp_path / "net.toml"
    file.write_text(text)
    build = read_build_file(file)
    assert build.brought is not None and build.brought.task.kind == "multilabel"
    assert build.router is not None and build.router.signal == "margin"
    file.write_text(f"{text}[tuning]\n")
    with pytest.raises(ConfigError, match=r"tuning. is for classifiers, and .* multilabel"):
        read_build_file(file)
    file.write_text(text)
    settings_alone(tmp_path / "net", architectures=[TEXT], **ONE)
    with pytest.raises(ConfigError, match="answers with numbers, and regress needs a tolerance"):
        read_build_file(file)
    file.write_text(f"{text}[task]\ntolerance = 0.5\n")
    brought = read_build_file(file).brought
    assert brought is not None and (brought.task.kind, brought.task.tolerance) == ("regress", 0.5)
    file.write_text(f"{text}[task]\ntolerence = 0.5\nkind = 'regress'\n")
    with pytest.raises(ConfigError, match="did you mean 'tolerance'"):
        read_build_file(file)


def test_several_labels_are_a_set(tmp_path: Path) -> None:
    net = folders.write(tmp_path / "net", **SEVERAL)
    texts = sentences(300)
    chances = given_by(net, tmp_path / "net", texts)[0].logits.sigmoid().numpy()
    sets = chances >= 0.5
    named = [[LABELS[i] for i in np.flatnonzero(one)] for one in sets]
    assert [] in named and max(map(len, named)) > 1
    columns = {"names": named, "flags": sets.tolist(), "ones": sets.astype(int).tolist()}
    first = named.index([])  # what a column holds is not told by its first row
    order = [first, *(i for i in range(len(texts)) if i != first)]
    rows = {name: [column[i] for i in order] for name, column in columns.items()}
    folders.write_rows(tmp_path / "rows.jsonl", [texts[i] for i in order], **rows)
    origin, splits = origin_of(tmp_path, text="body", labels="names")
    assert origin.expected.task == MultiLabel(count=3, names=LABELS)
    test = [texts.index(text) for text in splits.test.values]
    np.testing.assert_allclose(
        origin.expected.answers, chances[test][: len(origin.expected.answers)], atol=1e-4
    )
    np.testing.assert_array_equal(splits.test.labels, sets[test])
    found = read_columns(tmp_path / "rows.jsonl")
    for name in columns:
        labels = read_labels(found, name, "rows.jsonl", LABELS)
        np.testing.assert_array_equal(labels, sets[order])
    # Who says otherwise gets it, with its own labels.
    with pytest.raises(ConfigError, match="labels must have shape"):
        origin_of(tmp_path, {"kind": "classify"}, text="body", labels="names")
    task = origin_of(tmp_path, {"kind": "classify"}, text="body")[0].expected.task
    assert task == Classify(classes=3, names=LABELS)


def test_a_label_of_a_set_that_is_not_there_names_its_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"mood": []}\n{"mood": ["glad", "sad"]}\n')
    with pytest.raises(ConfigError, match=r"row 1 of 'mood' has 'sad'.*labels: calm, glad, grim"):
        read_labels(read_columns(file), "mood", file.name, LABELS)


def test_one_number_is_a_value_and_of_pairs_a_score(tmp_path: Path) -> None:
    net = folders.write(tmp_path / "net", id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    texts, others = sentences(300), sentences(300, seed=1)
    folders.write_rows(tmp_path / "rows.jsonl", texts, other=others)
    for text, task in (("body", Regress(tolerance=0.1)), (("body", "other"), Score(tolerance=0.1))):
        origin, splits = origin_of(tmp_path, {"tolerance": 0.1}, text=text)
        assert origin.expected.task == task
        values = list(splits.test.values)[: len(origin.expected.answers)]
        given, _ = given_by(net, tmp_path / "net", values)
        np.testing.assert_allclose(origin.expected.answers, given.logits.numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match="no label makes right or wrong"):
        folders.write_rows(tmp_path / "rows.jsonl", texts, value=[1] * 300)
        origin_of(tmp_path, {"tolerance": 0.1}, text="body", labels="value")


def test_a_picture_may_have_several_labels(tmp_path: Path) -> None:
    net = picture_folders.write(tmp_path / "net", "vit", **SEVERAL)
    files = picture_folders.write_classes(tmp_path / "pictures", 240)
    names = picture_folders.LABELS
    lines = [
        json.dumps({"file": str(file.relative_to(tmp_path)), "has": [names[i % 3], names[0]]})
        for i, file in enumerate(files)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    origin, splits = origin_of(tmp_path, picture="file", labels="has")
    assert origin.expected.task == MultiLabel(count=3, names=names)
    assert splits.test.labels[:, 0].all()
    tensors = origin.expected.rows.tensors["pixel_values"]
    with torch.no_grad():
        chances = net(pixel_values=torch.from_numpy(tensors)).logits.sigmoid().numpy()
    np.testing.assert_allclose(origin.expected.answers, chances, atol=1e-4)
