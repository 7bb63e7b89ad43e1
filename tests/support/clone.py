"""A terminal in a clone of the repository, and the commands that its pages tell to type there."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from running import ROOT, free_ports, until_ready

# As the pages say; a clone in a test has ports of its own.
PORT, METRICS = "8080", "9464"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of the blocks of code on a page."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block for a shell, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [re.split(r"\s+#", line)[0].strip() for line in lines]


class Shell:
    """A terminal in a clone of the repository whose environment is the one that runs the tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        port, metrics = free_ports()
        self.ports = {PORT: str(port), METRICS: str(metrics)}
        names = {"SKIPSERVE_PORT": self.ports[PORT], "SKIPSERVE_METRICS_PORT": self.ports[METRICS]}
        self.environment = {**os.environ, **names}
        self.begun: list[str] = []

    def run(self, command: str) -> str:
        """What a command prints; it must succeed."""
        for said, free in self.ports.items():
            command = command.replace(f":{said}/", f":{free}/")
        done = subprocess.run(
            ["bash", "-euc", "\n".join([*self.begun, command])],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[Path]:
        """A command that serves until it is ended; its log."""
        log = self.root / f"serve.{self.ports[PORT]}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-euc", "\n".join([*self.begun, f"exec {command}"])],
                cwd=self.root,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        with until_ready(process, log):
            yield log


def cloned(root: Path) -> Path:
    """A clone with an environment, as `make serve` leaves it; nothing is built in it."""
    for folder in ("export", "handlers", "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    (root / "docs").mkdir()
    for file in ("Makefile", "README.md", "LICENSE", "pyproject.toml", "docs/two-rows.json"):
        shutil.copy(ROOT / file, root / file)
    bin_ = root / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text('export PATH="$PWD/.venv/bin:$PATH"\n')
    for name, called in (("skipserve", "-m skipserve.cli"), ("pip", "-m pip")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {called} "$@"\n')
        (bin_ / name).chmod(0o755)
    for made in ("python", "serve"):  # as the Makefile leaves them: newer than pyproject.toml
        (root / ".venv" / made).touch()
    return root
