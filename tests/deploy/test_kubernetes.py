"""The manifests in deploy/kubernetes/, built by kustomize and checked against real schemas."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import BUILT, CHECK, DEPLOY, FOLDERS, VERSIONS, check, one

# Each worker builds the folders when it reads this file.
pytestmark = pytest.mark.slow


@pytest.fixture
def checked(monkeypatch, capsys):
    """Runs the command in this process: its exit code, and what it printed."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [str(CHECK), *map(str, arguments)])
        return check.main(), capsys.readouterr().out

    return run


def test_what_there_is_to_build():
    assert FOLDERS == ["base", "kserve", "overlays/shared-volume", "overlays/small"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_one_of_kubernetes(folder, version):
    for manifest in BUILT[folder]:
        assert list(check.faults(manifest, version)) == [], manifest["metadata"]["name"]


def test_every_file_is_built_into_something():
    built = {(each["kind"], each["metadata"]["name"]) for all_ in BUILT.values() for each in all_}
    for file in DEPLOY.rglob("*.yaml"):
        for manifest in yaml.safe_load_all(file.read_text()):
            if manifest.get("kind") not in ("Kustomization", "Component", None):
                assert (manifest["kind"], manifest["metadata"]["name"]) in built, file


def test_the_command_says_nothing_where_nothing_is_wrong():
    command = [sys.executable, CHECK, *(DEPLOY / folder for folder in FOLDERS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def patch(**of: str) -> str:
    """A kustomization that changes one field of `small` or `shared-volume`."""
    return f"""\
resources: [../{of["of"]}]
patches:
  - target: {{kind: {of["kind"]}}}
    patch: |-
      - {{op: add, path: {of["path"]}, value: {of["value"]}}}
"""


CONTAINER = "/spec/template/spec/containers/0"
WRONG = [
    pytest.param(
        "resources: [../small]\nreplicas: [{name: skipserve, count: three}]",
        "string into Go struct field Replica.replicas.count of type int64",
        id="replicas of kustomize",
    ),
    pytest.param(
        patch(of="small", kind="Deployment", path="/spec/replicas", value='"3"'),
        "Deployment/skipserve: spec.replicas: '3' is not of type 'integer', 'null'",
        id="replicas",
    ),
    pytest.param(
        patch(of="small", kind="Deployment", path=f"{CONTAINER}/env/0/value", value="true"),
        "spec.template.spec.containers.0.env.0.value: True is not of type 'string', 'null'",
        id="a variable that is no text",
    ),
    pytest.param(
        patch(of="small", kind="Deployment", path=f"{CONTAINER}/resources/limit", value="{cpu: 1}"),
        "resources: Additional properties are not allowed ('limit' was unexpected)",
        id="a field that there is not",
    ),
    pytest.param(
        patch(
            of="shared-volume",
            kind="HorizontalPodAutoscaler",
            path="/spec/metrics/1/resource/target/averageUtilization",
            value="70%",
        ),
        "averageUtilization: '70%' is not of type 'integer', 'null'",
        id="percent",
    ),
    pytest.param(
        patch(
            of="shared-volume",
            kind="ServiceMonitor",
            path="/spec/endpoints/0/interval",
            value="15",
        ),
        "skipserve: spec.endpoints.0.interval: Input should be a valid string, not 15",
        id="interval of a ServiceMonitor",
    ),
    pytest.param(
        patch(
            of="shared-volume", kind="ServiceMonitor", path="/spec/endpoints/0/every", value="15s"
        ),
        "ServiceMonitor/skipserve: spec.endpoints.0.every: there is no such field",
        id="field of a ServiceMonitor",
    ),
    pytest.param(
        "resources: [../../kserve]\npatches:\n  - target: {kind: ServingRuntime}\n"
        "    patch: |-\n"
        "      - {op: add, path: /spec/containers/0/ports/0/containerPort, value: http}",
        "spec.containers.0.ports.0.containerPort: 'http' is not of type 'integer'",
        id="port of a ServingRuntime",
    ),
]


@pytest.mark.parametrize(("kustomization", "says"), WRONG)
def test_a_value_of_the_wrong_type_is_one_clear_line(tmp_path, checked, kustomization, says):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy/overlays/mine"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(kustomization)
    status, told = checked(folder)
    assert status == 1
    (line,) = told.splitlines()
    assert line.startswith(f"{folder}: ") and says in line


def test_a_folder_that_is_none_is_named(tmp_path, checked):
    status, told = checked(tmp_path)
    assert status == 1
    assert "unable to find one of 'kustomization.yaml'" in told


@pytest.mark.parametrize("folder", ["overlays/small", "overlays/shared-volume"])
def test_what_selects_pods_selects_these(folder):
    template = one(folder, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for manifest in BUILT[folder]:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                assert spec["selector"].items() <= labels
                assert {port["targetPort"] for port in spec["ports"]} == ports
            case "NetworkPolicy":
                assert spec["podSelector"]["matchLabels"].items() <= labels
                opened = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
                assert opened and set(opened) <= ports
            case "PodDisruptionBudget" | "Deployment":
                assert spec["selector"]["matchLabels"].items() <= labels
            case "HorizontalPodAutoscaler":
                assert (
                    spec["scaleTargetRef"]["name"] == one(folder, "Deployment")["metadata"]["name"]
                )
            case "ServiceMonitor":
                service = one(folder, "Service")
                assert (
                    spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
                )
                named = {port["name"] for port in service["spec"]["ports"]}
                assert {endpoint["port"] for endpoint in spec["endpoints"]} <= named


def test_replicas_share_what_they_must_share():
    manifests = BUILT["overlays/shared-volume"]
    claims = {
        manifest["metadata"]["name"]: manifest["spec"]["accessModes"]
        for manifest in manifests
        if manifest["kind"] == "PersistentVolumeClaim"
    }
    (container,) = one("overlays/shared-volume", "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    volumes = one("overlays/shared-volume", "Deployment")["spec"]["template"]["spec"]["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    shared = {
        mounts[volume["name"]]: claims[volume["persistentVolumeClaim"]["claimName"]]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    }
    assert shared == {"/models": ["ReadWriteMany"], "/state": ["ReadWriteMany"]}


def test_an_older_kubernetes_says_what_it_does_not_know(checked):
    status, told = checked(DEPLOY / "base", "--kubernetes", "1.28")
    assert status == 1
    assert "preStop: Additional properties are not allowed ('sleep' was unexpected)" in told
