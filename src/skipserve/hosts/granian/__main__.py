"""granian's main process: it holds the port and starts the workers. Started by host.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, Loops
from granian.server import Server

from skipserve.hosts.granian.plan import PLAN_VARIABLE, read_plan
from skipserve.telemetry.logs import Log


def main() -> None:
    """Serve until SIGTERM."""
    Log().attach()
    file = Path(sys.argv[1])
    os.environ[PLAN_VARIABLE] = str(file)
    plan = read_plan(file)
    Server(
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
