"""The pods of deploy/kubernetes/: their rights, their probes and their arguments."""

from __future__ import annotations

import re

import pytest
from manifests import DOCKERFILE, pods
from typer.main import get_command

from skipserve.cli import app

# Each worker builds the folders when it reads this file.
pytestmark = pytest.mark.slow


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
