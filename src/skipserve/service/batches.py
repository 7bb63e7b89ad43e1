"""Joining the rows of several requests into batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from skipserve.runtime.lengths import Places, by_length
from skipserve.runtime.rows import Rows, join, pad
from skipserve.signature import BATCH, Signature


@dataclass(frozen=True)
class Group:
    """Parts that run as one batch.

    Attributes:
        members: Their places among all parts, in order.
        rows: Theirs, joined.
    """

    members: Sequence[int]
    rows: Rows


class Batches:
    """Joins the rows of requests to one model.

    Args:
        signature: Of the model. Where it has a mask, rows that differ in a dimension of the mask
            are padded to the longest; rows that differ otherwise run apart.
        by_length: Whether rows of one group run apart where that saves padding.
    """

    def __init__(self, signature: Signature, by_length: bool = True) -> None:
        self._signature = signature
        self._by_length = by_length
        shapes = [spec.row_shape for spec in signature.inputs]
        self._fixed = all(isinstance(size, int) for shape in shapes for size in shape)
        mask = signature.input(signature.mask) if signature.mask is not None else None
        sizes = () if mask is None else mask.row_shape
        self._padded = frozenset(one for one in sizes if isinstance(one, str) and one != BATCH)

    def joined(self, parts: Sequence[Rows]) -> list[Group]:
        """Join parts into as few groups as possible; at least one part."""
        if self._fixed or all(part.shapes == parts[0].shapes for part in parts):
            return [Group(range(len(parts)), join(parts))]
        return self._grouped(parts)

    def apart(self, rows: Rows) -> Iterable[tuple[Places | slice, Rows]]:
        """The rows of a group as they run, with their places."""
        if self._fixed or not self._by_length:
            return [(slice(None), rows)]
        return by_length(rows, self._signature)

    def _grouped(self, parts: Sequence[Rows]) -> list[Group]:
        sizes = [self._sizes(part) for part in parts]
        members: dict[frozenset[tuple[str, int]], list[int]] = {}
        for i, one in enumerate(sizes):
            key = frozenset((name, size) for name, size in one.items() if name not in self._padded)
            members.setdefault(key, []).append(i)
        return [
            Group(places, self._together([parts[i] for i in places], [sizes[i] for i in places]))
            for places in members.values()
        ]

    def _together(self, parts: Sequence[Rows], sizes: Sequence[dict[str, int]]) -> Rows:
        largest = {name: max(one[name] for one in sizes) for name in sizes[0]}
        return join([pad(part, self._signature, largest) for part in parts])

    def _sizes(self, part: Rows) -> dict[str, int]:
        """The size of each free dimension."""
        return {
            name: size
            for spec in self._signature.inputs
            for name, size in zip(spec.row_shape, part.tensors[spec.name].shape[1:], strict=True)
            if isinstance(name, str)
        }
