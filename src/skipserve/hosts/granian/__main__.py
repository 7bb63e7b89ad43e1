"""The main process of granian: it holds the port and starts the workers."""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.server.mp import MPServer, WorkerProcess

from skipserve.hosts.granian.listeners import BACKLOG, DESCRIPTOR_VARIABLE
from skipserve.hosts.granian.plan import PLAN_VARIABLE, read_plan
from skipserve.telemetry.logs import Log

WORKER = "skipserve.hosts.granian.worker"
# Upper limit of connections, if the machine allows as many files.
CONNECTIONS = 1 << 16
# Before the place of a worker is taken that died as soon as it was born, in seconds.
PAUSE_S = 0.5


class Births(dict[int, float]):
    """When each worker was born that took the place of another, in seconds.

    granian asks it whether one that died was born just now. Once the models have answered, that
    is no reason to end.

    Args:
        has_answered: A file that exists once the models have answered their examples.
    """

    def __init__(self, has_answered: Path) -> None:
        super().__init__()
        self._has_answered = has_answered

    def get(self, key: int, default: Any = None) -> Any:
        """As a dict, but long ago for all once the models have answered."""
        return -math.inf if self._has_answered.exists() else super().get(key, default)


class Main(MPServer):
    """The server of granian, with the sockets of the launcher.

    Its handler of signals sets an event, whose lock is not reentrant: a second signal that comes
    while it is held would wait for itself.

    By itself it ends when a worker dies twice in six seconds. That is right where the models cannot
    be opened or end the worker that runs them; once they have answered, it would end the other
    workers for the death of one.

    Args:
        descriptors: Of the inherited sockets, one a worker.
        has_answered: A file that exists once the models have answered their examples.
        options: granian's own.
    """

    def __init__(self, descriptors: Sequence[int], has_answered: Path, **options: Any) -> None:
        super().__init__(f"{WORKER}:make", workers=len(descriptors), **options)
        self._sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self.respawned_wrks = Births(has_answered)

    def signal_handler_interrupt(self, *args: object, **kwargs: object) -> None:
        """End at the first signal."""
        if not self.interrupt_signal:
            super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _respawn_workers(self, workers: list[int], *how: Any, **also: Any) -> None:
        # Should each that is born die, it must not go round without a pause.
        if time.monotonic() - max(self.wrks[idx].birth for idx in workers) < PAUSE_S:
            time.sleep(PAUSE_S)
        super()._respawn_workers(workers, *how, **also)

    def _init_shared_socket(self) -> None:
        self._sso = None  # each worker gets its own

    def _drop_shared_socket(self) -> None:
        # Closed before the workers end, because clients queue on every open socket.
        for one in self._sockets:
            one.close()

    def _spawn_worker(  # type: ignore[override]
        self, idx: int, target: Callable[..., None], callback_loader: Callable[[], Any]
    ) -> WorkerProcess:
        own = self._sockets[idx]
        holder: Any = SocketHolder(own.fileno(), False, BACKLOG)  # type: ignore[call-arg]
        self._shd, self._sso = holder, own
        load = partial(_numbered, callback_loader, own.fileno(), self._sockets)
        return super()._spawn_worker(idx, target, load)


def _numbered(load: Callable[[], Any], own: int, inherited: Sequence[socket.socket]) -> Any:
    """Load the application in a worker, which is forked and so has the sockets of all."""
    for one in inherited:
        descriptor = one.detach()
        if descriptor != own:
            os.close(descriptor)
    os.environ[DESCRIPTOR_VARIABLE] = str(own)
    return load()


def connections() -> int:
    """Most connections of a worker: the file limit of the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, min(hard, CONNECTIONS)) if hard != resource.RLIM_INFINITY else CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def import_ahead(libraries: Sequence[str]) -> None:
    """Import what every worker needs; those that are forked later have it.

    Most of what a worker does before it answers is to import, and clients wait for one that takes
    the place of a dead one.

    Args:
        libraries: That the models need. A worker says what is wrong with one.
    """
    import_module(WORKER)
    for name in libraries:
        with contextlib.suppress(Exception):  # without its CUDA one raises OSError
            import_module(name)
    # Else the first collection in a worker would copy what it shares with the others.
    gc.freeze()


def main() -> None:
    """Serve until SIGTERM."""
    multiprocessing.set_start_method("fork")
    Log().attach()
    file = Path(sys.argv[1])
    os.environ[PLAN_VARIABLE] = str(file)
    plan = read_plan(file)
    import_ahead(plan.libraries)
    Main(
        plan.descriptors,
        plan.instance.has_answered,
        factory=True,
        address=plan.ip,
        port=plan.port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        websockets=False,
        # The limit counts connections, not requests: at the default of 1024, as many silent clients
        # or idle keep-alive clients would shut out all others.
        backpressure=connections(),
        # Our own log has this information.
        log_dictconfig={"version": 1, "disable_existing_loggers": False},
        ssl_cert=Path(plan.certificate) if plan.certificate else None,
        ssl_key=Path(plan.key) if plan.key else None,
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, round(plan.drain_s)),
    ).serve()


if __name__ == "__main__":
    main()
