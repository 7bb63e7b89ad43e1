"""Hugging Face folders: read as transformers reads them, brought, served and asked for texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import folders
import numpy as np
import onnx
import pytest
import torch
from folders import FAMILIES, LABELS, LONGEST, sentences
from small_project import REORDERED
from small_router import small_router
from typer.testing import CliRunner

import skipserve
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.bring_file import BringOptions, build_text
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.cli import app
from skipserve.errors import ConfigError, CutError, InputError
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare
from skipserve.preprocessing.opening import open_preprocessor, preprocessor_of
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.runtime.engine import Engine
from skipserve.samples import read_samples
from skipserve.service.service import Service
from skipserve.sources.columns import read_columns
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.sources.matching import match
from skipserve.sources.read import ReadSource
from skipserve.sources.splits import Labelled
from skipserve.sources.values import values_of
from skipserve.tasks import Score

pytestmark = pytest.mark.slow

ODD = [
    "",
    "   ",
    "\t\n",
    "🙂 ba de 🙃🙃",
    "שלום עולם",
    "مرحبا بالعالم",
    "ba\u0301 de\u0301 \u200b fa\ufeff",
    "\x00\x01ba",
    "[CLS] ba [SEP] de [MASK]",
    "BA De fOr",
    "漢字かな交じり文",
    "ba" * 300,
    "ba de fi go lu " * 7_000,
]
SCRIPT: tuple[Exporter, ...] = ("torchscript",)
MODEL = (
    """
name = "moods"
[source]
folder = "net"
exporters = ["torchscript"]
[data]
rows = "rows.jsonl"
text = "body"
labels = "mood"
"""
    + small_router(0, 2, 4)
    + """\
max_rows = 64
"""
)


def prepared(read: ReadSource, folder: Path) -> Any:
    assert read.prepared is not None
    folder.mkdir(exist_ok=True)
    for name, content in read.prepared.files.items():
        (folder / name).write_bytes(content)
    return preprocessor_of(read.prepared.config, folder)


def logits(net: torch.nn.Module, folder: Path, texts: list[Any]) -> Any:
    """What transformers itself makes of texts or pairs, truncated as its pipeline does."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        return net(**tokens).logits.numpy()


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


@pytest.fixture(scope="session")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that a small BERT was brought to, with texts and the labels it gives them."""
    root = tmp_path_factory.mktemp("moods")
    net = folders.write(root / "net")
    texts = sentences(900)
    given = logits(net, root / "net", texts).argmax(axis=1)
    folders.write_rows(root / "rows.jsonl", texts, mood=[LABELS[label] for label in given])
    (root / "export").mkdir()
    (root / "export" / "moods.toml").write_text(MODEL)
    build = read_build_file(root / "export" / "moods.toml")
    run_steps(build, lambda epoch: None, lambda line: None)
    return root


@pytest.fixture(scope="session")
def brought(moods: Path) -> Artifact:
    return open_artifact(moods / "artifacts" / "moods")


@pytest.fixture(scope="session")
def engine(brought: Artifact) -> Engine:
    return Engine(brought, provider="cpu")


def reference(root: Path, texts: list[Any]) -> Any:
    from transformers import AutoModelForSequenceClassification

    net = AutoModelForSequenceClassification.from_pretrained(root / "net").eval()
    return torch.from_numpy(logits(net, root / "net", texts)).softmax(dim=-1).numpy()


def test_what_was_brought_answers_strings_as_transformers_does(moods: Path, engine: Engine) -> None:
    texts: list[Any] = [*sentences(40, seed=1), *ODD]
    answers = engine.predict(texts)
    np.testing.assert_allclose(answers.answers, reference(moods, texts), atol=1e-4)
    assert engine.manifest.task.names == LABELS
    assert (answers.depth_run == engine.manifest.depth).all()
    routed = engine.predict(texts, risk=0.2)
    assert len({*routed.depth_run.tolist()}) > 1


def test_every_text_of_a_batch_is_answered_as_if_alone(engine: Engine) -> None:
    service = Service(engine, ServingConfig(risk=0.2, max_rows=64, evidence=0))

    def ask(texts: list[str]) -> RawRequest:
        return RawRequest(json.dumps({"inputs": texts}).encode(), {"content-type": JSON})

    requests = [ask(sentences(count, seed=count)) for count in (1, 30, 2, 9)]
    for request, reply in zip(requests, service.answer(requests), strict=True):
        alone = service.answer([request])[0]
        for got, expected in zip(
            *(json.loads(one.body)["outputs"] for one in (reply, alone)), strict=True
        ):
            assert got.pop("probabilities") == pytest.approx(
                expected.pop("probabilities"), abs=1e-4
            )
            assert got == expected


def test_the_manifest_shows_texts(brought: Artifact, moods: Path) -> None:
    manifest = brought.manifest
    lines = [json.loads(line) for line in (moods / "rows.jsonl").read_text().splitlines()]
    texts = {line["body"] for line in lines}
    assert manifest.example.value in texts
    (expected,) = reference(moods, [manifest.example.value])
    np.testing.assert_allclose(manifest.example.answer, expected, atol=1e-4)
    assert manifest.depths is not None and manifest.depths.values is not None
    assert {*manifest.depths.values} <= texts
    prepare_texts = Engine(brought, provider="cpu").inputs.prepare
    for value, row in zip(
        manifest.depths.values, (manifest.depths.shallow, manifest.depths.deep), strict=True
    ):
        made = prepare_texts([value])
        assert {name: (*tensor[0].tolist(),) for name, tensor in made.tensors.items()} == row
    sizes = manifest.signature.largest, [one.count for one in manifest.signature.inputs]
    assert sizes == ({"length": 40}, [len(folders.tokenizer().get_vocab()), None, 2])


@pytest.mark.parametrize(
    ("change", "code", "row", "says"),
    [
        ({"input_ids": [[1, 2], [3, 173]]}, "out_of_range", 1, "row 1 of 'input_ids' holds 173"),
        ({"input_ids": [[-1, 2], [3, 4]]}, "out_of_range", 0, "moods knows 0 … 172"),
        ({"token_type_ids": [[0, 0], [0, 2]]}, "out_of_range", 1, "moods knows 0 … 1"),
    ],
)
def test_tokens_that_the_network_does_not_know_are_refused(
    engine: Engine, change: dict[str, Any], code: str, row: int, says: str
) -> None:
    names = [one.name for one in engine.manifest.signature.inputs]
    rows = {name: [[1, 1], [1, 1]] for name in names} | change
    service = Service(engine, ServingConfig())
    body = json.dumps({"inputs": rows}).encode()
    (reply,) = service.answer([RawRequest(body, {"content-type": JSON})])
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["row"]) == (400, code, row)
    assert says in error["message"]


def test_rows_beyond_the_last_position_are_refused(engine: Engine) -> None:
    names = [one.name for one in engine.manifest.signature.inputs]
    rows = {name: np.ones((1, 41), np.int64) for name in names}
    with pytest.raises(InputError, match="length of 'input_ids' is 41, moods takes 40 at most"):
        engine.check(rows)


@pytest.mark.parametrize("top_k", ["", None, 1, 2])
@pytest.mark.parametrize(
    "inputs",
    [
        "ba de fi",
        ["ba de fi"],
        ["ba de fi", "go", ODD[-1]],
        {"text": "ba", "text_pair": "de lu"},
        [{"text": "ba", "text_pair": "de lu"}, {"text": "fi"}],
    ],
    ids=["text", "one", "some", "pair", "pairs"],
)
def test_a_pipeline_answers_as_transformers_does(
    moods: Path, monkeypatch: pytest.MonkeyPatch, inputs: Any, top_k: Any
) -> None:
    import transformers

    monkeypatch.chdir(moods)
    asked = {} if top_k == "" else {"top_k": top_k}
    theirs = transformers.pipeline("text-classification", str(moods / "net"))
    expected = theirs(inputs, truncation=True, **asked)
    got = skipserve.pipeline("text-classification", "moods")(inputs, **asked)

    def compare(one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, list):
            assert len(one) == len(other)
            for some in zip(one, other, strict=True):
                compare(*some)
        else:
            assert one.keys() == other.keys() and one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)

    compare(got, expected)


def test_a_pipeline_routes_and_refuses(
    moods: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact
) -> None:
    monkeypatch.chdir(moods)
    routed = skipserve.pipeline("text-classification", "moods", risk=0.2)
    full = skipserve.pipeline("sentiment-analysis", moods / "artifacts" / "moods")
    texts = sentences(200, seed=2)
    got, expected = routed(texts), full(texts)
    differ = [one["label"] != other["label"] for one, other in zip(got, expected, strict=True)]
    assert np.mean(differ) <= 0.2 and got != expected
    assert routed([]) == []
    with pytest.raises(InputError, match="row 1 is a number"):
        routed(["ba", 3])
    with pytest.raises(ConfigError, match="no pipeline for 'summarization'"):
        skipserve.pipeline("summarization", "moods")
    with pytest.raises(ConfigError, match=r"'mood' is no artifact.*did you mean 'moods'"):
        skipserve.pipeline("text-classification", "mood")
    with pytest.raises(ConfigError, match="small takes no texts"):
        skipserve.pipeline("text-classification", artifact.directory)


def test_predict_answers_a_file_of_texts(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(moods)
    texts = sentences(20, seed=3)
    rows = folders.write_rows(tmp_path / "asked.jsonl", texts, title=["no text"] * 20)
    out = tmp_path / "answers.jsonl"
    asked = ["predict", "moods", str(rows), "--out", str(out)]
    done = CliRunner().invoke(app, [*asked, "--text", "body"])
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in out.read_text().splitlines()]
    expected = reference(moods, texts)
    assert [one["name"] for one in told] == [LABELS[i] for i in expected.argmax(axis=1)]
    # The column was named in the build file.
    again = tmp_path / "again.jsonl"
    assert CliRunner().invoke(app, [*asked[:-1], str(again)]).exit_code == 0
    assert again.read_text() == out.read_text()
    rows.write_text(rows.read_text().replace('"body"', '"text"'))
    unnamed = CliRunner().invoke(app, asked)
    assert "2 columns of texts among 'text', 'title'" in str(unnamed.exception)


def test_samples_of_a_ranker_are_the_pairs_that_it_was_built_with(
    brought: Artifact, tmp_path: Path
) -> None:
    task = {"task": Score(tolerance=1, top=1), "query": "query"}
    file = tmp_path / "later.jsonl"
    lines = [{"query": "ba", "passage": "de"}, {"query": "ba", "passage": "fi"}]
    file.write_text("\n".join(map(json.dumps, lines)))

    def samples(**fields: object) -> Labelled:
        manifest = brought.manifest.model_copy(update={**task, **fields})
        ranker = replace(brought, manifest=manifest)
        return read_samples(file, None, manifest, values=values_of(ranker))

    found = samples(columns=("query", "passage"))
    expected = open_preprocessor(brought)
    assert expected is not None
    for name, rows in expected([list(line.values()) for line in lines]).items():
        np.testing.assert_array_equal(found.rows.tensors[name], rows)
    assert found.queries is not None and found.queries[0] == found.queries[1]
    # An older artifact does not say which they were: the passages alone are not taken for it.
    with pytest.raises(ConfigError, match="2 columns of texts among 'query', 'passage'"):
        samples(columns=())


def test_a_manifest_says_only_what_was_named(brought: Artifact) -> None:
    said = json.loads((brought.directory / MANIFEST).read_text())
    assert said["columns"] == ["body"] and "query" not in said
    assert brought.manifest.columns == ("body",)
    plain = brought.manifest.model_copy(update={"columns": ()})
    assert said.keys() - json.loads(plain.model_dump_json()).keys() == {"columns"}


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
    names = {one.name for one in build.brought.files(moods)}
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


DATA = [
    ({"mood": ["sad"] * 300}, "row 0 of 'mood' is 'sad'.*none of the model's labels: calm, glad"),
    ({"moods": [0] * 300}, "no column 'mood' of labels; did you mean 'moods'"),
    ({"mood": [0] * 300, "body": list(range(300))}, "column 'body' holds int64, expected texts"),
    ({"mood": [0] * 300, "body": ["ba"] * 299 + [None]}, "row 299 of column 'body' is empty"),
    ({"mood": [0] * 300, "bodies": ["ba"] * 300, "body": None}, "no column 'body' of texts"),
    ({"mood": [0] * 300, "body": ["ba"] * 299 + ["b" * 262_145]}, "row 299 has 262,145 characters"),
]


def write_whole(file: Path, columns: dict[str, Any]) -> Path:
    whole = {"body": sentences(300), **columns}
    names = [name for name, column in whole.items() if column is not None]
    lines = [json.dumps({name: whole[name][i] for name in names}) for i in range(300)]
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize(("columns", "says"), DATA)
def test_data_that_does_not_fit_says_so_in_one_line(
    brought: Artifact, tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    file = write_whole(tmp_path / "rows.jsonl", columns)
    with pytest.raises(ConfigError, match=says) as refused:
        match(
            read_columns(file),
            brought.manifest.signature,
            {},
            "mood",
            file.name,
            values_of(brought, ["body"]),
        )
    assert "\n" not in str(refused.value)


def test_labels_beyond_the_classes_and_texts_for_a_network_of_tensors_are_refused(
    moods: Path, tmp_path: Path
) -> None:
    shutil.copytree(moods / "net", tmp_path / "net")
    write_whole(tmp_path / "rows.jsonl", {"mood": [7] * 300})
    build = tmp_path / "moods.toml"
    build.write_text(MODEL)
    with pytest.raises(ConfigError, match="row 0 has class 7, the network knows 0 … 2"):
        run_steps(read_build_file(build), lambda epoch: None, lambda line: None)
    onnx.save(read_folder(tmp_path / "net", SCRIPT).model, tmp_path / "net.onnx")
    build.write_text(MODEL.replace('folder = "net"', 'onnx = "net.onnx"'))
    with pytest.raises(ConfigError, match=r"names 'body', but the network takes tensors alone"):
        run_steps(read_build_file(build), lambda epoch: None, lambda line: None)
