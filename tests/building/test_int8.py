"""INT8 in a build: quantised once, on the rows to fit on, and guarded at the same cuts as FP32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from residual_graphs import WIDTH, wide
from small_router import small_router

from skipserve.artifacts.artifact import open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.products import export
from skipserve.building.sourced import Sourced
from skipserve.graph.precision import to_int8
from skipserve.routing.reading import read_all
from skipserve.runtime.runners import open_runner

pytestmark = pytest.mark.slow

MODEL = """
name = "wide"
[source]
onnx = "wide.onnx"
[data]
rows = "rows.npz"
[export]
formats = ["onnx"]
precisions = ["fp32", "int8"]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("int8")
    (root / "export").mkdir()
    onnx.save(wide(), root / "wide.onnx")
    rng = np.random.default_rng(0)
    # Long tails: the largest number of one set of rows is not that of another.
    rows = rng.standard_t(4, (3_000, WIDTH)).astype(np.float32)
    np.savez(root / "rows.npz", x=rows)
    file = root / "export" / "wide.toml"
    file.write_text(MODEL + small_router(0, 1, 2).replace("first = 0", "first = 2\nguard = 0.9"))
    build = read_build_file(file)
    sourced = Sourced(build)
    export(build, sourced=sourced)
    return open_artifact(build.artifact), sourced


def scales(model):
    """Scales of activations by name."""
    return {
        one.name: float(numpy_helper.to_array(one))
        for one in model.graph.initializer
        if one.name.endswith("_scale") and not one.dims
    }


def test_its_scales_come_from_the_rows_to_fit_on_and_not_from_those_of_the_report(built):
    artifact, sourced = built
    served = scales(onnx.load(artifact.directory / "plain.int8.onnx"))
    network = sourced.origin.network.model
    fitted = scales(to_int8(network, sourced.rows.fit.rows))
    tested = scales(to_int8(network, sourced.rows.test.rows))
    assert len(served) >= 3 and served.keys() == fitted.keys()
    assert served == pytest.approx(fitted, rel=1e-6)
    assert served != pytest.approx(tested, rel=1e-3)


def test_its_guards_hold_back_as_many_rows_as_those_of_fp32(built):
    artifact, sourced = built
    exits = [(one.blocks, one.leaves) for one in artifact.manifest.router.exits]
    assert exits == [(0, False), (1, False), (2, True)]
    for precision in ("fp32", "int8"):
        runner = open_runner(artifact, "onnxruntime", precision, "cpu", 1)
        read = read_all(runner, sourced.rows.propose.rows)
        assert read.distances.shape[1] == 3 and read.signals.shape[1] == 1
        outside = (read.distances > 1).any(axis=1)
        # Limits are quantiles over these very rows, but for the last bit at each.
        assert outside.sum() == pytest.approx(0.1 * len(outside), abs=3), precision
