"""The launcher: unpack archives, start a host, warm up, say ready, stop without leftovers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skipserve.address import Address
from skipserve.artifacts.archive import Unpacked, unpack
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import LaunchError
from skipserve.files import machines_fault
from skipserve.hosts.config import HostConfig, ServerName
from skipserve.hosts.control import open_switches
from skipserve.hosts.directory import Directory
from skipserve.hosts.example import curl_of
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.readiness import Readiness, Wanted
from skipserve.hosts.ready import Ready
from skipserve.hosts.warm_up import WarmUp
from skipserve.safety.monitor import Monitor
from skipserve.telemetry import tracing
from skipserve.telemetry.exposition import Exposition, LostCounts
from skipserve.telemetry.logs import Log
from skipserve.telemetry.probes import Probes

logger = logging.getLogger(__name__)


class Server:
    """A running host with its models and probes; use as a context manager.

    The host gets SIGTERM when the thread that made this ends, so make it in one that stays.

    Args:
        archives: The ``.mar`` files to serve.
        config: How to listen.
        server: What listens.
        overrides: Serving settings that replace those in the archives.
        stop: Gives up starting when set.
        log: Where everything that the host and the workers say goes.

    Raises:
        LaunchError: If a port is taken, something the host needs is missing, or a model does not
            answer.
        ArtifactError: If an archive or the artifact in it is damaged.
        ConfigError: If a certificate cannot be read.
    """

    def __init__(
        self,
        archives: Sequence[Path],
        config: HostConfig,
        server: ServerName = "granian",
        overrides: dict[str, Any] | None = None,
        stop: threading.Event | None = None,
        log: Log | None = None,
    ) -> None:
        if not archives:
            raise LaunchError("there is no archive to serve; make one with `skipserve build`")
        self._config = config
        self._log = log or Log("text")
        extra = {"TorchServe's metrics": config.address.port + 2} if server == "torchserve" else {}
        self._ip = config.address.require_free(extra)
        self._stop = stop or threading.Event()
        self._ended = threading.Event()
        self._lost = ""
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(config.address.claimed())
            self._directory = Directory(config.address.metrics_port)
            self._stack.callback(self._directory.remove)
            self._instance = Instance(self._directory.path)
            self._host = _host(server, self._instance, config, self._log)
            if config.tls is not None:
                config.tls.require()
            self._start(archives, overrides or {})
        except BaseException:
            self._stack.close()
            raise

    def _start(self, archives: Sequence[Path], overrides: dict[str, Any]) -> None:
        instance, config = self._instance, self._config
        tracing.asked_for()  # an error here is one line, in a worker it is a restart for ever
        models = self._unpack(archives, overrides)
        self.manifests = [model.artifact.manifest for model in models]
        # Before the host, so that no worker skips a row that an operator forbade.
        switches = open_switches(instance.directory, archives, self.manifests)
        for switch in switches:
            self._stack.callback(switch.close)
        # Before the host, to be closed after it: while it stops, /ready says no.
        self.metrics = Exposition(instance.metrics)
        port = config.address.metrics_port
        ready = Ready(instance.is_ready)
        self._stack.callback(ready.close)
        self.probes = Probes((self._ip, port), self.metrics, ready, self._live)
        self._stack.callback(self.probes.close)
        self._host.start(models)
        self._stack.callback(self._host.close)
        deadline = time.monotonic() + config.ready_s
        warm_up = WarmUp(self._host, deadline, self._stop, self._tail)
        for manifest in self.manifests:
            warm_up.ask(manifest, self.url(manifest))
        self._readiness = Readiness(
            self._host,
            instance.pulses,
            {model.name: self._wanted(model) for model in models},
            self.metrics,
            self.probes.ready,
            config.ready_s,
        )
        while missing := self._readiness.missing():
            if time.monotonic() > deadline or self._stop.wait(0.05):
                raise LaunchError(f"not every worker became ready ({missing}): {self._tail()}")
        self._monitor = Monitor(
            self.metrics,
            [
                (model.artifact.manifest, model.serving, switch)
                for model, switch in zip(models, switches, strict=True)
            ],
        )
        self._directory.remember(instance.store, instance.switches, *self._host.keeps())
        self._look()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._ended.set)
        self._stack.callback(ready.clear)  # first of all, and once: then its file is closed

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._config.address

    def url(self, manifest: Manifest) -> str:
        """Where a model answers."""
        return f"{self._config.url}/predictions/{manifest.name}"

    def curl(self) -> str:
        """A command that works, and what to look at in its reply."""
        return curl_of(self.manifests, self.url, self._config, self._instance.directory)

    def wait(self, stop: threading.Event) -> None:
        """Watch the server until ``stop`` is set.

        Raises:
            LaunchError: If the host ends by itself, or what is lost does not come back.
        """
        while not stop.wait(1.0):
            if self._lost:
                raise LaunchError(self._lost)
            if ended := self._host.ended():
                raise LaunchError(f"{ended}: {self._tail()}")

    def close(self) -> None:
        """Say not ready, stop every process, remove every file."""
        self._ended.set()
        self._stack.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> bool:
        return not self._host.ended()

    def _wanted(self, model: Unpacked) -> Wanted:
        return Wanted.of(self._config.workers, model.serving.response_timeout_s)

    def _unpack(self, archives: Sequence[Path], overrides: dict[str, Any]) -> list[Unpacked]:
        try:
            self._instance.make_folders()
            return [unpack(archive, self._instance.store, overrides) for archive in archives]
        except OSError as error:
            if not machines_fault(error):
                raise
            raise LaunchError(
                f"{error.filename or self._instance.directory}: {error.strerror}; the service's "
                "files go there: make room, or set TMPDIR to another folder"
            ) from None

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            try:
                self._look()
            except Exception:
                # A disk that is full now may not be in a second; serving goes on meanwhile.
                logger.exception("the service could not be watched")

    def _look(self) -> None:
        now_s = time.monotonic()
        try:
            lost = "" if self._directory.is_whole() else "files of the running service are gone"
            lost = lost or self._readiness.look(now_s, self._ended.is_set)
            if not lost:
                self._monitor.tick(now_s)
        except LostCounts as error:
            lost = str(error)
        if lost and not self._ended.is_set():
            self.probes.ready.clear()
            # Without them a worker that dies never comes back, and the alarm is blind.
            self._lost = (
                f"{lost}; this service ends, start it again"
                f" (its files are in {self._instance.directory}; nothing else may delete there)"
            )

    def _tail(self, lines: int = 15) -> str:
        try:
            text = self._instance.log.read_text(errors="replace")
        except OSError:
            return "what it said stands above"
        return "its log ends with\n" + "\n".join(text.splitlines()[-lines:])


def _host(server: ServerName, instance: Instance, config: HostConfig, log: Log) -> Host:
    # Each needs what the other's users need not install.
    if server == "torchserve":
        from skipserve.hosts.torchserve.host import TorchServe

        return TorchServe(instance, config, log)
    from skipserve.hosts.granian.host import Granian

    return Granian(instance, config, log)
