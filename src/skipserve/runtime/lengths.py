"""Rows of different length: trimming padding, and grouping similar lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows
from skipserve.signature import Signature

Places = NDArray[np.int64]
# Positions of padding that are worth a run of their own: on a CPU a run of a transformer costs
# about as much as so many tokens more.
SPARE = 64


def trim(rows: Rows, signature: Signature) -> Rows:
    """Trim positions at the end that are padding in all rows.

    Rows of a model without a mask are left as they are.
    """
    word = _word(signature)
    if word is None:
        return rows
    return _cut(rows, signature, word, int(_lengths(rows, signature).max()))


def unpadded(rows: Rows, signature: Signature) -> Iterator[list[NDArray[Any]]]:
    """The tensors of each row, in the order of the inputs, without the padding at its end.

    Rows of a model without a mask are as they are.
    """
    word = _word(signature)
    lengths = None if word is None else _lengths(rows, signature)
    free = [_axes(signature, name, word) for name in rows.tensors]
    for row in range(len(rows)):
        tensors = [tensor[row] for tensor in rows.tensors.values()]
        if lengths is not None:
            real = slice(int(lengths[row]))
            tensors = [
                tensor[tuple(real if cut else slice(None) for cut in axes)]
                for tensor, axes in zip(tensors, free, strict=True)
            ]
        yield tensors


def by_length(rows: Rows, signature: Signature) -> Iterator[tuple[Places | slice, Rows]]:
    """Groups of rows of similar length, trimmed, with their places.

    Rows that run together are as long as the longest of them: they are parted where that saves
    enough padding. Rows of a model without a mask stay together.
    """
    word = _word(signature)
    if word is None:
        yield slice(None), rows
        return
    lengths = _lengths(rows, signature)
    order = np.argsort(lengths, kind="stable")
    parts = list(_parts(lengths[order]))
    if len(parts) == 1:
        yield slice(None), _cut(rows, signature, word, int(lengths.max()))
        return
    for part in parts:
        places = np.sort(order[part])
        yield places, _cut(rows[places], signature, word, int(lengths[places].max()))


def _parts(lengths: NDArray[np.int64], first: int = 0) -> Iterator[slice]:
    """Ranges of ascending lengths that run together."""
    counts = np.arange(1, len(lengths))
    saved = counts * (lengths[-1] - lengths[:-1])
    if len(lengths) < 2 or saved.max() < SPARE:
        yield slice(first, first + len(lengths))
        return
    end = int(saved.argmax()) + 1
    yield from _parts(lengths[:end], first)
    yield from _parts(lengths[end:], first + end)


def _word(signature: Signature) -> str | None:
    """The free dimension of the mask, in which rows may differ."""
    mask = None if signature.mask is None else signature.input(signature.mask)
    if mask is None or len(mask.row_shape) != 1:
        return None
    (size,) = mask.row_shape
    return size if isinstance(size, str) else None


def _lengths(rows: Rows, signature: Signature) -> NDArray[np.int64]:
    """Positions up to the last real one [N]; 1 where all are padding."""
    assert signature.mask is not None
    real = rows.tensors[signature.mask] != 0
    behind = np.argmax(real[:, ::-1], axis=1)
    return np.where(real.any(axis=1), real.shape[1] - behind, 1)


def _cut(rows: Rows, signature: Signature, word: str, length: int) -> Rows:
    kept = {}
    for name, tensor in rows.tensors.items():
        axes = _axes(signature, name, word)
        places = tuple(slice(length) if cut else slice(None) for cut in axes)
        kept[name] = np.ascontiguousarray(tensor[(slice(None), *places)])
    return Rows(kept)


def _axes(signature: Signature, name: str, word: str | None) -> list[bool]:
    """Which dimensions of one row of an input are as long as the mask."""
    spec = signature.input(name)
    assert spec is not None
    return [size == word for size in spec.row_shape]
