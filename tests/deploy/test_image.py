"""The files of the image, without building it; deploy/image/try.py runs the image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The lock files are for Python 3.11 on Linux, whatever runs this.
IMAGE = {"python_version": "3.11", "sys_platform": "linux"}


def locked(target: str) -> dict[str, str]:
    """Name and version of every package in a lock file; each must have a hash."""
    text = (ROOT / f"deploy/image/requirements-{target}.txt").read_text()
    entries = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M
    )
    assert len(entries) == len(re.findall(r"^[\w.-]+", text, re.M))
    return {canonicalize_name(name): version for name, version, _ in entries}


@pytest.mark.parametrize("target", ["slim", "cpu", "gpu"])
def test_the_lock_files_hold_what_the_package_asks_for(target):
    versions = locked(target)
    extras = PROJECT["optional-dependencies"]
    heavy = [] if target == "slim" else extras["torchserve"]
    runs = extras["cpu" if target == "slim" else target]
    asked = PROJECT["dependencies"] + extras["otel"] + heavy + runs
    for line in asked:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate(IMAGE):
            continue
        version = versions.get(canonicalize_name(requirement.name))
        remedy = f"requirements-{target}.txt has {version}; run deploy/image/lock.sh"
        assert version and requirement.specifier.contains(version), f"{line}: {remedy}"
    assert ("torch" in versions) == ("torchserve" in versions) == bool(heavy)
    # The same files: whichever is installed last overwrites the other's.
    assert len({"onnxruntime", "onnxruntime-gpu"} & versions.keys()) == 1


def test_cuda_of_torch_and_of_onnxruntime_is_one():
    versions = locked("gpu")
    assert tuple(map(int, versions["onnxruntime-gpu"].split(".")[:2])) >= (1, 27)  # CUDA 13
    assert versions["nvidia-cuda-runtime"].startswith("13.")
    assert "nvidia-cudnn-cu13" in versions


def test_what_the_image_copies_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M)
    sources = {name for line in copies for name in line.split() if not name.startswith("$")}
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in let_in), f"{source} is ignored"


class NotReady(BaseHTTPRequestHandler):
    status = 503

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Ready(NotReady):
    status = 200


@pytest.mark.parametrize(("answer", "status"), [(Ready, 0), (NotReady, 1), (None, 1)])
def test_the_health_check_asks_ready(answer, status):
    command = json.loads(re.search(r"HEALTHCHECK .*\n\s*CMD (\[.*\])", DOCKERFILE).group(1))
    with ThreadingHTTPServer(("127.0.0.1", 0), answer or NotReady) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        if answer is None:  # nobody listens
            server.shutdown()
            server.server_close()
        environment = {**os.environ, "SKIPSERVE_METRICS_PORT": str(server.server_port)}
        done = subprocess.run(command, env=environment, capture_output=True)
        server.shutdown()
        thread.join()
    assert done.returncode == status


def test_compose_mounts_what_is_there():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    places = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(places) >= 5
    missing = [place for place in places if not (ROOT / place).exists()]
    assert not missing
    targets = yaml.safe_load((ROOT / "deploy/prometheus/targets.compose.yml").read_text())
    named = {target.split(":")[0] for group in targets for target in group["targets"]}
    assert named <= services.keys()
