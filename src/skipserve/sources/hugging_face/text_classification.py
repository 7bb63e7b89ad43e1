"""Text classification: ``…ForSequenceClassification`` of transformers, and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Source
from skipserve.errors import CutError
from skipserve.extras import require
from skipserve.graph.prepare import read_graph
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder, names_of, require_one_label
from skipserve.sources.hugging_face.tokens import (
    longest_of,
    most_places,
    open_tokenizer,
    prepared_texts,
)
from skipserve.sources.read import ReadSource

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FREE = {0: "batch", 1: "length"}
# Rows and tokens of the batches that graphs are compared and timed on.
SHAPES = ((2, 9), (1, 32), (8, 64), (1, 160))


def read_text_classifier(folder: Folder, exporters: Sequence[Exporter]) -> ReadSource:
    """A folder's network, names of its classes and tokenizer.

    Raises:
        ConfigError: If its task or tokenizer is none that can be brought, or its head was never
            trained.
        CutError: If the network cannot be exported.
    """
    require("tokenizers")
    require_one_label(folder, "text")
    names = names_of(folder.config)
    tokenizer = open_tokenizer(folder)
    notes: list[str] = []
    module: Any = None
    if folder.graph is not None:
        model = read_graph(folder.graph)
        given = {one.name for one in model.graph.input}
        inputs = tuple(one for one in INPUTS if one in given)
        if INPUTS[0] not in inputs:
            raise CutError(f"{folder.graph} takes {', '.join(sorted(given))}, and no {INPUTS[0]}")
    else:
        model, inputs, notes, module = _exported(folder, tokenizer, exporters)
    if not names:
        notes.append("config.json names no classes (id2label): they are called LABEL_0, LABEL_1, …")
    source = Source(kind="hugging_face", name=folder.path.name, sha256=folder.sha256())
    places = most_places(folder)
    return ReadSource(
        model,
        source,
        names,
        prepared_texts(folder, tokenizer, inputs),
        {} if places is None else {_length_of(model): places},
        tuple(notes),
        module,
    )


def _length_of(model: onnx.ModelProto) -> str:
    """What a graph calls the number of tokens of a row."""
    (ids,) = (one for one in model.graph.input if one.name == INPUTS[0])
    word: str = ids.type.tensor_type.shape.dim[1].dim_param
    return word


def _exported(
    folder: Folder, tokenizer: Any, exporters: Sequence[Exporter]
) -> tuple[onnx.ModelProto, tuple[str, ...], list[str], Any]:
    # Torch takes seconds to import; a folder that is refused does without.
    from skipserve.sources.hugging_face.exporting import InOrder, fastest
    from skipserve.sources.hugging_face.weights import load

    model = load(folder, "AutoModelForSequenceClassification")
    takes = inspect.signature(model.forward).parameters
    known = {*tokenizer.model_input_names, "attention_mask"}
    inputs = tuple(
        one
        for one in INPUTS
        if one in takes and one in known and (one != INPUTS[2] or _tells_types(model.config))
    )
    rng = np.random.default_rng(0)
    longest = longest_of(folder, tokenizer)
    trials = [
        _trial(rng, rows, min(length, longest), len(tokenizer), inputs) for rows, length in SHAPES
    ]
    module = InOrder(model, inputs).eval()
    free = [FREE for _ in inputs]
    exported, refused = fastest(module, trials, free, exporters, str(folder.path))
    notes = [f"graph of torch's {exported.exporter} exporter", *(f"not used: {r}" for r in refused)]
    return exported.model, inputs, notes, module


def _tells_types(config: Any) -> bool:
    return int(getattr(config, "type_vocab_size", 0) or 0) > 1


def _trial(
    rng: np.random.Generator, rows: int, length: int, words: int, inputs: tuple[str, ...]
) -> dict[str, NDArray[np.int64]]:
    """Random tokens of different length, padded."""
    real = np.maximum(2, length - np.arange(rows) % max(length // 2, 1))[:, None]
    mask = (np.arange(length) < real).astype(np.int64)
    ids = np.where(mask, rng.integers(0, words, (rows, length)), 0)
    columns = dict(zip(INPUTS, (ids, mask, np.zeros_like(mask)), strict=True))
    return {name: columns[name] for name in inputs}
