"""Text classification: ``…ForSequenceClassification`` of transformers, and its tokenizer.

Its answers are classes, sets of labels, or numbers; what is read of it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from skipserve.errors import CutError
from skipserve.extras import require
from skipserve.graph.prepare import read_graph
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder, names_of
from skipserve.sources.hugging_face.text_network import (
    INPUTS,
    TextNetwork,
    export_texts,
    inputs_of,
)
from skipserve.sources.hugging_face.tokens import open_tokenizer
from skipserve.sources.read import ReadSource

NO_NAMES = "config.json names no classes (id2label): they are called LABEL_0, LABEL_1, …"


def read_text_classifier(folder: Folder, exporters: Sequence[Exporter]) -> ReadSource:
    """A folder's network, names of its classes and tokenizer.

    Raises:
        ConfigError: If its tokenizer is none that can be brought, or its head was never trained.
        CutError: If the network cannot be exported.
    """
    require("tokenizers")
    names = names_of(folder.config)
    tokenizer = open_tokenizer(folder)
    if folder.graph is not None:
        network = _given(folder)
    else:
        network = _exported(folder, tokenizer, exporters)
    if not names:
        network = replace(network, notes=(*network.notes, NO_NAMES))
    return network.read(folder, tokenizer, names)


def _given(folder: Folder) -> TextNetwork:
    """The ONNX graph in the folder."""
    assert folder.graph is not None
    model = read_graph(folder.graph)
    given = {one.name for one in model.graph.input}
    inputs = tuple(one for one in INPUTS if one in given)
    if INPUTS[0] not in inputs:
        raise CutError(f"{folder.graph} takes {', '.join(sorted(given))}, and no {INPUTS[0]}")
    return TextNetwork(model, inputs)


def _exported(folder: Folder, tokenizer: Any, exporters: Sequence[Exporter]) -> TextNetwork:
    # Torch takes seconds to import; a folder that is refused does without.
    from skipserve.sources.hugging_face.exporting import InOrder
    from skipserve.sources.hugging_face.weights import load

    model = load(folder, "AutoModelForSequenceClassification")
    module = InOrder(model, inputs_of(model, tokenizer)).eval()
    return export_texts(folder, tokenizer, module, exporters)
