"""Hugging Face folders beyond classes: the task that each proposes, and what it answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import picture_folders
import pytest
import torch
from folders import LABELS, SHORTER, sentences
from typer.testing import CliRunner

from skipserve.artifacts.origin import Origin
from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.cli import app
from skipserve.errors import ConfigError
from skipserve.graph.memory import open_model
from skipserve.preprocessing.opening import preprocessor_of
from skipserve.sources.brought import brought_origin
from skipserve.sources.columns import read_columns
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.sources.hugging_face.folder import open_folder
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.sources.labels import read_labels
from skipserve.sources.splits import Splits
from skipserve.tasks import Classify, Embed, MultiLabel, Regress, Score

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


def origin_of(root: Path, said: dict[str, Any] | None = None, **data: Any) -> tuple[Origin, Splits]:
    """What is made of the folder ``net`` and the rows in ``rows.jsonl``; nothing is certified."""
    source = SourceConfig(folder="net", exporters=("torchscript",))
    rows = DataConfig(**({"rows": "rows.jsonl"} | data))
    task = task_of(root / "net", said or {}, "task", pairs=len(rows.values) > 1)
    return brought_origin(Brought(source=source, data=rows, task=task), root)


def given_by(net: torch.nn.Module, folder: Path, texts: list[Any], **options: Any) -> Any:
    """What transformers itself gives for texts or pairs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, truncation=True, padding=True, return_tensors="pt", **options)
    with torch.no_grad():
        return net(**tokens), tokens["attention_mask"]


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


def pooled(tokens: Any, mask: Any, mode: str, unit: bool) -> Any:
    """What is pooled row by row, of the real tokens alone."""
    how: dict[str, Callable[[Any], Any]] = {
        "mean": lambda real: real.mean(axis=0),
        "cls": lambda real: real[0],
        "max": lambda real: real.max(axis=0),
    }
    rows = [how[mode](one[: int(n)]) for one, n in zip(tokens, mask.sum(axis=1), strict=True)]
    vectors = np.stack(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if unit else vectors


@pytest.mark.parametrize(
    ("mode", "unit"), [("mean", True), ("mean", False), ("cls", True), ("max", False)]
)
def test_a_vector_is_what_transformers_and_the_pooling_make(
    tmp_path: Path, mode: str, unit: bool
) -> None:
    net = folders.write_embedder(tmp_path / "net", mode, unit)
    read = read_folder(tmp_path / "net", ("torchscript",))
    assert read.prepared is not None and read.names == ()
    (tmp_path / "tokens").mkdir()
    for name, content in read.prepared.files.items():
        (tmp_path / "tokens" / name).write_bytes(content)
    prepare = preprocessor_of(read.prepared.config, tmp_path / "tokens")
    session = open_model(read.model)
    for texts in (sentences(9), ["ba"], ["ba", "de fi go " * 40]):
        given, mask = given_by(net, tmp_path / "net", texts, max_length=SHORTER)
        expected = pooled(given.last_hidden_state.numpy(), mask.numpy(), mode, unit)
        (got,) = session.run(None, dict(prepare(texts)))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def without_pooler(net: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = net / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if not k.startswith("pooler")}
    save_file(kept, file, {"format": "pt"})


def test_embeddings_are_brought_and_need_no_pooler(tmp_path: Path) -> None:
    folders.write_embedder(tmp_path / "net", "mean", unit=True)
    without_pooler(tmp_path / "net")
    # As its version 5.4 writes it.
    pooling = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
    (tmp_path / "net" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": {"query": "ask: ", "document": ""}}
    (tmp_path / "net" / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    folders.write_rows(tmp_path / "rows.jsonl", sentences(300))
    origin, splits = origin_of(tmp_path)
    assert origin.expected.task == Embed(dimensions=32, unit=True)
    assert splits.test.rows.tensors["input_ids"].shape[1] <= SHORTER
    assert any("prompts (query) are not put before texts" in note for note in origin.notes)
    files = {file.relative_to(tmp_path / "net") for file in open_folder(tmp_path / "net").files()}
    assert Path("1_Pooling/config.json") in files


def modules(*kinds: str, first: str = "") -> Callable[[Path], None]:
    def change(net: Path) -> None:
        listed = [
            {"path": f"{i}_{kind}" if i else first, "type": kind} for i, kind in enumerate(kinds)
        ]
        (net / "modules.json").write_text(json.dumps(listed))

    return change


def pooling(**changes: Any) -> Callable[[Path], None]:
    def change(net: Path) -> None:
        (net / "1_Pooling" / "config.json").write_text(json.dumps(changes))

    return change


def lowered(net: Path) -> None:
    (net / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    file = net / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": None}))


def as_a_graph(net: Path) -> None:
    (net / "model.safetensors").rename(net / "model.onnx")


OURS = "sentence_transformers.models."
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "dense": (
        modules(*(OURS + kind for kind in ("Transformer", "Pooling", "Dense"))),
        "lists Transformer, Pooling, Dense; expected Transformer, Pooling and perhaps Normalize",
    ),
    "own code": (modules("own.Transformer", f"{OURS}Pooling"), r"lists own\.Transformer, Pooling"),
    "old layout": (
        modules(f"{OURS}Transformer", f"{OURS}Pooling", first="0_BERT"),
        "has its Transformer in 0_BERT; expected it in the folder itself",
    ),
    "no list": (lambda net: (net / "modules.json").write_text("{}"), "holds no list of modules"),
    "two modes": (
        pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=True),
        "pools by cls and mean; expected one of mean, cls, max",
    ),
    "another mode": (pooling(pooling_mode="lasttoken"), "pools by lasttoken; expected one of"),
    "another flag": (pooling(pooling_mode_weightedmean_tokens=True), "pools by weightedmean_token"),
    "no mode": (lambda net: shutil.rmtree(net / "1_Pooling"), "pools by nothing; expected one of"),
    "prompts": (pooling(pooling_mode="mean", include_prompt=False), "include_prompt = false"),
    "lowered": (lowered, r"lowers texts before they are tokenized \(do_lower_case\)"),
    "graph": (as_a_graph, r"weights in model\.onnx alone, which pools nothing"),
    "no modules": (
        lambda net: (net / "modules.json").unlink(),
        "holds a BertModel; expected .* a model without a head the modules.json .* pooled",
    ),
}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder")
    folders.write_embedder(folder, "mean", unit=True)
    return folder


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_pools_otherwise_is_refused_in_one_line(
    what: str, embedder: Path, tmp_path: Path
) -> None:
    change, says = BAD[what]
    shutil.copytree(embedder, tmp_path / "net")
    change(tmp_path / "net")
    with pytest.raises(ConfigError, match=says) as refused:
        read_folder(tmp_path / "net", ("torchscript",))
    assert "\n" not in str(refused.value)
