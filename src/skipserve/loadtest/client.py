"""The client process of the load test, which runs periods."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import msgspec

from skipserve.errors import LoadTestError
from skipserve.loadtest.periods import Period, PeriodResult, Setup


class Client:
    """A client process; use as a context manager.

    Args:
        setup: What it keeps for all periods.

    Raises:
        LoadTestError: If it does not start.
    """

    def __init__(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "skipserve.loadtest.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C must reach only the test.
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._lock = threading.Lock()
        self._say(msgspec.json.encode(setup))
        if self._hear() != b"ready\n":
            self.close()
            raise LoadTestError("the client process did not start; its last words are above")

    def run(self, period: Period) -> PeriodResult:
        """Run a period to its end, or until :meth:`stop`.

        Raises:
            LoadTestError: If the process dies.
        """
        self._say(msgspec.json.encode(period))
        line = self._hear()
        if not line:
            raise LoadTestError("the client process died in a period; its last words are above")
        return msgspec.json.decode(line, type=PeriodResult)

    def stop(self) -> None:
        """End the period that runs; may be called from another thread."""
        self._say(b"stop")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, line: bytes) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stdin.write(line + b"\n")
            self._stdin.flush()

    def _hear(self) -> bytes:
        return self._stdout.readline()
