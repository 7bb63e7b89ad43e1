"""The environment that a load test reports."""

from __future__ import annotations

import subprocess
from pathlib import Path

from skipserve.loadtest.environment import commit_of

IDENTITY = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_package_and_not_of_the_project_around_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    package = project / ".venv" / "skipserve"
    package.mkdir(parents=True)
    module = package / "environment.py"
    module.write_text("")
    assert commit_of(module) == "unknown"
    git(project, "init")
    (project / "mine.py").write_text("")
    git(project, "add", "mine.py")
    git(project, "commit", "-m", "mine")
    assert commit_of(module) == "unknown"
    git(project, "add", str(module))
    git(project, "commit", "-m", "the package")
    commit = git(project, "rev-parse", "--short=12", "HEAD")
    assert commit_of(module) == commit
    module.write_text("changed = True")
    assert commit_of(module) == f"{commit} with changes"
