"""The objects of KServe in deploy/kubernetes/kserve, checked by KServe's own models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from manifests import BUILT, ROOT, one

# Each worker builds the folders when it reads this file.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kserve(kserve_packages):
    """What KServe's own models find wrong with objects, by `kserve_objects.py`."""

    def ask(*manifests: dict[str, Any]) -> list[list[str]]:
        done = subprocess.run(
            [sys.executable, ROOT / "tests/support/kserve_objects.py"],
            input=json.dumps(manifests),
            env={**os.environ, "PYTHONPATH": str(kserve_packages)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def test_kserve_knows_its_objects(kserve):
    kinds = [manifest["kind"] for manifest in BUILT["kserve"]]
    assert sorted(kinds) == ["InferenceService", "ServingRuntime"]
    assert kserve(*BUILT["kserve"]) == [[], []]


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        ("InferenceService", "spec.predictor.maxReplicas", "4", "'4' is not of type int"),
        ("InferenceService", "spec.predictor.replicas", 4, "no such field in V1beta1PredictorSpec"),
        ("InferenceService", "spec.predictor.model.modelFormat", "skipserve", "is not a map"),
        ("ServingRuntime", "spec.protocolVersions", "v2", "'v2' is not a list"),
        ("ServingRuntime", "spec.multiModel", "no", "'no' is not of type bool"),
        ("ServingRuntime", "spec.containers", None, "`containers`, must not be `None`"),
        ("ServingRuntime", "apiVersion", "serving.kserve.io/v1", "KServe has no ServingRuntime"),
    ],
)
def test_kserve_finds_what_is_wrong(kserve, kind, path, value, says):
    manifest = json.loads(json.dumps(one("kserve", kind)))
    *parents, last = path.split(".")
    inner = manifest
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    ((fault,),) = kserve(manifest)
    assert says in fault


def test_kserve_asks_for_the_runtime_that_is_there():
    runtime = one("kserve", "ServingRuntime")
    service = one("kserve", "InferenceService")["spec"]["predictor"]
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    assert service["model"]["runtime"] == runtime["metadata"]["name"]
    assert service["model"]["modelFormat"]["name"] in formats
    assert service["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    (container,) = runtime["spec"]["containers"]
    # KServe's names: of the container it completes, and of the folder it fills.
    assert container["name"] == "kserve-container"
    assert "/mnt/models" in container["args"]
    # Where KServe sends requests: the first port.
    assert container["ports"][0]["containerPort"] == 8080
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == "9464"
