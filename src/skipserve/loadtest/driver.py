"""The client process, ``python -m skipserve.loadtest.driver``, controlled through stdin.

A line with a :class:`Setup`, then a line for every :class:`Period`, each answered with a line with
its :class:`PeriodResult`. A line ``stop`` ends the period that runs; the end of stdin ends it all.
A process of its own, because Locust replaces the standard library's sockets and threads, and so
that its processor time is that of the client alone.
"""

from __future__ import annotations

import logging
import signal
import sys

import gevent

# First, and before anything that opens a socket: it replaces the standard library's.
import locust  # noqa: F401
import msgspec
from gevent.fileobject import FileObject
from gevent.queue import Queue
from locust.env import Environment

from skipserve.loadtest.dispatcher import Dispatcher
from skipserve.loadtest.periods import Period, Setup
from skipserve.loadtest.users import user_class


def main() -> None:
    """Run periods until stdin ends."""
    # Ctrl-C reaches the whole terminal; the test decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = iter(FileObject(sys.stdin.buffer, "rb"))
    setup = msgspec.json.decode(next(lines), type=Setup)
    dispatcher = Dispatcher(setup.pools, setup.timeout_s)
    # It warns of spawning all users at once; ours sleep until something is due.
    logging.getLogger("locust.runners").setLevel(logging.ERROR)
    environment = Environment(user_classes=[user_class(dispatcher)], host=setup.host)
    runner = environment.create_local_runner()
    runner.start(setup.connections, spawn_rate=setup.connections, wait=True)
    periods: Queue[Period | None] = Queue()

    def listen() -> None:
        for line in lines:
            if line.strip() == b"stop":
                dispatcher.stop()
            else:
                periods.put(msgspec.json.decode(line, type=Period))
        dispatcher.stop()
        periods.put(None)

    gevent.spawn(listen)
    say(b"ready")
    while (period := periods.get()) is not None:
        say(msgspec.json.encode(dispatcher.run(period)))
    runner.quit()


def say(line: bytes) -> None:
    """Write one line."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
