"""Environments with the package as users install it: a wheel and its extras."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from email.message import Message
from email.parser import BytesParser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from running import ROOT

# A model of its own, built in seconds.
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


def build_wheel(source: Path) -> Path:
    """A wheel made from a copy of the tree, in a folder."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", source / "dist", source], check=True)
    (made,) = (source / "dist").glob("skipserve-*.whl")
    return made


def metadata_of(wheel: Path) -> Message:
    """What a wheel says of itself."""
    with ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(content.read(name))


def asked_for(about: Message, *extras: str) -> set[Requirement]:
    """What a distribution asks for on this machine, itself and with some of its extras."""
    every = map(Requirement, about.get_all("Requires-Dist") or ())
    return {
        one
        for one in every
        if one.marker is None
        or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    }


def needed(requirements: Iterable[Requirement]) -> dict[str, Distribution]:
    """The distributions here that requirements lead to, and theirs, by name."""
    found: dict[str, Distribution] = {}
    seen = set[tuple[str, str]]()
    left = list(requirements)
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        news = {("", name), *((extra, name) for extra in one.extras)} - seen
        if news:
            seen |= news
            found[name] = distribution(name)
            about = found[name].metadata
            left += asked_for(about, *one.extras)  # type: ignore[arg-type]
    return found


def empty(home: Path) -> tuple[str, Path]:
    """An environment without pip: its Python, and the folder of its packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python3*/site-packages")
    return str(home / "bin" / "python"), packages


def put(wheel: Path, python: str) -> None:
    """Install a wheel, and nothing that it asks for."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True)


def with_extras(home: Path, wheel: Path, *extras: str) -> str:
    """An environment with a wheel and what it asks for, as links to what is here; its Python."""
    python, packages = empty(home)
    put(wheel, python)
    tops = {
        file.parts[0]
        for one in needed(asked_for(metadata_of(wheel), *extras)).values()
        for file in one.files or ()
        if file.parts[0] not in ("..", "__pycache__")
    }
    link(packages, tops.__contains__)
    return python


def with_all(home: Path, wheel: Path, but_for: str = "no such package") -> str:
    """An environment with a wheel and links to all that is here, but for some; its Python."""
    python, packages = empty(home)
    put(wheel, python)
    link(packages, lambda name: not re.match(but_for, name))
    return python


def link(packages: Path, wanted: Callable[[str], bool]) -> None:
    """Put links to packages of the environment that runs the tests into another, but for ours."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        ours = re.match(r"_*(editable_*)?skipserve|.*\.pth$|pip|_virtualenv", entry.name)
        target = packages / entry.name
        if not ours and wanted(entry.name) and not target.exists():
            target.symlink_to(entry)


def downloaded(home: Path, wheel: Path, extras: str) -> str:
    """An environment with a wheel and some of its extras, as pip finds them; its Python."""
    python, _ = empty(home)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, f"{wheel}[{extras}]"], check=True)
    return python
