"""A build redoes every step whose sources, packages or settings changed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks, forks
from small_project import ROUTED

import skipserve

pytestmark = pytest.mark.slow


class Project:
    """A project with a copy of the package, to change."""

    def __init__(self, root: Path, built: Path, forks: Forks) -> None:
        self.root = root
        self.forks = forks
        self.source = root / "src"
        shutil.copytree(built, root, dirs_exist_ok=True)
        package = Path(skipserve.__file__).parent
        shutil.copytree(package, self.source / "skipserve")

    def build(self) -> set[str]:
        status, said = self.forks.run(self.source, self.root, "build", "export/small.toml")
        assert status == 0, said
        return set(re.findall(r"small: (\w+) …", said))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.source / "skipserve" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    def pretend(self, package: str, version: str) -> None:
        """Let another version of a package be found first."""
        place = self.source / f"{package.replace('-', '_')}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")


@pytest.fixture(scope="module")
def torch_loaded() -> Iterator[Forks]:
    with forks() as process:
        yield process


@pytest.fixture
def project(routed_project, tmp_path, torch_loaded) -> Project:
    return Project(tmp_path, routed_project[0], torch_loaded)


def test_a_copy_of_a_built_project_is_built(project):
    """Whatever the other tests change is the only thing that changed."""
    assert ROUTED in (project.root / "export" / "small.toml").read_text()
    assert project.build() == set()


def test_certificates_follow_the_samples_that_they_were_made_on(project):
    before = (project.root / "artifacts" / "small" / "certificates.json").read_text()
    project.edit("training/recipes.py", "_moons(10_000", "_moons(9_000")
    assert "calibrate" in project.build()
    after = (project.root / "artifacts" / "small" / "certificates.json").read_text()
    assert (before.count('"samples": 10000'), after.count('"samples": 9000')) == (4, 4)
    assert "10000" not in after


@pytest.mark.parametrize(
    "file",
    [
        "building/products.py",
        "building/steps.py",
        "certification/certifying.py",
        "runtime/engine.py",
        "training/signals_1d.py",
    ],
)
def test_certificates_follow_what_makes_them(project, file):
    project.edit(file, '"""', '"""Changed. ')
    assert "calibrate" in project.build()


@pytest.mark.parametrize(
    ("package", "steps"),
    [
        ("scikit-learn", {"train", "export", "calibrate"}),
        ("scipy", {"train", "export", "calibrate"}),
        ("onnxruntime", {"export", "calibrate"}),
        ("torch-model-archiver", {"package"}),
    ],
)
def test_another_version_is_another_input(project, package, steps):
    project.pretend(package, "99.0")
    assert steps <= project.build()
