"""The residual block: the connection around any inner function, and the place of norms."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from skipserve.networks.config import NetworkConfig

# placement: (before f, after f, after the sum)
PLACEMENTS = {
    "none": (False, False, False),
    "pre": (True, False, False),
    "post": (False, False, True),
    "peri": (True, True, False),
}


class Block(nn.Module):
    """A block of the residual highway, ``x ← x + f(x)`` in one of its variants.

    Args:
        inner: ``f``, of any shape-preserving kind.
        config: Says which connection, which placement of the norms, and ``α``.
        norm: Makes one normalisation layer for the stream.
        gate: Makes the linear map (``nn.Linear`` or ``nn.Conv1d``) whose sigmoid gates a
            ``gated`` block (highway networks, Srivastava et al. 2015, arXiv:1505.00387).
    """

    def __init__(
        self,
        inner: nn.Module,
        config: NetworkConfig,
        norm: Callable[[], nn.Module],
        gate: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        before, after, outside = PLACEMENTS[config.norm]
        self.connection = config.connection
        self.alpha = config.alpha
        self.inner = inner
        self.norm_before = norm() if before else nn.Identity()
        self.norm_after = norm() if after else nn.Identity()
        self.norm_sum = norm() if outside else nn.Identity()
        self.gate = _opening(gate(), config.depth) if config.connection == "gated" else None

    def forward(self, x: Tensor) -> Tensor:
        """Run the block: a stream of any shape in, the same shape out."""
        update: Tensor = self.norm_after(self.inner(self.norm_before(x)))
        if self.connection == "residual":
            update = x + self.alpha * update
        elif self.gate is not None:
            update = x + self.gate(x).sigmoid() * (update - x)
        out: Tensor = self.norm_sum(update)
        return out


def _opening(gate: nn.Module, depth: int) -> nn.Module:
    # A negative bias lets the identity through at first (arXiv:1505.00387, section 2.2). With
    # σ(b) = 1/(depth + 1) the product of the carries stays near 1/e however deep the network is.
    for name, parameter in gate.named_parameters():
        if name == "bias":
            nn.init.constant_(parameter, -math.log(depth))
    return gate
