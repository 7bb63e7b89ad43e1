"""Pictures in data: files named by a column, bytes in a column, or folders of classes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError, InputError
from skipserve.preprocessing.pictures import Pictures

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
# Columns of a folder of folders.
PICTURE, LABEL = "picture", "label"
# Longest path; base64 is mostly longer.
LONGEST_PATH = 4096


def read_classes(folder: Path) -> dict[str, NDArray[np.object_]]:
    """The columns of a folder with one subfolder of pictures for each class.

    Raises:
        ConfigError: If it holds none.
    """
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    files = [(file, one.name) for one in classes for file in pictures_in(one)]
    if not files:
        raise ConfigError(
            f"{folder} holds no folder of pictures; expected one for each class, with files that "
            f"end in {', '.join(ENDINGS)}"
        )
    made = {PICTURE: np.empty(len(files), object), LABEL: np.empty(len(files), object)}
    made[PICTURE][:], made[LABEL][:] = zip(*files, strict=True)
    return made


def pictures_in(folder: Path) -> list[Path]:
    """Pictures in a folder and its subfolders, in order."""
    return sorted(
        one for one in folder.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file()
    )


def as_files(values: Sequence[object], folder: Path) -> Sequence[object]:
    """Make names of pictures paths in a folder; other values stay.

    Of names the first decides: it must be there. The library datasets keeps a picture as an object
    with ``bytes`` or ``path``: without bytes it is the file.
    """
    first = values[0]
    if isinstance(first, Mapping):
        return [_file(one, folder) for one in values]
    if not isinstance(first, str) or not first.lower().endswith(ENDINGS):
        return values
    if len(first) > LONGEST_PATH or not (folder / first).is_file():
        return values
    return [folder / one if isinstance(one, str) else one for one in values]


def _file(value: object, folder: Path) -> object:
    if isinstance(value, Mapping) and not value.get("bytes"):
        path = value.get("path")
        return folder / path if isinstance(path, str) else value
    return value


def paths_in(columns: Mapping[str, NDArray[Any]]) -> Iterator[Path]:
    """Files that columns name."""
    for column in columns.values():
        if column.dtype == object:
            yield from (one for one in column if isinstance(one, Path))


def sent(value: object) -> object:
    """A picture or text of the data as a client sends it."""
    value = _read(value, 0)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class PictureFiles:
    """Reads pictures one at a time and makes the input of a network.

    Args:
        pictures: Makes it.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def __call__(self, values: Sequence[object], first: int = 0) -> dict[str, NDArray[Any]]:
        """Pixel values of all pictures, by name of the input [N, channels, height, width].

        Args:
            values: Paths, bytes, base64, pixels, or objects with ``bytes`` as the library datasets
                keeps pictures.
            first: Number of the first, for the error.

        Raises:
            InputError: If one is no picture, or not there; names the row.
        """
        made: dict[str, NDArray[Any]] = {}
        for place, value in enumerate(values):
            row = first + place
            for name, tensor in self._pictures([_read(value, row)], row).items():
                if not place:
                    made[name] = np.empty((len(values), *tensor.shape[1:]), tensor.dtype)
                made[name][place] = tensor[0]
        return made


def _read(value: object, row: int) -> object:
    """A picture of the data, ready to be opened."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if not isinstance(value, Path):
        return value
    try:
        return value.read_bytes()
    except OSError as error:
        raise InputError(
            "invalid_picture", f"row {row}: {value} cannot be read: {error.strerror}", row
        ) from None
