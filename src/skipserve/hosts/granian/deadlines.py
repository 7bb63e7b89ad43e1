"""Deadlines of batches: a timer of the kernel ends the process of a hung batch."""

from __future__ import annotations

import faulthandler
import signal
from time import monotonic

# A timer of 0 would be disabled.
AT_ONCE_S = 1e-6


class Deadlines:
    """Deadlines of the running batches; when one passes, the process dumps tracebacks and ends.

    The kernel sends the signal and C code answers it, so that a thread that hangs with the
    interpreter's lock cannot prevent it. Make it in the main thread.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        self._ends_s: dict[Deadline, float] = {}

    def of(self, limit_s: float) -> Deadline:
        """The deadline of one model, which runs one batch at a time.

        Args:
            limit_s: Seconds that each may take.
        """
        return Deadline(self, limit_s)

    def set(self, one: Deadline, seconds: float) -> None:
        """Begin one."""
        self._ends_s[one] = monotonic() + seconds
        self._arm()

    def clear(self, one: Deadline) -> None:
        """Remove a deadline that was kept."""
        self._ends_s.pop(one, None)
        self._arm()

    def _arm(self) -> None:
        ends_s = self._ends_s.values()
        left_s = max(min(ends_s) - monotonic(), AT_ONCE_S) if ends_s else 0.0
        signal.setitimer(signal.ITIMER_REAL, left_s)


class Deadline:
    """The deadline of the batches of one model.

    Args:
        all_of_them: It is one of.
        limit_s: Seconds that a batch may take.
    """

    def __init__(self, all_of_them: Deadlines, limit_s: float) -> None:
        self._all = all_of_them
        self._limit_s = limit_s

    def begin(self) -> None:
        """A batch begins."""
        self._all.set(self, self._limit_s)

    def end(self) -> None:
        """A batch ends."""
        self._all.clear(self)
