"""Models of a process without a launcher: behind uvicorn, or in a replica of Ray.

What the launcher does for all the workers of a service is done here for this process alone:
archives unpacked into a directory of its own, metrics, the alarm and its switches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from skipserve.artifacts.archive import unpack_all
from skipserve.earning.worker_state import DIRECTORY_VARIABLE as EVIDENCE
from skipserve.hosts.control import open_switches
from skipserve.hosts.directory import Directory
from skipserve.hosts.instance import Instance
from skipserve.hosts.models import Models
from skipserve.hosts.overdue import Overdue
from skipserve.hosts.states import keep_state
from skipserve.safety.model_watch import Watched
from skipserve.safety.monitor import Monitor
from skipserve.safety.standing import follow_orders
from skipserve.safety.switch import DIRECTORY_VARIABLE as SWITCHES
from skipserve.telemetry import tracing
from skipserve.telemetry.exposition import Exposition

LOOK_S = 1.0

logger = logging.getLogger(__name__)


class Standalone:
    """Opens archives and watches them until it is closed.

    Args:
        archives: ``.mar`` files.
        publish: Gets what was counted, once a second.
    """

    def __init__(
        self, archives: Sequence[Path], publish: Callable[[Exposition], None] | None = None
    ) -> None:
        self._archives = archives
        self._publish = publish or (lambda _: None)
        self._overdue = Overdue()
        self._ended = threading.Event()
        self._stack = contextlib.ExitStack()

    def open(self) -> Models:
        """Open the archives; called once, in the event loop that will answer.

        Raises:
            ArtifactError: If an archive is damaged.
            LaunchError: If there is no room for them, or CUDA was asked for and is not there.
        """
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def hanging(self) -> str:
        """The name of a model with a hung batch; empty if there is none."""
        return self._overdue.hanging()

    def close(self) -> None:
        """End its threads and remove what it unpacked."""
        self._ended.set()
        self._stack.close()

    def _open(self) -> Models:
        tracing.asked_for()
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        directory = Directory(0)  # by no port, for no command finds it
        self._stack.callback(directory.remove)
        instance = Instance(directory.path)
        instance.make_folders()
        pairs = list(unpack_all(self._archives, instance.store, {}))
        unpacked = [one for _, one in pairs]
        metrics = Exposition()
        switches, self._watches = open_switches(
            instance.directory,
            [archive for archive, _ in pairs],
            [one.artifact.manifest for one in unpacked],
        )
        for switch in switches:
            self._stack.callback(switch.close)
        states = [keep_state(instance, archive, one) for archive, one in pairs]
        told = {SWITCHES: instance.switches, EVIDENCE: instance.evidence}
        with _environment(told):
            models = Models(unpacked, self._overdue.of)
        self._stack.callback(models.close)
        self._metrics = metrics
        self._monitor = Monitor(
            metrics,
            [
                Watched(one.artifact, one.serving, switch, state)
                for one, switch, state in zip(unpacked, switches, states, strict=True)
            ],
        )
        self._look()
        thread = threading.Thread(target=self._look_on, name="skipserve-watch", daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        return models

    def _look_on(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self._look()
            except Exception:
                # An unreadable folder may recover; serving goes on meanwhile.
                logger.exception("the models could not be watched")

    def _look(self) -> None:
        try:
            self._monitor.tick(time.monotonic())
        finally:
            follow_orders(self._watches)
        self._publish(self._metrics)


@contextlib.contextmanager
def _environment(folders: Mapping[str, Path]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in folders}
    os.environ.update({name: str(folder) for name, folder in folders.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
