"""Rows stop only on proof: distances, norms and decisions over all of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from extremes import FILLS, LARGEST, batches, ordinary
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skipserve.errors import ConfigError
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.guard import fit_guard
from skipserve.routing.propose import by_stage, greedy, propose, simulate
from skipserve.routing.routed import RoutedNetwork, Router
from skipserve.routing.signals import Margin, Norm, ProjectedNorm, row_norm
from skipserve.routing.stopping import stops

WIDTH, DEPTH, COUNT = 6, 4, 8
SMALLEST = float(np.finfo(np.float32).tiny)
EXTREMES = (np.nan, np.inf, -np.inf, LARGEST, -LARGEST)


def network_of(depth=DEPTH, **options):
    torch.manual_seed(1)
    config = {"family": "mlp", "inputs": [WIDTH], "classes": 3, "depth": depth, "width": WIDTH}
    return build_network(parse_network(config | options)).eval()


def same(found, exact):
    """Whether float32 numbers are those computed in float64, or +inf beyond float32."""
    assert not np.isnan(found).any()
    within = exact <= LARGEST * (1 - 1e-5)
    np.testing.assert_allclose(found[within], exact[within], rtol=1e-5, atol=SMALLEST)
    beyond = exact >= LARGEST * (1 + 1e-5)
    assert np.isposinf(found[beyond]).all()


@given(batches(COUNT, WIDTH))
def test_a_norm_overflows_only_where_it_is_beyond_float32(rows):
    same(row_norm(torch.from_numpy(rows)).numpy(), np.linalg.norm(rows.astype(np.float64), axis=1))


@given(batches(COUNT, WIDTH))
def test_so_does_a_projected_one(rows):
    projection, offset = ordinary(3, 1, count=WIDTH), ordinary(3, 2)
    signal = ProjectedNorm(torch.from_numpy(projection), torch.from_numpy(offset))
    exact = np.linalg.norm(rows.astype(np.float64) @ projection.astype(np.float64) + offset, axis=1)
    found = signal(torch.from_numpy(rows)).numpy()
    # Terms of different signs cancel: what is left is as exact as the largest of them.
    size = np.maximum(np.abs(rows.astype(np.float64)).max(axis=1), 1)
    assert not np.isnan(found).any()
    within = exact <= LARGEST * (1 - 1e-5)
    assert (np.abs(found - exact) <= 1e-5 * size)[within].all()


@pytest.mark.parametrize("rank", [None, 4])
def test_so_does_the_distance_of_the_guard(rank):
    known = torch.from_numpy(ordinary(WIDTH, 0, count=500)) * torch.logspace(-2, 1, WIDTH)
    guard = fit_guard(network_of(), known, rank)
    readings = torch.cat([known, known.abs()], dim=1).double()
    values, vectors = torch.linalg.eigh(torch.cov(readings.T))
    values = values + 1e-6 * values.max()
    if rank is not None:
        values[:-rank] = values[:-rank].mean()
    mean = readings.mean(dim=0)

    @given(batches(COUNT, WIDTH))
    def check(rows):
        stream = torch.from_numpy(rows)
        reading = torch.cat([stream, stream.abs()], dim=1).double()
        exact = (((reading - mean) @ vectors) / values.sqrt()).norm(dim=1).numpy()
        found = guard(stream).numpy()
        assert not np.isnan(found).any()
        within = exact <= LARGEST * 0.99
        np.testing.assert_allclose(found[within], exact[within], rtol=1e-2)
        assert np.isposinf(found[exact >= LARGEST * 1.01]).all()

    check()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(WIDTH))
def test_a_stream_that_is_not_finite_has_no_distance_and_no_signal(value, place):
    known = torch.from_numpy(ordinary(WIDTH, 0, count=500))
    stream = known[:2].clone()
    stream[1, place] = value
    head = nn.Linear(WIDTH, WIDTH, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(WIDTH))
    projected = ProjectedNorm(torch.eye(WIDTH), torch.zeros(WIDTH))
    for read in (fit_guard(network_of(), known), Norm(), projected, Margin(head)):
        with torch.no_grad():
            assert read(stream).isfinite().tolist() == [True, False]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_streams_of_any_scale_are_whitened_alike(scale):
    known, other = (torch.from_numpy(ordinary(WIDTH, i, count=500)) for i in (0, 1))
    expected = fit_guard(network_of(), known)(other)
    found = fit_guard(network_of(), known * scale)(other * scale)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_whatever_differs_from_a_stream_that_never_varied_is_far():
    known = torch.full((50, WIDTH), 2.0)
    guard = fit_guard(network_of(), known)
    assert guard(known[:1]).tolist() == [0.0]
    assert guard(known[:1] + 1e-3) > 1e30


# --- decisions ---


class Told(nn.Module):
    """A signal, or a distance, that says what it is told."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values, dtype=torch.float32)

    def forward(self, pooled):
        return self.values[: len(pooled)]


def run(policy, signal, threshold, distance, limit):
    router = Router((1,), [Told([signal])], Told([distance]), policy)
    routed = RoutedNetwork(network_of(depth=2), router).eval()
    with torch.no_grad():
        _, depth, held, _ = routed(
            torch.zeros(1, WIDTH), torch.tensor([[threshold]]), torch.tensor([limit])
        )
    return depth.item() == 1, held.item()


numbers = st.sampled_from([*EXTREMES, -1.0, 0.0, 1.0, 2.0])


@given(st.sampled_from(["exit", "skip"]), numbers, numbers, numbers, numbers)
def test_a_row_skips_only_if_it_is_known_to_be_near_and_settled(
    policy, signal, threshold, distance, limit
):
    skips, held = run(policy, signal, threshold, distance, limit)
    near = limit == np.inf or distance <= limit
    assert held == (not near)
    assert skips == (near and np.isfinite(signal) and signal >= threshold)
    assert skips == (near and stops(np.float32([signal]), np.float32([threshold])).item())


@pytest.mark.parametrize("policy", ["exit", "skip"])
@pytest.mark.parametrize("value", EXTREMES)
def test_with_the_router_off_everything_runs_and_nothing_is_held_back(policy, value):
    assert run(policy, value, np.inf, value, np.inf) == (False, False)


# --- thresholds from signals that are not finite ---


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]), st.floats(0, 1))
def test_rows_without_a_signal_change_no_threshold(seed, value, rate):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((60, 3), dtype=np.float32)
    agrees = rng.random((60, 3)) < 0.8
    more = np.concatenate([signal, np.full((9, 3), value, np.float32)])
    wrong = np.concatenate([agrees, np.zeros((9, 3), dtype=bool)])
    for search in (greedy, by_stage):
        expected = search(signal, agrees, rate)
        np.testing.assert_array_equal(search(more, wrong, rate), expected)
    thresholds, depths = greedy(signal, agrees, rate), np.array([1, 2, 3, 4])
    differ, mean_depth = simulate(thresholds, signal, agrees, depths)
    found = simulate(thresholds, more, wrong, depths)
    assert found == pytest.approx((differ * 60 / 69, (mean_depth * 60 + 4 * 9) / 69))
    assert simulate(np.full(3, np.inf, np.float32), more, wrong, depths) == (0, 4)


@pytest.mark.parametrize("policy", ["exit", "skip"])
def test_rows_that_overflow_leave_the_candidates_as_they_are(policy):
    network, known = network_of(), torch.from_numpy(ordinary(WIDTH, 0, count=400))
    config = RouterConfig(signal="norm", policy=policy, guard=1.0)
    router, limit = fit_router(config, network, [1, 2], known, known)
    assert limit == np.inf
    overflowing = torch.full((5, WIDTH), LARGEST)
    overflowing[:, ::2] *= -1
    expected = propose(network, router, known, limit)
    found = propose(network, router, torch.cat([known, overflowing]), limit)
    assert not np.isnan(found).any()
    assert max(one[np.isfinite(one)].max() for one in found) < 1e3
    assert len(found) >= len(expected) / 2


def test_a_limit_beyond_which_nothing_lies_is_refused():
    network, known = network_of(), torch.from_numpy(ordinary(WIDTH, 0, count=400))
    network.scaling.deviation.fill_(1e-3)
    calibration = known.clone()
    calibration[:4] = LARGEST  # one in a hundred, the guard would allow one in two hundred
    with pytest.raises(ConfigError, match="4 of 400 calibration rows overflow"):
        fit_router(RouterConfig(signal="norm"), network, [1], known, calibration)
    _, limit = fit_router(RouterConfig(signal="norm", guard=0.95), network, [1], known, calibration)
    assert np.isfinite(limit)
    with pytest.raises(ConfigError, match="4 of 400 rows that the guard is fitted to overflow"):
        fit_router(RouterConfig(signal="norm"), network, [1], calibration, known)


@pytest.mark.parametrize("value", FILLS[:5])
@pytest.mark.parametrize("policy", ["exit", "skip"])
def test_one_fill_value_holds_its_row_back(policy, value):
    network, known = network_of(), torch.from_numpy(ordinary(WIDTH, 0, count=400))
    config = RouterConfig(signal="confidence", policy=policy)
    router, limit = fit_router(config, network, [1, 2], known, known)
    rows = known[:WIDTH].clone()
    rows[range(WIDTH), range(WIDTH)] = value
    with torch.no_grad():
        _, depth, held, _ = RoutedNetwork(network, router)(
            rows, torch.full((WIDTH, 2), -torch.inf), torch.full((WIDTH,), limit)
        )
    assert held.all()
    assert depth.tolist() == [DEPTH] * WIDTH
