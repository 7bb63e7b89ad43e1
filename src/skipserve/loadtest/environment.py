"""The environment of a run, without which its figures mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil

from skipserve.cores import usable_cores
from skipserve.versions import version_of


def describe() -> dict[str, str]:
    """Hardware, system, versions and commit, each as text."""
    gib = psutil.virtual_memory().total / 2**30
    return {
        "processor": f"{_processor()}, {usable_cores()} cores",
        "memory": f"{gib:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "skipserve": version_of("skipserve"),
        "commit": commit_of(Path(__file__)),
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_of(file: Path) -> str:
    """The commit of the repository that a file is of; ``unknown`` where none tracks it.

    An installed package may lie in the repository of somebody's project.
    """
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def ask(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - git, fixed arguments
            [git, *arguments], capture_output=True, text=True, cwd=file.parent
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    ours = ask("ls-files", "--error-unmatch", file.name)
    commit = ask("rev-parse", "--short=12", "HEAD") if ours else ""
    if not commit:
        return "unknown"
    return f"{commit} with changes" if ask("status", "--porcelain", "-uno") else commit
