"""The main process of granian: it holds the port and starts the workers."""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.server.mp import MPServer, WorkerProcess

from skipserve.hosts.granian.listeners import BACKLOG, DESCRIPTOR_VARIABLE
from skipserve.hosts.granian.plan import PLAN_VARIABLE, read_plan
from skipserve.telemetry.logs import Log

# Upper limit of connections, if the machine allows as many files.
CONNECTIONS = 1 << 16


class Main(MPServer):
    """The server of granian, with the sockets of the launcher.

    Its handler of signals sets an event, whose lock is not reentrant: a second signal that comes
    while it is held would wait for itself.

    Args:
        descriptors: Of the inherited sockets, one a worker.
        options: granian's own.
    """

    def __init__(self, descriptors: Sequence[int], **options: Any) -> None:
        super().__init__("skipserve.hosts.granian.worker:make", workers=len(descriptors), **options)
        self._sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def signal_handler_interrupt(self, *args: object, **kwargs: object) -> None:
        """End at the first signal."""
        if not self.interrupt_signal:
            super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

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
        # A worker that is forked has all of them.
        inherited = self._sockets if multiprocessing.get_start_method() == "fork" else ()
        load = partial(_numbered, callback_loader, own.fileno(), inherited)
        return super()._spawn_worker(idx, target, load)


def _numbered(load: Callable[[], Any], own: int, inherited: Sequence[socket.socket]) -> Any:
    """Load the application in a worker."""
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


def main() -> None:
    """Serve until SIGTERM."""
    Log().attach()
    file = Path(sys.argv[1])
    os.environ[PLAN_VARIABLE] = str(file)
    plan = read_plan(file)
    Main(
        plan.descriptors,
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
