"""What the outcome of a brought network depends on, beside its build file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from skipserve.sources.columns import TABLES, read_columns
from skipserve.sources.config import Brought
from skipserve.sources.graph_files import graph_files
from skipserve.sources.hugging_face.folder import PICTURES, open_folder
from skipserve.sources.module_code import code_of
from skipserve.sources.picture_files import paths_in, pictures_in


def files_of(brought: Brought, root: Path) -> Iterator[Path]:
    """Files that the outcome depends on, in an order that does not change.

    The weights of a ``module:function`` are not among them: what it reads, only it knows.

    Args:
        brought: The network and its rows.
        root: The project.

    Raises:
        ConfigError: If a folder holds no model, or rows that may name pictures cannot be read.
    """
    source, data = brought.source, brought.data
    pictures = False
    if source.folder is not None:
        folder = open_folder(root / source.folder)
        pictures = folder.family == PICTURES
        yield from folder.files()
    if source.onnx is not None:
        yield from graph_files(root / source.onnx)
    if source.module is not None:
        yield from code_of(source.module, root)
    for name in (data.rows, data.fit):
        if name is None:
            continue
        place = root / name
        if place.is_dir():
            yield from pictures_in(place)
            continue
        yield place
        if pictures and place.suffix.lower() in TABLES and place.is_file():
            yield from paths_in(read_columns(place))
    if brought.tuned is not None:
        yield root / brought.tuned
