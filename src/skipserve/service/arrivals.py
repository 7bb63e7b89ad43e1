"""Requests that are arriving: their heads are here, their bodies are not."""

from __future__ import annotations

from time import perf_counter

# A body that is not here so soon behind its head comes over a slow connection, in seconds.
SOON_S = 5e-4


class Arrivals:
    """Counts arriving requests, in one event loop.

    A host that reads requests in a thread of its own hands over head and body one by one, and needs
    Python's lock for each.
    """

    def __init__(self) -> None:
        self._count = 0
        self._newest_s = 0.0

    def begin(self) -> None:
        """The head of a request is here."""
        self._count += 1
        self._newest_s = perf_counter()

    def end(self) -> None:
        """Its body is here, or will not come."""
        self._count -= 1

    def soon(self, now_s: float) -> bool:
        """Whether a request is about to be complete.

        Args:
            now_s: Seconds of ``perf_counter``.
        """
        return self._count > 0 and now_s - self._newest_s < SOON_S
