"""Pressure: how far waiting requests push the router."""

from __future__ import annotations

# Requests that wait longer say that more comes in than goes out, in seconds. It is the latency that
# the service is made for.
LONG_S = 0.015
# Those that wait less, that the queue is short again; between the two nothing changes.
SHORT_S = LONG_S / 4
# A queue is not long because one batch was slow: it must have been so for a while, in seconds.
UP_S = 0.05
# And must have been short for a longer one, which doubles each time that it was too soon.
DOWN_S, MOST_DOWN_S = 1.0, 16.0
# Coming back was too soon if the queue grows again within so many times as long as it was held.
SOON = 2.0


class Pressure:
    """A level that rises while requests wait long, and falls once they do not.

    Args:
        highest: Level.
        level: To begin with.

    Attributes:
        level: From 0, at which nothing is changed.
    """

    def __init__(self, highest: int, level: int = 0) -> None:
        self.level = level
        self._highest = highest
        self._long_since_s: float | None = None
        self._short_since_s: float | None = None
        self._down_s = DOWN_S
        self._fell_s = float("-inf")
        self._seen_s: float | None = None

    def see(self, now_s: float, waited_s: float) -> bool:
        """Record the wait of the oldest request of a batch; whether the level changed.

        Args:
            now_s: Seconds on a clock that never jumps.
            waited_s: Seconds.
        """
        before = self.level
        if waited_s > LONG_S:
            self._long(now_s)
        elif waited_s < SHORT_S:
            self._short(now_s)
        else:
            self._long_since_s = self._short_since_s = None
        self._seen_s = now_s
        return self.level != before

    def _long(self, now_s: float) -> None:
        self._short_since_s = None
        if self._long_since_s is None:
            self._long_since_s = now_s
        if now_s - self._long_since_s < UP_S or self.level == self._highest:
            return
        if now_s - self._fell_s < SOON * self._down_s:
            self._down_s = min(2 * self._down_s, MOST_DOWN_S)
        else:
            self._down_s = DOWN_S
        self._fell_s = float("-inf")  # the level fell too soon
        self.level += 1
        self._long_since_s = now_s

    def _short(self, now_s: float) -> None:
        self._long_since_s = None
        if self._short_since_s is None:
            # No request arrived in between, so there was no queue.
            self._short_since_s = now_s if self._seen_s is None else self._seen_s
        while self.level and now_s - self._short_since_s >= self._down_s:
            self.level -= 1
            self._short_since_s += self._down_s
            self._fell_s = now_s
