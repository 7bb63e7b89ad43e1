"""Open graphs: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OnnxPiece:
    """A graph in an ONNX Runtime session.

    Args:
        session: An ``onnxruntime.InferenceSession``.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(one.name for one in session.get_inputs())
        self.outputs = tuple(one.name for one in session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        values: Sequence[NDArray[Any]] = self._session.run(self.outputs, feeds)
        return values


class Padded:
    """A graph whose batches are padded to a few sizes (1, 2, 4, 8, …).

    On CUDA, ONNX Runtime plans a convolution anew whenever the batch size changes (docs/gpu.md).
    Each of these sizes is planned once, at warm-up.
    """

    def __init__(self, piece: OnnxPiece) -> None:
        self._piece = piece
        self.inputs, self.outputs = piece.inputs, piece.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        count = len(next(iter(feeds.values())))
        size = padded_size(count)
        if size == count:
            return self._piece.run(feeds)
        # Padded with copies of a row, because zeros may be unlike any real row.
        more = {
            name: np.concatenate([rows, np.repeat(rows[-1:], size - count, axis=0)])
            for name, rows in feeds.items()
        }
        return [made[:count] for made in self._piece.run(more)]


def padded_size(count: int) -> int:
    """The padded size of a batch: the next power of two."""
    return 1 << (count - 1).bit_length()
