"""Exits: layout of the stream, features, guard and head at one cut.

The same numbers are built into ONNX graphs (graph/exit_graph.py) and, for networks trained here,
into TorchScript (routing/eager.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.tasks import Link, SignalName

LayoutKind = Literal["vector", "tokens", "channels"]
Matrix = NDArray[np.float32]
# Cells of the coarse grid of a channel: 2 × 2 of a picture, quarters of a signal.
GRID = 4


@dataclass(frozen=True)
class Layout:
    """The layout of one row of a stream.

    Attributes:
        kind: ``vector`` [width]; ``tokens`` [length, width]; ``channels`` [channels, length] or
            [channels, height, width].
        shape: Of one row, channels first; −1 where it varies.
        channels_last: The stream has its channels behind its positions, not before.
        mask: Input that says which tokens are real, or ``""``.
    """

    kind: LayoutKind
    shape: tuple[int, ...]
    channels_last: bool = False
    mask: str = ""

    @property
    def width(self) -> int:
        """Size of a row averaged over positions."""
        return self.shape[-1] if self.kind != "channels" else self.shape[0]

    @property
    def grid(self) -> NDArray[np.float32] | None:
        """Weights [positions, 4] that average cells of a coarse grid, if positions are fixed."""
        if self.kind != "channels" or min(self.shape) < 0:
            return None
        if len(self.shape) == 2:
            return _cells(self.shape[1], GRID)
        if len(self.shape) == 3:
            rows, columns = _cells(self.shape[1], 2), _cells(self.shape[2], 2)
            return np.kron(rows, columns).astype(np.float32)
        return None

    @property
    def pooled(self) -> bool:
        """Whether it is a picture large enough to be pooled into the grid."""
        return self.kind == "channels" and len(self.shape) == 3 and min(self.shape[1:]) > 1

    @property
    def features(self) -> int:
        """Number of features of one row."""
        if self.kind == "vector":
            return self.width
        if self.kind == "tokens":
            return 3 * self.width
        return (3 if self.grid is None else 3 + GRID) * self.width


def _cells(size: int, cells: int) -> NDArray[np.float32]:
    """Averages of overlapping cells, as adaptive average pooling takes them [size, cells]."""
    weights = np.zeros((size, cells), np.float32)
    for cell in range(cells):
        start, end = cell * size // cells, -(-(cell + 1) * size // cells)
        weights[start:end, cell] = 1 / (end - start)
    return weights


@dataclass(frozen=True)
class Guard:
    """A guard: the whitened distance of features from those of calibration.

    Attributes:
        centre: Mean of the features [features].
        whiten: [features, directions]; the limit is divided out, so that 1 is the limit.
    """

    centre: Matrix
    whiten: Matrix


@dataclass(frozen=True)
class Head:
    """An exit head: a small network on the features of one cut.

    Attributes:
        layers: Weights [in, out] and biases [out] of each; ReLU between them.
    """

    layers: tuple[tuple[Matrix, Matrix], ...]

    @property
    def hidden(self) -> int:
        """Width of the hidden layer; 0 if there is none."""
        return self.layers[0][0].shape[1] if len(self.layers) > 1 else 0

    def __call__(self, features: Matrix) -> Matrix:
        """What it gives for features [N, features]: [N, width], before the link."""
        out = features
        for i, (weight, bias) in enumerate(self.layers):
            out = (np.maximum(out, 0) if i else out) @ weight + bias
        return out


@dataclass(frozen=True)
class Exit:
    """One exit: what is read at one cut.

    Attributes:
        blocks: Blocks run when a row gets there.
        layout: Of the stream there.
        guard: Distance of its features from calibration.
        head: Gives the answer of a row that leaves there; ``None``: the network's own.
        signal: What is compared with the threshold.
        projection: Weights [width, k] and offset [k] of ``projected_norm``.
        estimate: Gives the log-odds that a row that leaves there agrees, for ``agreement``.
        link: Makes an answer of what the head gives.
        border: Class and probability of the only decision that counts, if there is one.
        leaves: Whether rows may leave there; if not, it only guards.
    """

    blocks: int
    layout: Layout
    guard: Guard
    head: Head | None
    signal: SignalName
    projection: tuple[Matrix, Matrix] | None = None
    estimate: Head | None = None
    link: Link = "softmax"
    border: tuple[int, float] | None = None
    leaves: bool = True


def layout_of(shape: tuple[int, ...], ops_ahead: frozenset[str], mask: str = "") -> Layout | None:
    """The layout of a stream, inferred from its shape and the operators that read it.

    Args:
        shape: Of the stream [batch, …]; −1 where it varies.
        ops_ahead: Kinds of the nodes of the next block.
        mask: Input that says which tokens are real, or ``""``.

    Returns:
        The layout, or ``None`` for a stream that cannot be read (no width is fixed).
    """
    row = shape[1:]
    convolves = bool(ops_ahead & {"Conv", "ConvTranspose", "QLinearConv", "ConvInteger"})
    if len(row) == 1:
        return Layout("vector", row) if row[0] > 0 else None
    if len(row) == 2:
        if convolves and row[0] > 0:
            return Layout("channels", row)
        return Layout("tokens", row, mask=mask) if row[1] > 0 else None
    if len(row) == 3:
        last = row[0] == row[1] != row[2] or row[0] < 0
        if last:
            row = (row[2], row[0], row[1])
        return Layout("channels", row, channels_last=last) if row[0] > 0 else None
    return None
