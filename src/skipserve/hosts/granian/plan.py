"""The plan: settings that the launcher passes to the processes of granian, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from skipserve.artifacts.archive import Unpacked
from skipserve.artifacts.asked import LIBRARIES
from skipserve.hosts.access import AccessControl
from skipserve.hosts.config import HostConfig
from skipserve.hosts.instance import Instance

# Tells the workers where the plan is.
PLAN_VARIABLE = "SKIPSERVE_GRANIAN"


class Plan(msgspec.Struct, frozen=True):
    """One run of granian.

    Attributes:
        directory: Of the instance.
        generation: Of its workers.
        ip: It listens on, without brackets.
        port: It listens on.
        descriptors: Of the sockets that do, one a worker.
        models: Folders in the instance's store.
        libraries: Packages that run them, as they are imported.
        certificate: For https, with ``key``; empty for http.
        key: Its private key.
        origins: Web pages that may ask from a browser.
        drain_s: Seconds that requests on their way have when it ends.
        body_s: Seconds that a request's body may take.
        keys: File of the keys that clients must show; empty for none.
        rate_limit: Requests a second that each may make.
    """

    directory: str
    generation: int
    ip: str
    port: int
    descriptors: tuple[int, ...]
    models: tuple[str, ...]
    libraries: tuple[str, ...]
    certificate: str
    key: str
    origins: tuple[str, ...]
    drain_s: float
    body_s: float
    keys: str = ""
    rate_limit: float | None = None

    @property
    def instance(self) -> Instance:
        """The instance's folders."""
        return Instance(Path(self.directory), self.generation)

    def access(self) -> AccessControl | None:
        """Access control; ``None`` without keys."""
        if not self.keys:
            return None
        return AccessControl(Path(self.keys), self.rate_limit, self.instance.rates)


def plan_of(
    instance: Instance, config: HostConfig, descriptors: Sequence[int], models: Sequence[Unpacked]
) -> Plan:
    """The plan for a host's configuration.

    Raises:
        LaunchError: If the address is not of this machine.
    """
    tls = config.tls
    return Plan(
        str(instance.directory),
        instance.generation,
        config.address.ip(),
        config.address.port,
        tuple(descriptors),
        tuple(model.name for model in models),
        tuple(sorted({LIBRARIES[model.serving.backend] for model in models})),
        "" if tls is None else str(tls.certificate.resolve()),
        "" if tls is None else str(tls.key.resolve()),
        config.origins,
        config.drain_s,
        config.body_s,
        "" if config.keys is None else str(config.keys.resolve()),
        config.rate_limit,
    )


def read_plan(file: Path) -> Plan:
    """Read the plan that the launcher wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Plan)
