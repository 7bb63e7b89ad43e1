"""The guard: a row whose stream is unlike anything in calibration is never skipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skipserve.networks import ResidualNetwork

# Directions in which calibration hardly varies are not whitened beyond this share of the widest.
FLOOR = 1e-6


class Guard(nn.Module):
    """The whitened norm ``‖(r − μ)W‖₂`` of a reading ``r`` of the stream.

    The reading is the pooled stream and the pooled root mean square: where a normalisation over
    positions takes the scale out of the mean, the deviation still shows it.

    Args:
        pool: The network's pool.
        mean: μ [2·width], float32.
        whitening: W [2·width, 2·width], float32.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, pool: nn.Module, mean: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.pool = pool
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, stream: Tensor) -> Tensor:
        """A stream [B, …] to its distance from calibration [B], float32."""
        centred = _reading(self.pool, stream) - self.mean
        signal: Tensor = torch.linalg.vector_norm(centred @ self.whitening, dim=-1)
        return signal


def fit_guard(network: ResidualNetwork, stream: Tensor) -> Guard:
    """Fit μ and W to the streams [N, …] of calibration rows, at the depth the guard will stand."""
    reading = _reading(network.pool, stream).double()
    mean = reading.mean(dim=0)
    covariance = torch.cov((reading - mean).T)
    values, vectors = torch.linalg.eigh(covariance)
    whitening = vectors / (values.clamp(min=0) + FLOOR * values.max()).sqrt()
    return Guard(network.pool, mean.float(), whitening.float())


def _reading(pool: nn.Module, stream: Tensor) -> Tensor:
    stream = stream.float()
    mean: Tensor = pool(stream)
    square: Tensor = pool(stream * stream)
    return torch.cat([mean, square.sqrt()], dim=-1)
