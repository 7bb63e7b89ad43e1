"""Reading a Hugging Face folder of any family of tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import (
    EMBEDDINGS,
    PICTURES,
    TEXTS,
    Folder,
    open_folder,
)
from skipserve.sources.hugging_face.picture_classification import read_picture_classifier
from skipserve.sources.hugging_face.sentence_embedding import read_sentence_embedder
from skipserve.sources.hugging_face.text_classification import read_text_classifier
from skipserve.sources.read import ReadSource

FAMILIES: dict[str, Callable[[Folder, Sequence[Exporter]], ReadSource]] = {
    TEXTS: read_text_classifier,
    PICTURES: read_picture_classifier,
    EMBEDDINGS: read_sentence_embedder,
}


def read_folder(path: Path, exporters: Sequence[Exporter], tuned: Path | None = None) -> ReadSource:
    """The network of a folder, and its preprocessing.

    Args:
        path: Of the folder.
        exporters: Of torch, that are tried.
        tuned: Weights that take the place of its own.

    Raises:
        ConfigError: Saying what in the folder cannot be brought.
        CutError: If the network cannot be exported.
        LaunchError: If transformers or torch is not installed.
    """
    folder = replace(open_folder(path), tuned=tuned)
    if folder.family is not None:
        require("transformers")
        # Never from a hub: only the folder is read.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        return FAMILIES[folder.family](folder, exporters)
    raise ConfigError(
        f"{path} holds a {folder.architecture or 'model of no named architecture'}; expected "
        f"…{TEXTS}, …{PICTURES}, or beside a model without a head the {EMBEDDINGS} of "
        "sentence-transformers, which says how its tokens are pooled"
    )
