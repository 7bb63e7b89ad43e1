"""Commands that end by themselves, in the process of the test: nothing is imported anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from skipserve.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code.
        out: What it wrote to stdout.
        err: What it wrote to stderr, but for the lines of a slow machine that say it goes on.
    """

    code: int
    out: str
    err: str


class CommandLine:
    """A terminal in a folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str, folder: Path | None = None) -> Ended:
        """Run ``skipserve`` with arguments, in this folder or another."""
        self._monkeypatch.setattr("sys.argv", ["skipserve", *arguments])
        if folder is not None:
            self._monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capfd.readouterr()
        lines = [line for line in err.splitlines(keepends=True) if " so far" not in line]
        return Ended(int(ended.value.code or 0), out, "".join(lines))
