"""Commands that end by themselves, in the process of the test: nothing is imported anew."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from skipserve.cli import main

# How a line of progress ends: the time that is gone, and perhaps what is left.
_PROGRESS = re.compile(r", \d+ (s|min \d+ s|min) so far(, about [\d a-z]+ left)?$")


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


@contextlib.contextmanager
def _logs_kept() -> Iterator[None]:
    """Commands that serve attach a log of their own."""
    loggers = [logging.getLogger(name) for name in (None, "skipserve", "py.warnings")]
    before = [(logger, logger.level, [*logger.handlers]) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers


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
        # The command line sets it if it is not there, for this process and for those it starts.
        self._monkeypatch.setenv("COLUMNS", "100")
        with _logs_kept(), pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capfd.readouterr()
        lines = [line for line in err.splitlines(keepends=True) if not _PROGRESS.search(line)]
        return Ended(int(ended.value.code or 0), out, "".join(lines))
