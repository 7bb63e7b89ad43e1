"""A Hugging Face folder that was brought: it answers texts as transformers does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import folders
import numpy as np
import onnx
import pytest
from folders import LABELS, sentences
from moods import MODEL, ODD, SCRIPT, reference
from typer.testing import CliRunner

import skipserve
from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.cli import app
from skipserve.errors import ConfigError, InputError
from skipserve.preprocessing.opening import open_preprocessor
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.runtime.engine import Engine
from skipserve.samples import read_samples
from skipserve.service.service import Service
from skipserve.sources.columns import read_columns
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.sources.matching import match
from skipserve.sources.splits import Labelled
from skipserve.sources.values import values_of
from skipserve.tasks import Score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def brought(moods: Path) -> Artifact:
    return open_artifact(moods / "artifacts" / "moods")


@pytest.fixture(scope="module")
def engine(brought: Artifact) -> Engine:
    return Engine(brought, provider="cpu")


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
        return read_samples(file, None, ranker, values=values_of(ranker))

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
