"""Rows for tuning, as the module takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TuningRows:
    """Rows for tuning.

    Their inputs stand in the order in which the module takes them.

    Attributes:
        inputs: Tensors [N, …].
        labels: Classes [N], or ``None``.
        mask: Index of the input that marks real tokens, or ``None``.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    mask: int | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        return tuple(one[index] for one in self.inputs)

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        labels: NDArray[np.int64] | None,
        mask: str | None,
    ) -> TuningRows:
        """Make rows of arrays by name, which stand in the order of the inputs."""
        known = None if labels is None else torch.from_numpy(labels)
        place = None if mask is None else list(tensors).index(mask)
        return cls(tuple(torch.from_numpy(one) for one in tensors.values()), known, place)
