"""The guard: a row whose stream is unlike anything in calibration is never skipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skipserve.networks import ResidualNetwork

# Readings of up to so many numbers are whitened in every direction, longer ones in so many: a
# square matrix would cost a wide stream as much as a block of its network.
WHOLE, RANK = 256, 32
# Directions in which calibration hardly varies are not whitened beyond this share of the widest.
FLOOR = 1e-6


class Guard(nn.Module):
    """The whitened norm of a reading ``r`` of the stream: its distance from calibration.

    The widest directions are whitened one by one, all that lies across them by one common
    deviation, as in probabilistic principal components (Tipping and Bishop, 1999): what leaves
    the span of calibration is seen, at a price that grows with the width and not with its square.

    The reading is the pooled stream and the pooled root mean square: a normalisation over positions
    takes the scale out of the mean, not out of that. Without positions it is the stream and its
    magnitudes, which see more than the stream alone.

    Args:
        pool: The network's pool.
        mean: μ [readings], float32.
        directions: V [readings, rank], orthonormal, float32.
        deviations: σ [rank] along them, float32.
        across: The deviation along any direction that is not one of them; +inf if there is none.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor

    def __init__(
        self, pool: nn.Module, mean: Tensor, directions: Tensor, deviations: Tensor, across: float
    ) -> None:
        super().__init__()
        self.pool = pool
        self.across = across
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("deviations", deviations)

    def forward(self, stream: Tensor) -> Tensor:
        """A stream [B, …] to its distance from calibration [B], float32."""
        centred = _reading(self.pool, stream) - self.mean
        along = centred @ self.directions
        inside: Tensor = torch.linalg.vector_norm(along / self.deviations, dim=-1)
        if self.directions.shape[0] == self.directions.shape[1]:
            return inside
        # Of the whole vector, and not of a difference of two norms: those are near each other.
        rest = centred - along @ self.directions.T
        outside = torch.linalg.vector_norm(rest, dim=-1) / self.across
        distance: Tensor = (inside**2 + outside**2).sqrt()
        return distance


def fit_guard(network: ResidualNetwork, stream: Tensor, rank: int | None = None) -> Guard:
    """Fit μ, V and σ to streams at the depth where the guard will stand.

    The limit belongs on other rows: these lie closer than any to come.

    Args:
        network: Its pool is used.
        stream: Of known rows [N, …].
        rank: Directions to whiten one by one; by default all of up to 256 readings, else 32.
    """
    reading = _reading(network.pool, stream).double()
    mean = reading.mean(dim=0)
    if rank is None:
        rank = len(mean) if len(mean) <= WHOLE else RANK
    values, vectors = torch.linalg.eigh(torch.cov((reading - mean).T))
    variances = values.clamp(min=0) + FLOOR * values.max()
    rest, widest = variances[:-rank], variances[-rank:]
    return Guard(
        network.pool,
        mean.float(),
        vectors[:, -rank:].float(),
        widest.sqrt().float(),
        float(rest.mean().sqrt()) if len(rest) else float("inf"),
    )


def _reading(pool: nn.Module, stream: Tensor) -> Tensor:
    stream = stream.float()
    mean: Tensor = pool(stream)
    square: Tensor = pool(stream * stream)
    return torch.cat([mean, square.sqrt()], dim=-1)
