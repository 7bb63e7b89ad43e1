"""The manifests in deploy/kubernetes/, as kustomize builds them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import latest_version

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
CHECK = DEPLOY / "check.py"

sys.path.insert(0, str(DEPLOY))
check = importlib.import_module("check")

FOLDERS = sorted(
    file.parent.relative_to(DEPLOY).as_posix()
    for file in DEPLOY.rglob("kustomization.yaml")
    if yaml.safe_load(file.read_text())["kind"] == "Kustomization"
)
BUILT = {folder: check.build(DEPLOY / folder) for folder in FOLDERS}
VERSIONS = [check.OLDEST, latest_version()]


def one(folder: str, kind: str) -> dict[str, Any]:
    (manifest,) = (manifest for manifest in BUILT[folder] if manifest["kind"] == kind)
    return manifest


def pods() -> list[Any]:
    """Every pod template: its specification, and the one container in it."""
    found = []
    for folder, manifests in BUILT.items():
        for manifest in manifests:
            if manifest["kind"] == "Deployment":
                pod = manifest["spec"]["template"]["spec"]
            elif manifest["kind"] == "ServingRuntime":
                # What a pod has of its own, and a runtime lacks, comes from the service.
                predictor = one(folder, "InferenceService")["spec"]["predictor"]
                pod = {**predictor, **manifest["spec"]}
            else:
                continue
            (container,) = pod["containers"]
            found.append(pytest.param(pod, container, id=folder))
    return found
