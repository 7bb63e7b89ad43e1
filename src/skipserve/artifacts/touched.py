"""Rows that something was fitted to: heads, guards and thresholds, or the network itself.

A certificate on them would say how well they were learnt, and nothing about rows to come. Their
hashes stand in the artifact, so that it is known wherever it is certified.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ArtifactError
from skipserve.files import DAMAGE, damage, replacing_file

TOUCHED = "touched.npy"


def write_touched(directory: Path, hashes: NDArray[np.uint64]) -> None:
    """Write the hashes of such rows, replacing earlier ones.

    Args:
        directory: The artifact.
        hashes: As :func:`skipserve.sources.contents.contents_of` makes them, in any order [N].
    """
    with replacing_file(directory / TOUCHED) as fresh:
        np.save(fresh, np.unique(hashes).astype("<u8"))


def read_touched(directory: Path) -> NDArray[np.uint64] | None:
    """The hashes, ascending [N]; ``None`` for an artifact that does not say.

    Raises:
        ArtifactError: If the file is damaged.
    """
    file = directory / TOUCHED
    if not file.is_file():
        return None
    try:
        found = np.load(file, allow_pickle=False)
        if found.dtype != np.uint64 or found.ndim != 1:
            raise ValueError("it holds no hashes")
    except (*DAMAGE, OSError, ValueError, MemoryError, AttributeError) as error:
        raise ArtifactError(
            f"{file} is damaged ({damage(error)}); build the artifact again"
        ) from None
    return np.asarray(found)
