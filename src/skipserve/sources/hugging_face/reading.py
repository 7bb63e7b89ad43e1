"""Reading a Hugging Face folder: whichever family of tasks it is of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from skipserve.errors import ConfigError
from skipserve.extras import require
from skipserve.sources.config import Exporter
from skipserve.sources.hugging_face.folder import Folder, open_folder
from skipserve.sources.hugging_face.text_classification import SUFFIX, read_text_classifier
from skipserve.sources.read import ReadSource

# By the end of the architecture's name.
FAMILIES: dict[str, Callable[[Folder, Sequence[Exporter]], ReadSource]] = {
    SUFFIX: read_text_classifier
}


def read_folder(path: Path, exporters: Sequence[Exporter]) -> ReadSource:
    """The network of a folder, and what turns texts or pictures into its inputs.

    Args:
        path: Of the folder.
        exporters: Of torch, that are tried.

    Raises:
        ConfigError: Saying what in the folder cannot be brought.
        CutError: If the network cannot be exported.
        LaunchError: If transformers or torch is not installed.
    """
    folder = open_folder(path)
    for suffix, read in FAMILIES.items():
        if folder.architecture.endswith(suffix):
            require("transformers")
            require("tokenizers")
            # Nothing is asked of a hub: a folder is all there is.
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
            return read(folder, exporters)
    expected = ", ".join(f"…{suffix}" for suffix in FAMILIES)
    raise ConfigError(
        f"{path} holds a {folder.architecture or 'model of no named architecture'}; expected "
        f"{expected}"
    )
