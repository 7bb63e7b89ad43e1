"""Hashes of rows: equal rows have equal hashes, however the file that they are in pads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.lengths import unpadded
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature


def contents_of(rows: Rows, signature: Signature, seed: int = 0) -> NDArray[np.uint64]:
    """A hash of what each row holds [N].

    Args:
        rows: As :func:`skipserve.runtime.rows.check_rows` returns them: in the dtypes of the
            inputs, and in their order.
        signature: Of the model; its mask says what is padding.
        seed: Another seed gives other hashes.
    """
    return hashed(unpadded(rows, signature), seed)


def hashed(entries: Iterable[Sequence[NDArray[Any] | np.generic]], seed: int) -> NDArray[np.uint64]:
    """A hash of the bytes of each entry [N].

    Args:
        entries: N of them, each some arrays or numbers.
        seed: From 0 to 2⁶⁴ − 1; another seed gives other hashes.
    """
    salt = seed.to_bytes(8, "little")
    hashes = []
    for entry in entries:
        digest = hashlib.blake2b(salt, digest_size=8)
        for one in entry:
            digest.update(one.tobytes())
        hashes.append(int.from_bytes(digest.digest(), "little"))
    return np.array(hashes, np.uint64)
