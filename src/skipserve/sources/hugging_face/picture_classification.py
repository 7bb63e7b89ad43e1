"""Picture classification: ``…ForImageClassification`` of transformers, and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Source
from skipserve.artifacts.origin import Prepared
from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.graph.prepare import read_graph
from skipserve.preprocessing.picture_config import PictureInput
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder, names_of
from skipserve.sources.hugging_face.processor import FILE, picture_input, read_processor
from skipserve.sources.read import ReadSource

INPUT = "pixel_values"
FREE = {0: "batch"}
# Rows of the batches that graphs are compared and timed on.
ROWS = (2, 1, 8)


def read_picture_classifier(folder: Folder, exporters: Sequence[Exporter]) -> ReadSource:
    """A folder's network, names of its classes and processor.

    Raises:
        ConfigError: If its processor is none that can be brought, or its head was never trained.
        CutError: If the network cannot be exported.
    """
    require("PIL")
    names = names_of(folder.config)
    pictures = picture_input(
        read_processor(folder.path),
        str(folder.path / FILE),
        channels=int(folder.config.get("num_channels", 3)),
    )
    notes: list[str] = []
    module: Any = None
    if folder.graph is not None:
        model = _sized(read_graph(folder.graph), pictures)
        given = [one.name for one in model.graph.input]
        if given != [INPUT]:
            raise ConfigError(
                f"{folder.graph} takes {', '.join(given)}; expected {INPUT} and nothing else"
            )
    else:
        model, notes, module = _exported(folder, pictures, exporters)
    if not names:
        notes.append("config.json names no classes (id2label): they are called LABEL_0, LABEL_1, …")
    source = Source(kind="hugging_face", name=folder.name, sha256=folder.sha256())
    return ReadSource(model, source, names, Prepared(pictures, {}), {}, tuple(notes), module)


def _exported(
    folder: Folder, pictures: PictureInput, exporters: Sequence[Exporter]
) -> tuple[onnx.ModelProto, list[str], Any]:
    # Torch takes seconds to import; a folder that is refused does without.
    from skipserve.sources.hugging_face.exporting import InOrder, fastest
    from skipserve.sources.hugging_face.weights import load

    model = load(folder, "AutoModelForImageClassification")
    rng = np.random.default_rng(0)
    trials = [_trial(rng, rows, pictures) for rows in ROWS]
    module = InOrder(model, (INPUT,)).eval()
    try:
        exported, refused = fastest(module, trials, [FREE], exporters, str(folder.path))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{folder.path} does not take pictures of {' × '.join(map(str, pictures.size))}, as "
            f"{FILE} makes them: {str(error).strip().splitlines()[0]}"
        ) from None
    notes = [f"graph of torch's {exported.exporter} exporter", *(f"not used: {r}" for r in refused)]
    return exported.model, notes, module


def _sized(model: onnx.ModelProto, pictures: PictureInput) -> onnx.ModelProto:
    """The same graph, told how large pictures are: optimum leaves every dimension free."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name == INPUT and len(dims) == 4:
            for dim, size in zip(dims[1:], (pictures.channels, *pictures.size), strict=True):
                dim.dim_value = size
    return model


def _trial(
    rng: np.random.Generator, rows: int, pictures: PictureInput
) -> dict[str, NDArray[np.float32]]:
    """Random pictures."""
    shape = (rows, pictures.channels, *pictures.size)
    return {INPUT: rng.normal(size=shape).astype(np.float32)}
