"""The FP32 fallback: rows that overflow FP16 are answered in FP32 or refused, and counted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.export import export_artifact
from skipserve.artifacts.graphs import Precisions
from skipserve.artifacts.origin import Routing
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import InputError
from skipserve.protocols.messages import RawRequest
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.fit import fit_router
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting
from skipserve.service.service import Service
from skipserve.sources.recipe import recipe_origin, recipe_splits
from skipserve.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

DEPTH = 4
BEYOND_FP16 = np.float32([[1e6, -2e6], [3e5, 1e7]])
BEYOND_FP32 = np.float32([[3e38, -3e38]])


@pytest.fixture(scope="module")
def routed(checkpoint, recipe, tmp_path_factory):
    """The small network with a router that lets near rows leave, in both precisions."""
    directory = tmp_path_factory.mktemp("wider") / "small"
    trained = load_checkpoint(checkpoint)
    origin, splits = recipe_origin(trained, recipe), recipe_splits(recipe)
    exits = ExitsConfig(at=(1, 2), first=1, hidden=0, corrupted=False)
    routing = Routing(exits, RouterConfig(signal="norm"))
    rows = splits.fit.rows, splits.propose.rows
    routing.fitted["fp32"] = fit_router(origin.network, exits, routing.router, *rows)
    files = ("torchscript",), ("fp32", "fp16")
    networks = Precisions(origin.network, splits.fit.rows)
    export_artifact("small", origin, networks, *files, directory, routing)
    return open_artifact(directory)


def half(artifact, backend):
    return Engine(artifact, backend=backend, precision="fp16", provider="cpu")


def without_fp32(artifact):
    files = tuple(file for file in artifact.manifest.files if file.precision == "fp16")
    return replace(artifact, manifest=artifact.manifest.model_copy(update={"files": files}))


@pytest.mark.parametrize("backend", ["onnxruntime", "torchscript"])
def test_rows_beyond_fp16_are_answered_as_the_fp32_file_does(artifact, rows, backend):
    batch = np.concatenate([rows[:3], BEYOND_FP16, rows[3:5]])
    far = np.isin(np.arange(len(batch)), (3, 4))
    wide = Engine(artifact, backend=backend, precision="fp32", provider="cpu")
    alone = half(without_fp32(artifact), backend)
    alone = alone.run(alone.check(batch))
    overflows = ~np.isfinite(alone.answers).all(axis=1)
    # ONNX Runtime's CPU provider computes FP16 in FP32 and keeps what lies between two operations.
    np.testing.assert_array_equal(overflows, far)
    answers = half(artifact, backend).predict(batch)
    expected = wide.predict(batch[far])
    np.testing.assert_array_equal(answers.labels[far], expected.labels)
    np.testing.assert_allclose(answers.answers[far], expected.answers, atol=1e-6)
    np.testing.assert_array_equal(answers.answers[~far], alone.answers[~far])
    if backend == "torchscript":
        np.testing.assert_array_equal(answers.reran, far)


def test_with_a_router_they_are_held_back_and_run_everything(routed, rows):
    engine = half(routed, "torchscript")
    batch = np.concatenate([rows[:3], BEYOND_FP16])
    setting = Setting(np.full(2, -np.inf, np.float32), routed.manifest.router.guard_limit)
    answers = engine.run_batches(engine.check(batch), setting, 5)
    assert answers.held_back.tolist() == [False] * 3 + [True] * 2
    assert answers.depth_run.tolist() == [1] * 3 + [DEPTH] * 2
    wide = Engine(routed, backend="torchscript", precision="fp32", provider="cpu")
    expected = wide.predict(BEYOND_FP16)
    np.testing.assert_allclose(answers.answers[3:], expected.answers, atol=1e-6)


def test_without_the_fp32_file_they_are_refused(artifact, rows):
    engine = half(without_fp32(artifact), "torchscript")
    with pytest.raises(InputError, match="row 1 is finite but overflows"):
        engine.predict(np.concatenate([rows[:1], BEYOND_FP16]))


def test_a_file_that_has_gone_costs_the_rows_that_need_it_alone(artifact, rows, tmp_path, caplog):
    copy = shutil.copytree(artifact.directory, tmp_path / "copy")
    engine = half(open_artifact(copy), "torchscript")
    (copy / "plain.fp32.pt").unlink()
    batch = np.concatenate([rows[:1], BEYOND_FP16])
    for _ in range(2):
        answers = engine.run(engine.check(batch))
        assert np.isfinite(answers.answers).all(axis=1).tolist() == [True, False, False]
    said = [record.message for record in caplog.records if record.name.startswith("skipserve")]
    assert len(said) == 1
    assert said[0].startswith("small refuses rows that overflow FP16: ")
    assert "plain.fp32.pt" in said[0]


def count(answer: str) -> float:
    labels = {"model": "small", "answer": answer}
    return REGISTRY.get_sample_value("skipserve_overflow_rows_total", labels) or 0.0


@pytest.mark.parametrize("name", ["artifact", "routed"])
def test_they_are_counted(request, name, rows):
    service = Service(half(request.getfixturevalue(name), "torchscript"), ServingConfig(evidence=0))

    def ask(inputs):
        body = json.dumps({"inputs": inputs.tolist()}).encode()
        return RawRequest(body, {"content-type": "application/json"})

    before = count("fp32"), count("refused")
    replies = service.answer([ask(rows[:2]), ask(BEYOND_FP16), ask(BEYOND_FP32)])
    assert [reply.status for reply in replies] == [200, 200, 400]
    assert json.loads(replies[2].body)["error"]["code"] == "not_finite"
    assert (count("fp32") - before[0], count("refused") - before[1]) == (2, 1)
