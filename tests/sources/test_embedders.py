"""Hugging Face folders of embeddings: pooled as they say, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from folders import SHORTER, given_by, origin_of, sentences

from skipserve.errors import ConfigError
from skipserve.graph.memory import open_model
from skipserve.preprocessing.opening import preprocessor_of
from skipserve.sources.hugging_face.folder import open_folder
from skipserve.sources.hugging_face.reading import read_folder
from skipserve.tasks import Embed

pytestmark = pytest.mark.slow


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
