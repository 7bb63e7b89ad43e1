"""Pacing: wakes the event loop the moment a request is due."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter

import gevent
from gevent.event import Event
from gevent.monkey import get_original

# The sleeping thread needs the interpreter at once when it wakes; Python's default is 5 ms.
SWITCH_S = 2e-4


def pace(
    due_s: Sequence[float],
    begin_s: float,
    end_s: float,
    release: Callable[[], None],
    stopping: Event,
) -> None:
    """Call ``release`` whenever something is due, until the end or until it is stopped.

    A native thread sleeps, because the event loop only knows whole milliseconds.

    Args:
        due_s: Rising, in seconds from the beginning.
        begin_s: On the clock of ``perf_counter``.
        end_s: The same.
        release: Called in the event loop; what has become due is for it to find out.
        stopping: Ends it early.
    """
    sys.setswitchinterval(SWITCH_S)
    hub = gevent.get_hub()
    wake = hub.loop.async_()
    wake.start(release)
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()

    def sleep_through() -> None:
        position = 0
        while position < len(due_s):
            delay_s = begin_s + due_s[position] - perf_counter()
            if delay_s > 0 and lock.acquire(timeout=delay_s):
                return
            now = perf_counter() - begin_s
            while position < len(due_s) and due_s[position] <= now:
                position += 1
            wake.send()
        lock.acquire(timeout=max(0.0, end_s - perf_counter()))

    sleeper = hub.threadpool.spawn(sleep_through)
    gevent.wait([sleeper, stopping], count=1)
    if stopping.is_set():
        lock.release()
    sleeper.get()
    if not stopping.is_set():
        release()
    wake.close()
