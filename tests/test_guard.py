"""The guard: as many ordinary rows held back as it says, and what is far from them seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skipserve.artifacts.formats import write_model
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.guard import FLOOR, WHOLE, fit_guard
from skipserve.runtime.backends import open_backend

FEATURES = 16


def network_of(width):
    torch.manual_seed(1)
    config = {"family": "mlp", "inputs": [FEATURES], "classes": 3, "depth": 3, "width": width}
    return build_network(parse_network(config)).eval()


def rows_of(count, seed, scale=1.0):
    return scale * torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))


def streams(count, width, spanned, seed):
    """Positive streams that vary much in a few directions, little in the others."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(9))).Q
    deviations = torch.where(torch.arange(width) < spanned, 3.0, 0.01)
    return torch.randn(count, width, generator=rng) * deviations @ axes.T + 20, axes


def test_few_rows_to_fit_on_do_not_hold_ordinary_ones_back():
    # 64 numbers a row, whitened by 100 rows: these themselves lie much closer than any others do.
    network, config = network_of(32), RouterConfig(signal="norm", guard=0.95)
    router, limit = fit_router(config, network, [1], rows_of(100, 0), rows_of(4_000, 1))
    with torch.no_grad():
        fresh = next(s for i, s in enumerate(network.streams(rows_of(20_000, 2))) if i == 1)
        held = float((router.guard(fresh) > limit).double().mean())
    assert held == pytest.approx(0.05, abs=0.01)


def test_in_every_direction_it_is_the_mahalanobis_distance():
    known, _ = streams(5_000, 40, 8, seed=0)
    other, _ = streams(50, 40, 20, seed=1)
    distance = fit_guard(network_of(40), known)(other).double().numpy()
    known, other = known - 20, other - 20  # of both signs, or its magnitudes say nothing new
    values, rows = (torch.cat([s, s.abs()], dim=1).double().numpy() for s in (known, other))
    centred = rows - values.mean(axis=0)
    covariance = np.cov(values.T)
    floor = FLOOR * np.linalg.eigvalsh(covariance).max()
    inverse = np.linalg.inv(covariance + floor * np.eye(len(covariance)))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    np.testing.assert_allclose(distance, expected, rtol=0.01)


@pytest.mark.parametrize("rank", [8, 20])
def test_few_directions_still_see_what_leaves_the_span(rank):
    known, axes = streams(5_000, 300, 8, seed=0)
    fresh, _ = streams(5_000, 300, 8, seed=1)
    guard = fit_guard(network_of(300), known, rank)
    limit = guard(streams(5_000, 300, 8, seed=2)[0]).quantile(0.995)
    across = fresh + 0.5 * axes[:, 200]  # 50 deviations there, and next to nothing of the norm
    along = fresh + 60 * axes[:, 0]
    assert (guard(across) > limit).all()
    assert (guard(along) > limit).all()
    assert (guard(fresh) > limit).double().mean() < 0.01


def test_the_graph_of_a_wide_network_measures_the_same_distance(tmp_path):
    network = network_of(WHOLE + 44)
    rows = rows_of(200, 1)
    config = RouterConfig(signal="norm", guard=0.9)
    router, limit = fit_router(config, network, [1, 2], rows_of(2_000, 0), rows_of(2_000, 3))
    assert router.guard.directions.shape[1] < WHOLE
    file = tmp_path / "model.onnx"
    write_model(network, "onnx", "fp32", file, router)
    fed = {
        "inputs": rows.numpy(),
        "thresholds": np.full((len(rows), 2), -np.inf, dtype=np.float32),
        "guard_limit": np.full(len(rows), limit, dtype=np.float32),
    }
    held = open_backend(file, ()).run(fed)["held_back"]
    with torch.no_grad():
        distance = router.guard(list(network.streams(rows))[1])
    clear = (distance / limit - 1).abs().numpy() > 1e-4
    assert 0 < held.sum() < len(rows)
    np.testing.assert_array_equal(held[clear], (distance > limit).numpy()[clear])
