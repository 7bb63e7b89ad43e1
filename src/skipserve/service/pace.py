"""How fast a queue is answered, by its last batches; so that who would wait too long is told."""

from __future__ import annotations

# Weight of the newest batch.
NEWEST = 0.2


class Pace:
    """Seconds that a request keeps the others waiting."""

    def __init__(self) -> None:
        self._request_s = 0.0
        self._begun_s = 0.0
        self._taken = 0

    def begin(self, now_s: float) -> None:
        """A batch begins; while requests waited, the one before lasted until now.

        Other models of the same process may have had their turn between the two.

        Args:
            now_s: Seconds on a clock that never jumps.
        """
        self._learn(now_s)
        self._begun_s = now_s

    def take(self, count: int) -> None:
        """So many requests set out with the batch."""
        self._taken += count

    def rest(self, now_s: float) -> None:
        """A batch ended, and nobody waits."""
        self._learn(now_s)

    def wait_s(self, waiting: int) -> float:
        """Seconds until so many that wait have begun; 0 as long as nothing is known."""
        return waiting * self._request_s

    def _learn(self, now_s: float) -> None:
        if not self._taken:
            return
        took_s = (now_s - self._begun_s) / self._taken
        weight = NEWEST if self._request_s else 1.0
        self._request_s += weight * (took_s - self._request_s)
        self._taken = 0
