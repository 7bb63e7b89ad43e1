"""Exported files over all of float32: the unfamiliar is never skipped, and harms no neighbour."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from conftest import REORDERED
from extremes import batches, ordinary
from hypothesis import HealthCheck, given, settings

from skipserve.artifacts.formats import write_model
from skipserve.artifacts.manifest import model_file_name
from skipserve.artifacts.trail import Trail
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.routed import RoutedNetwork
from skipserve.routing.stopping import stops
from skipserve.runtime.backends import open_backend

FEATURES, DEPTH, DECISIONS = 12, 3, (1, 2)
EXTREME, ORDINARY = 5, 7
NAMES = ("probabilities", "depth_run", "held_back", "signals")
FAMILIES = {
    "mlp": {"width": 8},
    "convnet": {"width": 8, "kernel": 3},
    "encoder": {"width": 8, "patch": 4, "heads": 2, "expansion": 2},
}
# Every family, signal and policy; all pairs of the last two are tried eagerly.
CASES = [
    ("mlp", "norm", "exit"),
    ("convnet", "projected_norm", "skip"),
    ("convnet", "confidence", "exit"),
    ("encoder", "margin", "skip"),
]
SIGNALS = ("norm", "projected_norm", "margin", "confidence")
EAGER = [("convnet", signal, policy) for signal in SIGNALS for policy in ("exit", "skip")]
FILES = [("onnx", "fp32"), ("onnx", "fp16"), ("torchscript", "fp32")]
RUNS = [
    *((case, ("eager", "fp32")) for case in EAGER),
    *((case, file) for case in CASES for file in FILES),
]
FAR = 1e6  # deviations: no ordinary row comes near


@cache
def network_of(family):
    torch.manual_seed(1)
    config = {"family": family, "inputs": [FEATURES], "classes": 3, "depth": DEPTH}
    return build_network(parse_network(config | FAMILIES[family])).eval()


@cache
def router_of(case):
    family, signal, policy = case
    known, fresh = (torch.from_numpy(ordinary(FEATURES, i, count=500)) for i in (1, 2))
    config = RouterConfig(signal=signal, policy=policy, guard=0.99)
    return fit_router(config, network_of(family), DECISIONS, known, fresh)


@cache
def medians(case):
    """A threshold in the middle of each decision's signals."""
    network, (router, _) = network_of(case[0]), router_of(case)
    with torch.no_grad():
        streams = list(network.streams(torch.from_numpy(ordinary(FEATURES, 3, count=200))))
        pairs = zip(router.signals, router.decisions, strict=True)
        signals = [signal(network.pool(streams[blocks])).median() for signal, blocks in pairs]
    return np.float32(signals)


def eager(case):
    routed = RoutedNetwork(network_of(case[0]), router_of(case)[0]).eval()

    def call(fed):
        with torch.no_grad():
            answers = routed(*map(torch.from_numpy, fed.values()))
        return dict(zip(NAMES, (one.numpy() for one in answers), strict=True))

    return call


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: "-".join((*run[0], *run[1])))
def opened(request, tmp_path_factory):
    """A case, and what runs it: eager PyTorch or an exported file."""
    case, (format, precision) = request.param
    if format == "eager":
        return case, precision, eager(case)
    file = tmp_path_factory.mktemp("extreme") / model_file_name(format, precision)
    write_model(network_of(case[0]), format, precision, file, router_of(case)[0])
    return case, precision, open_backend(file, NAMES).run


def feeds(rows, thresholds, limit):
    count = len(rows)
    return {
        "inputs": rows,
        "thresholds": np.tile(np.float32(thresholds), (count, 1)),
        "guard_limit": np.full(count, limit, dtype=np.float32),
    }


def check_decisions(case, got, fed):
    """Every row ran as deep as what the file itself says of its signals asks."""
    trail = Trail(got["signals"], got["depth_run"], DECISIONS, case[2])
    signals = trail.signals()
    asked = np.where(got["held_back"][:, None], np.inf, fed["thresholds"])
    stopped = stops(signals, asked)
    if case[2] == "exit":
        first = np.where(stopped.any(axis=1), stopped.argmax(axis=1), len(DECISIONS))
        expected = np.array([*DECISIONS, DEPTH])[first]
    else:
        expected = DEPTH - stopped.sum(axis=1)
    np.testing.assert_array_equal(got["depth_run"], expected)


# Thresholds below every signal and among them: what is left is the guard and the signals.
@pytest.mark.parametrize("bold", [True, False], ids=["all stop", "half stop"])
def test_what_is_far_is_held_back_and_runs_everything(opened, bold):
    case, precision, run = opened
    limit = router_of(case)[1]
    thresholds = [-np.inf, -np.inf] if bold else medians(case)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        fed = feeds(rows, thresholds, limit)
        got = run(fed)
        far = np.abs(rows).max(axis=1) >= FAR
        assert got["held_back"][far].all()
        assert (got["depth_run"][got["held_back"]] == DEPTH).all()
        check_decisions(case, got, fed)
        if precision == "fp32":
            near, unclear = distances(case, rows, limit)
            np.testing.assert_array_equal(got["held_back"][~unclear], ~near[~unclear])

    check()


def distances(case, rows, limit):
    """Whether rows lie within the limit of the eager guard, and whether that is a close call."""
    with torch.no_grad():
        stream = list(network_of(case[0]).streams(torch.from_numpy(rows)))[DECISIONS[0]]
        distance = router_of(case)[0].guard(stream).numpy()
    with np.errstate(invalid="ignore"):
        return distance <= limit, np.abs(distance - limit) <= 1e-3 * limit


def test_with_the_guard_off_a_row_stops_by_its_signals_alone(opened):
    case, _, run = opened

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        fed = feeds(rows, medians(case), np.inf)
        got = run(fed)
        assert not got["held_back"].any()
        check_decisions(case, got, fed)

    check()


def test_with_the_router_off_every_block_runs(opened):
    _, _, run = opened

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        got = run(feeds(rows, [np.inf, np.inf], np.inf))
        assert got["depth_run"].tolist() == [DEPTH] * EXTREME
        assert not got["held_back"].any()

    check()


def test_neighbours_are_answered_as_without_it(opened):
    case, precision, run = opened
    limit = router_of(case)[1]
    near = ordinary(FEATURES, 7, count=ORDINARY + EXTREME)
    alone = run(feeds(near, medians(case), limit))
    assert len(set(alone["depth_run"][:ORDINARY].tolist())) > 1
    tolerance = REORDERED if precision == "fp32" else 1e-3

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        got = run(feeds(np.concatenate([near[:ORDINARY], rows]), medians(case), limit))
        for name in ("depth_run", "held_back"):
            np.testing.assert_array_equal(got[name][:ORDINARY], alone[name][:ORDINARY])
        np.testing.assert_allclose(
            got["probabilities"][:ORDINARY],
            alone["probabilities"][:ORDINARY],
            rtol=0,
            atol=tolerance,
        )

    check()
