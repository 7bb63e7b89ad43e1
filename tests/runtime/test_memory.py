"""Sessions of stages share one memory arena."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

MANY_SESSIONS = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
import onnx

from onnx import TensorProto, helper, numpy_helper
from skipserve.graph.memory import open_model
from skipserve.runtime.backends import open_onnx

sessions, columns = 6, 1 << 20
nodes = [
    helper.make_node("MatMul", ["x", "w"], ["wide"]),
    helper.make_node("ReduceMax", ["wide"], ["out"], keepdims=1),
]
weight = numpy_helper.from_array(np.ones((1, columns), np.float32), "w")
graph = helper.make_graph(
    nodes,
    "wide",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
    [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None])],
    [weight],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
file = Path(tempfile.mkdtemp()) / "wide.onnx"
onnx.save(model, file)
rows = {"x": np.ones((32, 1), np.float32)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(sessions):
    if sys.argv[1] == "fitting":
        open_ = open_model(model, arena=False)
        open_.run(None, rows)
    else:
        open_, _ = open_onnx(file)
        open_.run(rows)
    kept = [*globals().get("kept", []), open_]
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
# Each session holds its weights, more than once; and what its widest run takes on top.
print((more / 1024 - sessions * columns * 4 / 2**20) / (32 * columns * 4 / 2**20))
"""


@pytest.mark.parametrize("use", ["fitting", "serving"])
def test_they_take_the_memory_of_few_runs(use):
    command = [sys.executable, "-c", MANY_SESSIONS, use]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 3.5  # times what one run takes; six with an arena each
