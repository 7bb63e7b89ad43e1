"""granian's main process: it holds the port and starts the workers. Started by host.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, Loops
from granian.server.mp import MPServer

from skipserve.hosts.granian.plan import PLAN_VARIABLE, read_plan
from skipserve.telemetry.logs import Log


class Once(MPServer):
    """granian's server, which a second signal does not stop from stopping.

    The handler sets an event, whose lock is not reentrant: a signal that comes while it is held
    would wait for itself.
    """

    def signal_handler_interrupt(self, *args: object, **kwargs: object) -> None:
        """End, at the first signal that says so."""
        if not self.interrupt_signal:
            super().signal_handler_interrupt()  # type: ignore[no-untyped-call]


def main() -> None:
    """Serve until SIGTERM."""
    Log().attach()
    file = Path(sys.argv[1])
    os.environ[PLAN_VARIABLE] = str(file)
    plan = read_plan(file)
    Once(
        "skipserve.hosts.granian.worker:make",
        factory=True,
        address=plan.ip,
        port=plan.port,
        interface=Interfaces.RSGI,
        workers=plan.workers,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        websockets=False,
        # Our own log has what they say.
        log_dictconfig={"version": 1, "disable_existing_loggers": False},
        ssl_cert=Path(plan.certificate) if plan.certificate else None,
        ssl_key=Path(plan.key) if plan.key else None,
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, round(plan.drain_s)),
    ).serve()


if __name__ == "__main__":
    main()
