"""What all networks of texts share: the inputs they take, and their export."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Source
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder
from skipserve.sources.hugging_face.tokens import longest_of, most_places, prepared_texts
from skipserve.sources.read import ReadSource

if TYPE_CHECKING:
    from skipserve.sources.hugging_face.exporting import InOrder

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FREE = {0: "batch", 1: "length"}
# Rows and tokens of the batches that graphs are compared and timed on.
SHAPES = ((2, 9), (1, 32), (8, 64), (1, 160))


@dataclass(frozen=True)
class TextNetwork:
    """A network of texts.

    Attributes:
        model: Its graph.
        inputs: Those of ``INPUTS`` that it takes.
        notes: On how it was exported.
        module: The torch module, where it came from one.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    module: Any = None

    def read(self, folder: Folder, tokenizer: Any, names: tuple[str, ...] = ()) -> ReadSource:
        """The same with its tokenizer, the names of its classes and its longest row."""
        places = most_places(folder)
        return ReadSource(
            self.model,
            Source(kind="hugging_face", name=folder.name, sha256=folder.sha256()),
            names,
            prepared_texts(folder, tokenizer, self.inputs),
            {} if places is None else {_length_of(self.model): places},
            self.notes,
            self.module,
        )


def inputs_of(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Inputs of a network of transformers that its tokenizer makes."""
    takes = inspect.signature(model.forward).parameters
    known = {*tokenizer.model_input_names, "attention_mask"}
    return tuple(
        one
        for one in INPUTS
        if one in takes and one in known and (one != INPUTS[2] or _tells_types(model.config))
    )


def export_texts(
    folder: Folder, tokenizer: Any, module: InOrder, exporters: Sequence[Exporter]
) -> TextNetwork:
    """Export a torch module that takes tokens.

    Raises:
        ConfigError: If nothing says how long a text may be.
        CutError: If it cannot be exported.
    """
    # Torch takes seconds to import; a folder that is refused does without.
    from skipserve.sources.hugging_face.exporting import fastest

    inputs = module.names
    rng = np.random.default_rng(0)
    longest = longest_of(folder, tokenizer)
    trials = [
        _trial(rng, rows, min(length, longest), len(tokenizer), inputs) for rows, length in SHAPES
    ]
    free = [FREE for _ in inputs]
    exported, refused = fastest(module, trials, free, exporters, str(folder.path))
    notes = [f"graph of torch's {exported.exporter} exporter", *(f"not used: {r}" for r in refused)]
    return TextNetwork(exported.model, inputs, tuple(notes), module)


def _length_of(model: onnx.ModelProto) -> str:
    """What a graph calls the number of tokens of a row."""
    (ids,) = (one for one in model.graph.input if one.name == INPUTS[0])
    word: str = ids.type.tensor_type.shape.dim[1].dim_param
    return word


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
