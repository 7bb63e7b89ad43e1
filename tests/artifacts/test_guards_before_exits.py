"""Guards before the first exit: every form of an artifact, and its certificates, go by them."""

from __future__ import annotations

import numpy as np
import pytest
from small_project import ROUTED, build
from unbuilt import unbuilt

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.forms import _OneFile
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits

pytestmark = pytest.mark.slow

DEPTH = 4
FORMS = [("onnxruntime", "fp32"), ("torchscript", "fp32"), ("torchscript", "fp16")]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A router whose first exit stands behind two guards."""
    root = unbuilt(tmp_path_factory.mktemp("guards"))
    text = ROUTED.replace("first = 1", "first = 2").replace('["fp32"]', '["fp32", "fp16"]')
    (root / "export" / "small.toml").write_text(text)
    assert build(root) == ["train", "export", "calibrate", "package"]
    return open_artifact(root / "artifacts" / "small")


@pytest.fixture(scope="module")
def engine(artifact):
    return Engine(artifact, provider="cpu")


@pytest.fixture(scope="module")
def caught(engine):
    """Rows around the data that no guard but the one at depth 1 holds back."""
    around = np.random.default_rng(0).uniform(-4, 5, (200_000, 2)).astype(np.float32)
    read = engine.read(engine.check(around), 1_024)
    others = read.distances[:, [0, 2, 3]].max(axis=1)
    # With room on both sides: FP16 knows a distance less well.
    alone = np.flatnonzero((read.distances[:, 1] > 1.02) & (others < 0.98))[:40]
    assert len(alone) >= 5
    return Rows({"inputs": around[alone]})


def test_cuts_before_the_first_exit_are_there_and_only_guard(artifact):
    spec = artifact.manifest.router
    assert [(one.blocks, one.leaves) for one in spec.exits] == [
        *((0, False), (1, False), (2, True), (3, True)),
    ]
    assert spec.decisions == (2, 3)
    assert len(artifact.files("onnx", "fp32", "stage")) == 5


def test_a_row_that_one_of_them_sees_runs_everything_in_every_form(artifact, caught):
    count = len(caught)
    eager = np.full((count, 2), -np.inf, np.float32)
    for limit, depth in ((1.0, DEPTH), (np.inf, 2)):
        limits = Limits(eager, np.full(count, limit, np.float32))
        for backend, precision in FORMS:
            form = Engine(artifact, backend=backend, precision=precision, provider="cpu")
            got = form.run(caught, limits)
            assert got.depth_run.tolist() == [depth] * count, (backend, precision)
            assert got.held_back.tolist() == [limit == 1] * count, (backend, precision)
        (file,) = artifact.files("onnx", "fp32", "routed")
        one = _OneFile(file)(caught, limits)
        assert one.depth_run.tolist() == [depth] * count
        assert one.held_back.tolist() == [limit == 1] * count


def test_its_certificates_are_those_of_the_files_with_all_guards(artifact, engine, recipe):
    certificates = [
        one
        for one in artifact.certificates.certificates
        if one.measure == "disagreement" and set(one.files) <= set(artifact.hashes("onnx", "fp32"))
    ]
    samples = engine.check(recipe.draw("certify").inputs.numpy())
    full = engine.run_batches(samples, engine.off, 128)
    for risk in (0.02, 0.05):
        setting = engine.setting(risk)
        got = engine.run_batches(samples, setting, 128)
        (one,) = (one for one in certificates if one.risk == risk)
        assert one.disagreements == (got.labels != full.labels).sum()
        assert one.run_rate == pytest.approx(got.depth_run.mean() / DEPTH)
        assert one.held_back == pytest.approx(got.held_back.mean())
        assert one.held_back > 0
