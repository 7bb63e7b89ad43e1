"""What the launcher tells granian's processes, as a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from skipserve.hosts.config import HostConfig
from skipserve.hosts.instance import Instance

# Tells the workers where the plan is.
PLAN_VARIABLE = "SKIPSERVE_GRANIAN"


class Plan(msgspec.Struct, frozen=True):
    """One run of granian.

    Attributes:
        directory: Of the instance.
        ip: To listen on, without brackets.
        port: To listen on.
        workers: Processes.
        models: Folders in the instance's store.
        certificate: For https, with ``key``; empty for http.
        key: Its private key.
        origins: Web pages that may ask from a browser.
        drain_s: Seconds that requests on their way have when it ends.
    """

    FILE: ClassVar[str] = "granian.json"

    directory: str
    ip: str
    port: int
    workers: int
    models: tuple[str, ...]
    certificate: str
    key: str
    origins: tuple[str, ...]
    drain_s: float

    @property
    def instance(self) -> Instance:
        """The instance's folders."""
        return Instance(Path(self.directory))


def plan_of(instance: Instance, config: HostConfig, ip: str, models: Sequence[str]) -> Plan:
    """The plan for a host's configuration."""
    tls = config.tls
    return Plan(
        str(instance.directory),
        ip,
        config.address.port,
        config.workers,
        tuple(models),
        "" if tls is None else str(tls.certificate.resolve()),
        "" if tls is None else str(tls.key.resolve()),
        config.origins,
        config.drain_s,
    )


def read_plan(file: Path) -> Plan:
    """What the launcher wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Plan)
