"""Command lines of any copy of the package, without importing torch anew for each.

One process imports what the package imports from elsewhere, and nothing of the package. It forks
for each command line, and the fork imports a copy of the package and runs it.

    python tests/support/forks.py
    → {"source": "…/src", "folder": "…", "arguments": ["build", "export/small.toml"], "log": "…"}
    ← 0
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# torch._dynamo comes with the first optimizer.
LOADED = (
    *("matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "sklearn.model_selection"),
    *("torch._dynamo", "torch.onnx"),
)
# What hangs is ended, in seconds.
LONGEST_S = 900


class Forks:
    """The process that forks, asked by lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, source: Path, folder: Path, *arguments: str) -> tuple[int, str]:
        """Exit code of a command line, and what it wrote.

        Args:
            source: The folder that holds the copy of the package.
            folder: Where the command line runs.
            arguments: Of ``skipserve``.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        log = folder / "said.log"
        asked = {"source": str(source), "folder": str(folder), "log": str(log)}
        print(json.dumps({**asked, "arguments": arguments}), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), log.read_text()


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    ) as process:
        yield Forks(process)
        # Leaving ends its input, and so the process.


def load() -> None:
    """Import what a build needs, and let the exporter read its tables once."""
    for name in LOADED:
        importlib.import_module(name)
    import torch

    example = (torch.zeros(1, 1),)
    torch.onnx.export(torch.nn.Linear(1, 1).eval(), example, dynamo=True, verbose=False)


def become(source: str, folder: str, log: str, arguments: list[str]) -> None:
    """Be the command line, in a fork."""
    signal.alarm(LONGEST_S)
    with Path(os.devnull).open() as nothing, Path(log).open("w") as said:
        os.dup2(nothing.fileno(), 0)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.chdir(folder)
    sys.path[0] = source
    sys.argv = ["skipserve", *arguments]
    runpy.run_module("skipserve.cli", run_name="__main__", alter_sys=True)


def main() -> None:
    load()
    assert "skipserve" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
