"""The manifests in deploy/kubernetes/, built by kustomize and checked against real schemas."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import latest_version
from typer.main import get_command

from skipserve.cli import app

# Each worker builds the folders when it reads this file.
pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize(("pod", "container"), pods())
def test_a_pod_meets_the_restricted_standard(pod, container):
    """Kubernetes' pod security standard of that name, and a read-only root file system."""
    own = container["securityContext"]
    whole = {**pod.get("securityContext", {}), **own}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert whole["runAsNonRoot"] is True
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    assert (whole["runAsUser"], whole["runAsGroup"]) == tuple(map(int, user.groups()))
    assert {volume["name"] for volume in pod["volumes"]} == {
        mount["name"] for mount in container["volumeMounts"]
    }


@pytest.mark.parametrize(("pod", "container"), pods())
def test_a_pod_can_write_where_the_image_writes(pod, container):
    writable = {
        mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
    }
    state = {each["name"]: each["value"] for each in container["env"]}["SKIPSERVE_STATE"]
    assert writable == {"/tmp", state}
    assert f"SKIPSERVE_STATE={state}\n" in DOCKERFILE


@pytest.mark.parametrize(("pod", "container"), pods())
def test_the_arguments_are_ones_that_serve_takes(pod, container):
    command, *given = container["args"]
    options = get_command(app).commands[command].make_context(command, given).params
    assert options["host"] == "0.0.0.0"
    assert str(options["model_store"]) in ("/models", "/mnt/models")


@pytest.mark.parametrize(("pod", "container"), pods())
def test_threads_are_counted_in_whole_cpus(pod, container):
    limits = container["resources"]["limits"]
    assert float(limits["cpu"]) == int(limits["cpu"]) >= 1
    assert container["resources"]["requests"]["cpu"] == limits["cpu"]


@pytest.mark.parametrize(("pod", "container"), pods())
def test_the_clusters_variables_do_not_become_settings_of_ours(pod, container):
    """Of a Service `skipserve`, Kubernetes makes SKIPSERVE_PORT=tcp://…, unless told not to."""
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize(("pod", "container"), pods())
def test_a_pod_has_time_to_drain(pod, container):
    asleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= asleep + 30


@pytest.mark.parametrize(("pod", "container"), pods())
def test_probes_ask_ports_that_are_there(pod, container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    asked = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
    }
    found = {
        name: (get["path"], ports.get(get["port"], get["port"])) for name, get in asked.items()
    }
    if container["name"] == "kserve-container":
        ready, live = ("/v2/health/ready", 8080), ("/v2/health/live", 8080)
    else:
        ready, live = ("/ready", 9464), ("/live", 9464)
    assert found == {"startup": ready, "readiness": ready, "liveness": live}
    assert set(ports.values()) == {8080, 9464}


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


def adapter_rule() -> dict[str, Any]:
    values = yaml.safe_load((DEPLOY / "prometheus-adapter/values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    return rule


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes():
    autoscaler = one("overlays/shared-volume", "HorizontalPodAutoscaler")["spec"]
    (asked,) = (each["pods"] for each in autoscaler["metrics"] if each["type"] == "Pods")
    rule = adapter_rule()
    series = rule["seriesQuery"].partition("{")[0]
    assert asked["metric"]["name"] == re.sub(rule["name"]["matches"], rule["name"]["as"], series)
    assert asked["target"]["type"] == "AverageValue"


def test_the_adapters_query_is_the_95th_percentile_of_each_pods_wait(tmp_path):
    """The adapter fills in the template; promtool has Prometheus evaluate what it asks."""
    rule = adapter_rule()
    query = rule["metricsQuery"]
    for name, value in {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": 'namespace="here",pod=~"busy|idle|two-models"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(name, value)
    assert "<<" not in query
    query = f"round({query}, 0.001)"

    def series(pod: str, le: str, added: int, model: str = "m", namespace: str = "here"):
        labels = f'namespace="{namespace}",pod="{pod}",model="{model}",le="{le}"'
        return {
            "series": f"skipserve_queue_wait_seconds_bucket{{{labels}}}",
            "values": f"7+{added}x8",
        }

    # 95 of 100 waited at most 0.001 + 0.009 × (95 − 90) / 10 = 0.0055 s.
    told = {
        "busy": {"m": (90, 100)},
        "idle": {"m": (0, 0)},
        "two-models": {"m": (80, 80), "n": (10, 20)},
    }
    rows = [
        series(pod, le, added, model)
        for pod, models in told.items()
        for model, (short, all_) in models.items()
        for le, added in (("0.001", short), ("0.01", all_), ("+Inf", all_))
    ]
    rows += [series("busy", le, 50, namespace="there") for le in ("0.001", "0.01", "+Inf")]
    expected = {"busy": 5.5, "idle": 0, "two-models": 5.5}
    test = {
        "tests": [
            {
                "interval": "15s",
                "input_series": rows,
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "2m",
                        "exp_samples": [
                            {"labels": f'{{pod="{pod}"}}', "value": value}
                            for pod, value in expected.items()
                        ],
                    }
                ],
            }
        ]
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_older_kubernetes_says_what_it_does_not_know(checked):
    status, told = checked(DEPLOY / "base", "--kubernetes", "1.28")
    assert status == 1
    assert "preStop: Additional properties are not allowed ('sleep' was unexpected)" in told
