"""The guard of a whole stream: how far a row is from those that the router was calibrated on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from laboratory.readers import SMALLEST
from skipserve.errors import ConfigError
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

    Each row is divided by its largest number before anything is squared, so a distance overflows to
    +inf only where it is itself beyond float32. It is NaN where the stream is not finite.

    Args:
        pool: The network's pool; linear.
        mean: μ [readings], float32.
        directions: V [readings, rank], orthonormal, float32.
        deviations: σ [rank] along them, float32.
        across: The deviation along any direction that is not one of them; +inf if there is none.
    """

    mean: Tensor
    directions: Tensor
    relative: Tensor

    def __init__(
        self, pool: nn.Module, mean: Tensor, directions: Tensor, deviations: Tensor, across: float
    ) -> None:
        super().__init__()
        self.pool = pool
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        # Relative to the widest, so that dividing by them keeps what is near 1 near 1. A stream
        # that never varied has none: whatever differs from it at all is far away.
        self.widest = max(float(deviations.max()), SMALLEST)
        self.register_buffer("relative", (deviations / self.widest).clamp(min=FLOOR))
        self.relative_across = max(across / self.widest, FLOOR)

    def forward(self, stream: Tensor) -> Tensor:
        """A stream [B, …] to its distance from calibration [B], float32."""
        centred = _reading(self.pool, stream) - self.mean
        largest = centred.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
        centred = centred / largest
        along = centred @ self.directions
        distance: Tensor = torch.linalg.vector_norm(along / self.relative, dim=-1)
        if self.directions.shape[0] != self.directions.shape[1]:
            # Of the whole vector, and not of a difference of two norms: those are near each other.
            rest = centred - along @ self.directions.T
            outside = torch.linalg.vector_norm(rest, dim=-1) / self.relative_across
            distance = (distance**2 + outside**2).sqrt()
        return distance * (largest.squeeze(-1) / self.widest)


def fit_guard(network: ResidualNetwork, stream: Tensor, rank: int | None = None) -> Guard:
    """Fit μ, V and σ to streams at the depth where the guard will stand.

    The limit belongs on other rows: these lie closer than any to come.

    Args:
        network: Its pool is used.
        stream: Of known rows [N, …].
        rank: Directions to whiten one by one; by default all of up to 256 readings, else 32.

    Raises:
        ConfigError: If a row overflows in the network.
    """
    reading = _reading(network.pool, stream).double()
    if not reading.isfinite().all():
        rows = int((~reading.isfinite().all(dim=1)).sum())
        raise ConfigError(
            f"{rows} of {len(reading)} rows that the guard is fitted to overflow in the network; "
            "expected finite streams: take these rows out of the training data"
        )
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
    largest = stream.abs().flatten(1).amax(dim=1).clamp(min=SMALLEST)
    scaled = stream / largest.view(-1, *[1] * (stream.dim() - 1))
    square: Tensor = pool(scaled * scaled)
    return torch.cat([mean, square.sqrt() * largest.unsqueeze(1)], dim=-1)
