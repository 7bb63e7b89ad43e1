"""A reload: a new generation of models and workers replaces the serving one.

A second host starts beside the first, on the same sockets and with the archives that are in force
then. Once each of its workers has its models open, the first host leaves the sockets to it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from skipserve.errors import LaunchError
from skipserve.hosts.config import HostConfig
from skipserve.hosts.control import announce
from skipserve.hosts.directory import Directory
from skipserve.hosts.generation import Generation
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.pulse import living
from skipserve.hosts.readiness import Readiness, missing_of
from skipserve.safety.monitor import Monitor
from skipserve.telemetry.exposition import Exposition


@dataclass(frozen=True)
class Supervision:
    """The watchers of the serving generation.

    Attributes:
        readiness: Of its workers.
        monitor: Of its routers.
        metrics: Where its versions are shown.
    """

    readiness: Readiness
    monitor: Monitor
    metrics: Exposition

    def show_versions(self, now: Generation) -> None:
        """Show which version of each model answers."""
        self.metrics.show_versions({model.name: model.version for model in now.models})


class Succession:
    """Replaces one generation by the next.

    Args:
        first: That serves first.
        directory: Of the instance.
        config: How to listen.
        find: Unpacks the archives in force for a host.
        ended: Set once the service shall end.

    Attributes:
        now: The generation that serves.
        turn: Lock held while the generation is watched or replaced.
    """

    def __init__(
        self,
        first: Generation,
        directory: Directory,
        config: HostConfig,
        find: Callable[[Instance, Host], Generation],
        ended: threading.Event,
    ) -> None:
        self.now = first
        self.turn = threading.Lock()
        self._directory = directory
        self._config = config
        self._find = find
        self._ended = ended

    def reload(self, supervision: Supervision) -> str:
        """Replace the open archives by those in force.

        Call it in a thread that stays as long as the service.

        Args:
            supervision: Of what serves.

        Returns:
            What serves now, in one line.

        Raises:
            ArtifactError: If an archive is damaged; as with every error, what served before goes
                on serving.
            ConfigError: If an archive is not there.
            LaunchError: If the host cannot do it, or its workers do not become ready.
        """
        before = self.now
        instance = Instance(self._directory.path, before.instance.generation + 1)
        host = before.host.successor(instance)
        try:
            fresh = self._find(instance, host)
        except BaseException:
            _remove(instance)
            raise
        changed = fresh.differs_from(before)
        try:
            with self.turn:
                supervision.readiness.expect(host)
                supervision.monitor.hold([one for one in fresh.watched() if one.name in changed])
            self._open(fresh)
        except BaseException:
            host.retire(self._ended)
            fresh.close()
            with self.turn:
                supervision.readiness.expect(None)
                supervision.monitor.hold(())
            _remove(instance)
            raise
        self._hand_over(before, fresh, supervision)
        before.host.retire(self._ended)
        try:
            with self.turn:
                supervision.readiness.expect(None)
                supervision.monitor.follow(time.monotonic(), fresh.watched(), changed)
        finally:
            before.close()
            _remove(before.instance)
        return f"reloaded: serving {fresh.say()}"

    def close(self) -> None:
        """Close the serving generation."""
        self.now.close()

    def _open(self, fresh: Generation) -> None:
        """Start the host of a generation, and wait until all its models are open."""
        host, instance = fresh.host, fresh.instance
        host.start(fresh.models)
        deadline_s = time.monotonic() + self._config.ready_s
        required = fresh.required(self._config)
        while missing := missing_of(living(instance.pulses), required):
            failure = instance.failure.read_text() if instance.failure.exists() else ""
            if failure or host.ended():
                raise LaunchError(failure or f"{host.ended()}; see the log of the service")
            if time.monotonic() > deadline_s:
                raise LaunchError(f"not every worker became ready ({missing})")
            if self._ended.wait(0.05):
                raise LaunchError("the service is ending")

    def _hand_over(self, before: Generation, fresh: Generation, supervision: Supervision) -> None:
        instance = fresh.instance
        with self.turn:
            supervision.readiness.follow(fresh.host, instance.pulses, fresh.required(self._config))
            announce(instance.directory, fresh.orders)
            self.now = fresh
            keeps = fresh.host.keeps()
            self._directory.remember(instance.store, instance.switches, *keeps)
            self._directory.forget(before.instance.store, before.instance.pulses)
            supervision.show_versions(fresh)


def _remove(instance: Instance) -> None:
    """Remove the files of one generation."""
    for folder in (instance.store, instance.pulses):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (instance.plan, instance.is_retired, instance.has_answered, instance.failure):
        file.unlink(missing_ok=True)
