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
from skipserve.artifacts.archive_names import split_key
from skipserve.artifacts.manifest import Manifest
from skipserve.errors import LaunchError
from skipserve.hosts.config import HostConfig, ServerName
from skipserve.hosts.control import announce
from skipserve.hosts.directory import Directory
from skipserve.hosts.example import curl_of
from skipserve.hosts.generation import Find, Generation, open_generation
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.keys import read_keys, warn_of_readers
from skipserve.hosts.readiness import Readiness
from skipserve.hosts.ready import Ready
from skipserve.hosts.reloads import Reloads, reload_soon
from skipserve.hosts.succession import Succession, Supervision
from skipserve.hosts.warm_up import WarmUp
from skipserve.safety.monitor import Monitor
from skipserve.safety.standing import follow_orders
from skipserve.telemetry import tracing
from skipserve.telemetry.counts import LostCounts
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.logs import Log
from skipserve.telemetry.probes import Probes

# How often the processes are looked at, in seconds: sooner while one is missing, for its place may
# be taken at any time.
LOOK_S, SOON_S = 1.0, 0.2

logger = logging.getLogger(__name__)


class Server:
    """A running host with its models and probes; use as a context manager.

    The host gets SIGTERM when the thread that made this ends, so make it in one that stays.

    Args:
        archives: The ``.mar`` files to serve, or what finds them, which a reload asks again. Of
            several versions of a model the first answers for its name.
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
        archives: Sequence[Path] | Find,
        config: HostConfig,
        server: ServerName = "granian",
        overrides: dict[str, Any] | None = None,
        stop: threading.Event | None = None,
        log: Log | None = None,
    ) -> None:
        self._find = archives if callable(archives) else lambda: archives
        self._overrides = overrides or {}
        self._config = config
        self._log = log or Log("text")
        extra = {"TorchServe's metrics": config.address.port + 2} if server == "torchserve" else {}
        self._ip = config.address.require_free(extra)
        self._stop = stop or threading.Event()
        self._ended = threading.Event()
        self._lost = ""
        self._tick_s = 0.0
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(config.address.claimed())
            self._directory = Directory(config.address.metrics_port, self._ip)
            self._stack.callback(self._directory.remove)
            self._instance = Instance(self._directory.path)
            host = _host(server, self._instance, config, self._log)
            if config.tls is not None:
                config.tls.require()
            self._key = _first_key(config)
            self._start(self._next(self._instance, host))
        except BaseException:
            self._stack.close()
            raise

    def _start(self, first: Generation) -> None:
        instance, config = self._instance, self._config
        self._line = Succession(first, self._directory, config, self._next, self._ended)
        self._stack.callback(self._line.close)
        tracing.asked_for()  # an error here is one line; in a worker it would be an endless restart
        announce(instance.directory, first.orders)
        # Entered before the host, so closed after it: while it stops, /ready says no.
        self.metrics = Exposition(instance.metrics)
        port = config.address.metrics_port
        ready = Ready(instance.is_ready)
        self._stack.callback(ready.close)
        self.probes = Probes((self._ip, port), self.metrics, ready, self._live)
        self._stack.callback(self.probes.close)
        first.host.start(first.models)
        self._stack.callback(lambda: self._line.now.host.close())
        deadline = time.monotonic() + config.ready_s
        warm_up = WarmUp(first.host, deadline, self._stop, self._tail, self._key)
        for manifest in self.manifests:
            warm_up.ask(manifest, self.url(manifest))
        readiness = Readiness(
            first.host,
            instance.pulses,
            first.required(config),
            self.metrics,
            self.probes.ready,
            config.ready_s,
        )
        while missing := readiness.missing():
            if time.monotonic() > deadline or self._stop.wait(0.05):
                raise LaunchError(f"not every worker became ready ({missing}): {self._tail()}")
        instance.has_answered.touch()
        self._care = Supervision(readiness, Monitor(self.metrics, first.watched()), self.metrics)
        self._care.show_versions(first)
        self._directory.remember(instance.store, instance.switches, *first.host.keeps())
        # The recorded state of routers is in force before the service is ready.
        self._care.monitor.tick(time.monotonic())
        self._look()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._ended.set)
        reloads = Reloads(instance.directory, lambda: self._line.reload(self._care))
        self._stack.callback(reloads.close)
        self._stack.callback(self._ended.set)
        self._stack.callback(ready.clear)  # first of all, and once: then its file is closed

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._config.address

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of the models that answer now."""
        return self._line.now.manifests

    def url(self, manifest: Manifest) -> str:
        """Where a model answers."""
        name, version = split_key(manifest.name)
        return f"{self._config.url}/predictions/{name}" + (version and f"/{version}")

    def curl(self) -> str:
        """A curl command for the first model, and a hint about its reply."""
        return curl_of(self.manifests, self.url, self._config, self._instance.directory)

    def wait(self, stop: threading.Event, reload: threading.Event | None = None) -> None:
        """Watch the server until ``stop`` is set.

        Args:
            stop: Ends this.
            reload: Has it reload, and is cleared.

        Raises:
            LaunchError: If the host ends by itself, or what is lost does not come back.
        """
        while not stop.wait(0.5):
            if reload is not None and reload.is_set():
                reload.clear()
                reload_soon(self._instance.directory)
            if self._lost:
                raise LaunchError(self._lost)
            if ended := self._line.now.host.ended():
                raise LaunchError(f"{ended}: {self._tail()}")

    def close(self) -> None:
        """Become not ready, stop every process, remove every file."""
        self._ended.set()
        self._stack.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> bool:
        return not self._line.now.host.ended()

    def _next(self, instance: Instance, host: Host) -> Generation:
        return open_generation(instance, host, self._find(), self._overrides)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S if self.probes.ready.is_set() else SOON_S):
            try:
                with self._line.turn:
                    self._look()
            except Exception:
                # A full disk may recover; serving goes on meanwhile.
                logger.exception("the service could not be watched")

    def _look(self) -> None:
        now_s = time.monotonic()
        try:
            lost = "" if self._directory.is_whole() else "files of the running service are gone"
            lost = lost or self._care.readiness.look(now_s, self._ended.is_set)
            if not lost and now_s >= self._tick_s:
                self._tick_s = now_s + LOOK_S
                try:
                    self._care.monitor.tick(now_s)
                finally:
                    # Other replicas, and whoever can write there, switch by files.
                    follow_orders(self._line.now.watches)
        except LostCounts as error:
            lost = str(error)
        if lost and not self._ended.is_set():
            self.probes.ready.clear()
            # Without these folders a dead worker is not replaced, and the alarm sees nothing.
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


def _first_key(config: HostConfig) -> str:
    """The key for requests of the launcher itself; empty without keys."""
    if config.keys is None:
        if not config.address.is_loopback():
            logger.warning(
                "anyone who reaches %s may use every model: it is not on loopback and needs no "
                "key; name a file of keys with --keys",
                config.url,
            )
        return ""
    first = read_keys(config.keys)[0]
    warn_of_readers(config.keys)
    return first


def _host(server: ServerName, instance: Instance, config: HostConfig, log: Log) -> Host:
    # Imported here, because each host needs packages that the other does not.
    if server == "torchserve":
        from skipserve.hosts.torchserve.host import TorchServe

        return TorchServe(instance, config, log)
    from skipserve.hosts.granian.host import Granian

    return Granian(instance, config, log)
