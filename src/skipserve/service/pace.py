"""How fast a queue is answered, by its last batches; so that who would wait too long is told."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the newest batch.
NEWEST = 0.2


@dataclass
class _OfSize:
    """What batches of about one size took lately, in seconds: a request in one, and all of it."""

    request_s: float
    batch_s: float

    def learn(self, request_s: float, batch_s: float) -> None:
        self.request_s += NEWEST * (request_s - self.request_s)
        self.batch_s += NEWEST * (batch_s - self.batch_s)


class Pace:
    """Seconds that requests keep the others waiting.

    A batch of many takes less than as many batches of one. So what is known of small batches says
    nothing against many requests: a size that was not seen yet is thought to cost no more than the
    nearest that was. And it is kept for each size, so that quiet times do not change what full
    batches take.

    Args:
        batch: Most requests in a batch.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._sizes: dict[int, _OfSize] = {}  # by the number of its bits
        self._slowest_s = 0.0  # a request in a batch of any size
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

    def may_exceed(self, most_s: float, waiting: int) -> bool:
        """Whether :meth:`wait_s` may say more than so many seconds; asked of every request."""
        return waiting * self._slowest_s > most_s

    def wait_s(self, waiting: int) -> float:
        """Seconds that so many that wait will take; 0 as long as nothing is known."""
        full, rest = divmod(waiting, self._batch)
        return full * self._batch_s(self._batch) + self._batch_s(rest)

    def _batch_s(self, size: int) -> float:
        if not size or not self._sizes:
            return 0.0
        larger = [bits for bits in self._sizes if bits >= size.bit_length()]
        nearest = self._sizes[min(larger) if larger else max(self._sizes)]
        return min(size * nearest.request_s, nearest.batch_s)

    def _learn(self, now_s: float) -> None:
        if not self._taken:
            return
        size = min(self._taken, self._batch)  # more, if some joined it on its way
        request_s = (now_s - self._begun_s) / self._taken
        of_size = self._sizes.get(size.bit_length())
        if of_size is None:
            self._sizes[size.bit_length()] = _OfSize(request_s, size * request_s)
        else:
            of_size.learn(request_s, size * request_s)
        self._slowest_s = max(one.request_s for one in self._sizes.values())
        self._taken = 0
