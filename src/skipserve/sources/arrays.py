"""Writing arrays to a .npz file, under any names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError
from skipserve.files import replacing_file


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as ``numpy.savez`` does, replacing an older file as a whole.

    ``numpy.savez`` takes the names as its own arguments, so none may be called ``file``.

    Args:
        file: Of any ending.
        arrays: Of numbers, or of texts.

    Raises:
        ConfigError: If one holds other Python objects; nothing is written then.
    """
    plain = {name: _plain(name, array) for name, array in arrays.items()}
    with replacing_file(file) as fresh, zipfile.ZipFile(fresh, "w", allowZip64=True) as archive:
        for name, array in plain.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _plain(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != object:
        return array
    if all(isinstance(one, str) for one in array.flat):
        return array.astype(str)
    raise ConfigError(
        f"the array {name!r} holds Python objects, which are not written; expected numbers or texts"
    )
