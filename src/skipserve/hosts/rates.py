"""Rate limits by key, for all processes of a service, in shared memory.

The generic cell rate algorithm (ITU-T I.371): of each key there is only the time at which its next
request would be due. Who writes last wins where two processes count the same key at once, so that
a little more than the limit may pass, but no process waits for the lock of a stopped one.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

# Number of keys with a limit of their own; each takes two numbers of 8 bytes.
SLOTS = 4096


class Rates:
    """Counts requests by key.

    Args:
        per_s: Requests a second that a key may make; as many may come at once.
        file: What the processes of a service share; this process alone without it.

    Raises:
        OSError: If the disk is full.
    """

    def __init__(self, per_s: float, file: Path | None = None) -> None:
        self._step_s = 1.0 / per_s
        self._ahead_s = max(per_s, 1.0) * self._step_s
        memory = memoryview(_shared(file, SLOTS * 16))
        self._names, self._due_s = memory.cast("Q"), memory.cast("d")

    def wait_s(self, key: bytes, now_s: float | None = None) -> float:
        """Count a request; returns 0, or the seconds until the key may make one.

        Args:
            key: Hash of the key, at least 8 bytes.
            now_s: On the clock that all processes of a machine share.
        """
        now_s = time.monotonic() if now_s is None else now_s
        place = self._place(int.from_bytes(key[:8], "little") or 1)
        due_s = max(self._due_s[place], now_s)
        wait_s: float = due_s + self._step_s - now_s - self._ahead_s
        if wait_s > 1e-9:
            return wait_s
        self._due_s[place] = due_s + self._step_s
        return 0.0

    def _place(self, name: int) -> int:
        first = name % SLOTS
        for i in range(first, first + SLOTS):
            place = 2 * (i % SLOTS)
            held = self._names[place]
            if held == name:
                return place + 1
            if not held:
                self._names[place] = name
                return place + 1
        return 2 * first + 1  # after thousands of rotations: it shares the limit of another


def _shared(file: Path | None, size: int) -> mmap.mmap:
    if file is None:
        return mmap.mmap(-1, size)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # Allocated now: a page that a full disk cannot hold would end the process with SIGBUS.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
