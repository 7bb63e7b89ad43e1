"""Tensors that bypass the stream: inputs of every layer, and side rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from cutting import cut_everywhere, network_from, random_exits, run_stages, sessions_of, write
from drawn_graphs import Drawn
from torch import nn

from skipserve.graph.memory import open_model
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits

pytestmark = pytest.mark.slow


def mixed(tmp_path, layers=6):
    """The embedded input is mixed into every layer."""
    drawn = Drawn()
    embedded = drawn.weigh("x")
    x = drawn.weigh(embedded)
    for _ in range(layers):
        x = drawn.op("Add", x, drawn.weigh(drawn.op("Add", x, embedded)))
    file = tmp_path / "mixed.onnx"
    onnx.save(drawn.model(drawn.weigh(x)), file)
    return file


def rows_of(count, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((count, 4), dtype=np.float32)}


def test_a_tensor_that_every_layer_reads_travels_beside_the_stream(tmp_path):
    file = mixed(tmp_path)
    network = network_from(file, 4)
    assert network.depth >= 5
    assert len(network.found.around) == 1
    stages = cut_everywhere(network, rows_of(4))
    sessions = sessions_of(stages)
    plain = open_model(onnx.load(file))
    for count in (1, 2, 3, 8):
        rows = rows_of(count, count)
        (expected,) = plain.run(None, rows)
        np.testing.assert_allclose(run_stages(stages, sessions, rows), expected, atol=1e-4)
        keep = np.arange(count) % 2 == 0
        got = run_stages(stages, sessions, rows, 2, keep)
        np.testing.assert_allclose(got, expected[keep], atol=1e-4)


def test_it_loses_the_rows_that_the_stream_loses(tmp_path):
    file = mixed(tmp_path)
    network = network_from(file, 4)
    exits = random_exits(network, rows_of(4), range(network.depth), width=4)
    stepper, _, one = write(network, rows_of(4), exits, tmp_path)
    rows = rows_of(16, 5)
    read = stepper.read(Rows(rows))
    thresholds = np.tile(np.quantile(read.signals, 0.6, axis=0), (16, 1)).astype(np.float32)
    limits = Limits(thresholds, np.full(16, np.inf, np.float32))
    got = stepper.run(Rows(rows), limits)
    assert len(set(got.depth_run.tolist())) > 2
    feeds = {**rows, "thresholds": limits.thresholds, "guard_limit": limits.guard}
    answer, depth, _ = one.run(feeds)
    np.testing.assert_array_equal(depth, got.depth_run)
    np.testing.assert_allclose(answer, got.answers, atol=1e-5)
    for i in range(16):
        index = np.array([i])
        single = stepper.run(Rows(rows)[index], limits[index])
        assert single.depth_run[0] == got.depth_run[i]
        np.testing.assert_allclose(single.answers[0], got.answers[i], atol=1e-5)


class Sized(nn.Module):
    """A network that computes with sizes of its batch and its signal in every block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        stream = self.stem(x.unsqueeze(-1))
        batch, length = x.shape
        for block in self.blocks:
            update = block(stream).relu().reshape(batch * length, 8)
            stream = stream + update.reshape(batch, length, 8) / length
        return self.head(stream.mean(dim=1))


@pytest.mark.parametrize("dynamo", [True, False])
def test_sizes_follow_the_rows_that_are_left(tmp_path, dynamo):
    from skipserve.artifacts.torch_files import quietly

    torch.manual_seed(0)
    file = tmp_path / "sized.onnx"
    rows = torch.randn(3, 7)
    with quietly(), torch.no_grad():
        if dynamo:
            dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
            program = torch.onnx.export(
                Sized().eval(), (rows,), dynamo=True, dynamic_shapes=(dims,), verbose=False,
                input_names=["x"], output_names=["out"],
            )  # fmt: skip
            program.save(str(file))
        else:
            axes = {"x": {0: "batch", 1: "length"}, "out": {0: "batch"}}
            torch.onnx.export(
                Sized().eval(), (rows,), str(file), dynamo=False, dynamic_axes=axes,
                input_names=["x"], output_names=["out"], opset_version=17,
            )  # fmt: skip
    network = network_from(file, 4)
    assert network.depth == 3
    stages = cut_everywhere(network, {"x": rows.numpy()})
    sessions = sessions_of(stages)
    plain = open_model(onnx.load(file))
    for count, length in ((1, 5), (2, 7), (5, 3), (9, 11)):
        x = np.random.default_rng(count).standard_normal((count, length), dtype=np.float32)
        (expected,) = plain.run(None, {"x": x})
        keep = np.arange(count) % 2 == 0
        got = run_stages(stages, sessions, {"x": x}, 1, keep)
        np.testing.assert_allclose(got, expected[keep], atol=1e-5)
