"""Exported files over all of float32: the guard holds back, and neighbours are not harmed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from cutting import run_one_file, same_limits, write
from examples import examples
from extremes import batches, ordinary
from hypothesis import HealthCheck, given, settings
from small_project import REORDERED

from skipserve.artifacts.torch_files import plain_graph, write_torchscript
from skipserve.networks import build_network, parse_network
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.routing.network import network_of
from skipserve.runtime.backends import TorchScript
from skipserve.runtime.rows import Rows
from skipserve.sources.recipe import signature_of
from skipserve.tasks import Classify

pytestmark = pytest.mark.slow

FEATURES, DEPTH, EXTREME, ORDINARY = 12, 3, 5, 7
FAMILIES = {
    "mlp": {"width": 8, "norm": "none"},
    "convnet": {"width": 8, "kernel": 3},
    "encoder": {"width": 8, "patch": 4, "heads": 2, "expansion": 2},
}
CASES = [
    ("mlp", "norm", "exit"),
    ("convnet", "projected_norm", "skip"),
    ("encoder", "margin", "exit"),
    ("mlp", "confidence", "exit"),
]
FAR = 1e6  # deviations: no ordinary row comes near
quick = settings(
    max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow], deadline=None
)


@cache
def fitted(case):
    """A network with random weights, and a router for it."""
    family, signal, policy = case
    torch.manual_seed(1)
    config = {"family": family, "inputs": [FEATURES], "classes": 3, "depth": DEPTH}
    module = build_network(parse_network(config | FAMILIES[family])).eval()
    network = network_of(
        plain_graph(module), signature_of(module.config), Classify(classes=3), DEPTH
    )
    known, fresh = (Rows({"inputs": ordinary(FEATURES, i, count=500)}) for i in (1, 2))
    exits = ExitsConfig(at=(0, 1, 2), first=0, hidden=0, corrupted=False, guard=0.99)
    router = fit_router(network, exits, RouterConfig(signal=signal, policy=policy), known, fresh)
    return module, network, router.exits


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def opened(request, tmp_path_factory):
    """A case, and all that runs it: stages, the one-file form, TorchScript."""
    case = request.param
    module, network, exits = fitted(case)
    folder = tmp_path_factory.mktemp("extreme")
    rows = {"inputs": ordinary(FEATURES, 3, count=8)}
    stepper, _, one = write(network, rows, exits, folder, case[2])
    write_torchscript(module, "fp32", folder / "model.pt", exits, case[2])
    script = TorchScript(folder / "model.pt", len(exits), DEPTH)

    def whole(rows, limits):
        return run_one_file(one, {"inputs": rows}, limits)

    def stages(rows, limits):
        got = stepper.run(Rows({"inputs": rows}), limits)
        return got.answers, got.depth_run, got.held_back

    def scripted(rows, limits):
        got = script.run(Rows({"inputs": rows}), limits)
        return got.answers, got.depth_run, got.held_back

    ordinary_rows = Rows({"inputs": ordinary(FEATURES, 3, count=200)})
    signals = stepper.run(ordinary_rows, same_limits(200, [3e38] * len(exits))).signals
    return (stages, whole, scripted), np.median(signals, axis=0)


def test_what_is_far_is_held_back_and_runs_everything(opened):
    runs, medians = opened

    @quick
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        far = np.abs(rows).max(axis=1) >= FAR
        for thresholds in (np.full_like(medians, -np.inf), medians):
            for run in runs:
                _, depth, held = run(rows, same_limits(EXTREME, thresholds, 1.0))
                assert held[far].all()
                assert (depth[held] == DEPTH).all()

    check()


def test_with_the_router_off_every_block_runs(opened):
    runs, medians = opened

    @quick
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        for run in runs:
            _, depth, held = run(rows, same_limits(EXTREME, np.full_like(medians, np.inf)))
            assert depth.tolist() == [DEPTH] * EXTREME
            assert not held.any()

    check()


def test_neighbours_are_answered_as_without_it(opened):
    runs, medians = opened
    near = ordinary(FEATURES, 7, count=ORDINARY + EXTREME)
    limits = same_limits(ORDINARY + EXTREME, medians, 1.0)
    expected = runs[0](near, limits)
    assert len(set(expected[1][:ORDINARY].tolist())) > 1

    @quick
    @given(batches(EXTREME, FEATURES))
    def check(rows):
        for run in runs:
            answer, depth, held = run(np.concatenate([near[:ORDINARY], rows]), limits)
            np.testing.assert_array_equal(depth[:ORDINARY], expected[1][:ORDINARY])
            np.testing.assert_array_equal(held[:ORDINARY], expected[2][:ORDINARY])
            np.testing.assert_allclose(
                answer[:ORDINARY], expected[0][:ORDINARY], rtol=0, atol=10 * REORDERED
            )

    check()
