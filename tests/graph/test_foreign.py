"""Networks of transformers from both exporters: cut at every block, the answers stay."""

from __future__ import annotations

from itertools import product

import foreign
import numpy as np
import pytest
from cutting import (
    cut_everywhere,
    network_from,
    random_exits,
    run_one_file,
    run_stages,
    sessions_of,
    write,
)

from skipserve.graph.memory import open_model
from skipserve.graph.prepare import read_graph
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits

pytestmark = pytest.mark.slow

BATCHES, LENGTHS = (1, 2, 3, 8), (2, 5, 9, 32, 48)
LARGEST = 1e-4
CASES = list(product(foreign.NAMES, foreign.EXPORTERS))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(request, tmp_path_factory):
    """Name, file, and network of that file."""
    name, exporter = request.param
    file = tmp_path_factory.mktemp(name) / f"{exporter}.onnx"
    foreign.export(name, exporter, file)
    return name, file, network_from(file)


def test_every_residual_step_is_found(exported):
    name, _, network = exported
    assert network.depth == foreign.BLOCKS[name]
    # Where a ResNet changes its shape, both paths are weighed: neither is the stream itself.
    assert network.found.residual == (name != "resnet")
    assert network.signature.mask == (None if name in ("vit", "resnet") else "attention_mask")


def test_stages_compute_what_the_file_does_at_any_batch_and_length(exported):
    name, file, network = exported
    plain = open_model(read_graph(file))
    stages = cut_everywhere(network, foreign.rows(name, 4))
    sessions = sessions_of(stages)
    lengths = LENGTHS if network.signature.mask else (1,)
    pairs = list(product(BATCHES if len(lengths) > 1 else range(1, 21), lengths))
    assert len(pairs) == 20
    for batch, length in pairs:
        rows = foreign.rows(name, batch, length, seed=batch)
        (expected,) = plain.run(None, rows)
        got = run_stages(stages, sessions, rows)
        assert np.abs(got - expected).max() <= LARGEST, (batch, length)
        if batch > 2:  # some rows leave half-way
            keep = np.arange(batch) % 2 == 1
            got = run_stages(stages, sessions, rows, network.depth // 2, keep)
            assert np.abs(got - expected[keep]).max() <= LARGEST, (batch, length)


@pytest.mark.parametrize("signal", ["confidence", "margin"])
def test_stages_and_one_file_decide_alike_whoever_stands_beside_a_row(exported, tmp_path, signal):
    name, _, network = exported
    at = range(network.depth)
    exits = random_exits(network, foreign.rows(name, 4), at, signal)
    stepper, plain, one = write(network, foreign.rows(name, 4), exits, tmp_path)
    count = 12
    rows = foreign.rows(name, count, seed=3)
    read = stepper.read(Rows(rows))
    (full,) = plain.run(rows)
    assert np.abs(read.answers[:, -1] - full).max() <= LARGEST
    # Each row leaves at a cut of its own, half-way between what rows say there.
    thresholds = np.tile(np.quantile(read.signals, 0.55, axis=0), (count, 1)).astype(np.float32)
    thresholds[0], thresholds[1] = np.inf, -np.inf
    guard = np.full(count, np.median(read.distances.max(axis=1)), np.float32)
    guard[2], guard[3] = np.inf, 0
    limits = Limits(thresholds, guard)
    stepped = stepper.run(Rows(rows), limits)
    assert len(set(stepped.depth_run.tolist())) > 2
    assert 0 < stepped.held_back.sum() < count
    answer, depth, held = run_one_file(one, rows, limits)
    np.testing.assert_array_equal(depth, stepped.depth_run)
    np.testing.assert_array_equal(held, stepped.held_back)
    np.testing.assert_allclose(answer, stepped.answers, rtol=0, atol=LARGEST)
    for i in range(count):
        index = np.array([i])
        single = stepper.run(Rows(rows)[index], limits[index])
        assert single.depth_run[0] == stepped.depth_run[i]
        assert single.held_back[0] == stepped.held_back[i]
        assert np.abs(single.answers[0] - stepped.answers[i]).max() <= LARGEST
