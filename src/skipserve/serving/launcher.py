"""The launcher: unpack archives, start TorchServe, warm up, say ready, stop without leftovers."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import LaunchError
from skipserve.serving import tracing
from skipserve.serving.address import Address, free_ports, require_free
from skipserve.serving.archive import unpack
from skipserve.serving.control import announce
from skipserve.serving.exposition import Exposition, live_workers
from skipserve.serving.logs import Log
from skipserve.serving.monitor import Monitor
from skipserve.serving.probes import Probes
from skipserve.serving.processes import (
    STOP_S,
    children,
    die_with_parent,
    is_worker,
    stop_group,
)
from skipserve.serving.switch import Switch
from skipserve.serving.torchserve import Instance

logger = logging.getLogger(__name__)


class Server:
    """A running TorchServe with its models and probes; use as a context manager.

    TorchServe gets SIGTERM when the thread that made this ends, so make it in one that stays.

    Args:
        archives: The ``.mar`` files to serve.
        address: Where to listen.
        overrides: Serving settings that replace those in the archives.
        ready_s: Seconds until all models must have answered.
        stop: Gives up starting when set.
        log: Where everything that TorchServe and the workers say goes.

    Raises:
        LaunchError: If a port is taken, Java is missing or too old, or a model does not answer.
        ArtifactError: If an archive or the artifact in it is damaged.
    """

    def __init__(
        self,
        archives: Sequence[Path],
        address: Address,
        overrides: dict[str, Any] | None = None,
        ready_s: float = 120.0,
        stop: threading.Event | None = None,
        log: Log | None = None,
    ) -> None:
        if not archives:
            raise LaunchError("there is no archive to serve; make one with `skipserve build`")
        self.address = address
        ports = {
            "SKIPSERVE_PORT": address.port,
            "SKIPSERVE_METRICS_PORT": address.metrics_port,
            "SKIPSERVE_PORT + 2": address.port + 2,
        }
        if len(set(ports.values())) < len(ports):
            raise LaunchError(
                f"SKIPSERVE_PORT = {address.port} and SKIPSERVE_METRICS_PORT = "
                f"{address.metrics_port} collide; TorchServe's metrics take {address.port + 2}"
            )
        for setting, port in ports.items():
            require_free(address.host, port, setting)
        self._instance = Instance(
            Path(tempfile.mkdtemp(prefix="skipserve.")),
            address.host,
            address.port,
            address.port + 2,
            free_ports(),
        )
        self._stop = stop or threading.Event()
        self._ended = threading.Event()
        self._seen_workers: set[int] = set()
        self._log = log or Log("text")
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self._instance.directory, ignore_errors=True)
        try:
            self._start(archives, overrides or {}, ready_s)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, archives: Sequence[Path], overrides: dict[str, Any], ready_s: float) -> None:
        instance = self._instance
        tracing.asked_for()  # an error here is one line, in a worker it is a restart for ever
        instance.write_configuration()
        announce(instance.directory, self.address.metrics_port)
        frontend = instance.frontend()
        unpacked = [unpack(archive, instance.store, overrides, frontend) for archive in archives]
        self.manifests = [artifact.manifest for artifact, _ in unpacked]
        self._workers = sum(serving.workers for _, serving in unpacked)
        # Before TorchServe, to be closed after it: while it stops, /ready says no.
        self.metrics = Exposition(instance.metrics)
        address = (self.address.host, self.address.metrics_port)
        self.probes = Probes(address, self.metrics, self._live)
        self._stack.callback(self.probes.close)
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            instance.command(),
            env=instance.environment(),
            cwd=instance.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        relay = threading.Thread(target=self._log.relay, args=(self.process.stderr,), daemon=True)
        relay.start()
        self._stack.callback(relay.join, STOP_S)  # to its last line
        self._stack.callback(stop_group, self.process)
        deadline = time.monotonic() + ready_s
        for manifest in self.manifests:
            self._warm_up(manifest, deadline)
        while live_workers(instance.metrics) < self._workers:
            if time.monotonic() > deadline or self._stop.wait(0.1):
                raise LaunchError(f"not every worker became ready: {self._tail()}")
        switches = [self._open_switch(manifest.name) for manifest in self.manifests]
        models = [
            (a.manifest, serving, s) for (a, serving), s in zip(unpacked, switches, strict=True)
        ]
        self._monitor = Monitor(self.metrics, models)
        self._watch_workers()
        self._monitor.tick(time.monotonic())
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._ended.set)

    def url(self, manifest: Manifest) -> str:
        """Where a model answers."""
        host = "127.0.0.1" if self.address.host == "0.0.0.0" else self.address.host  # noqa: S104
        return f"http://{host}:{self.address.port}/predictions/{manifest.name}"

    def curl(self) -> str:
        """A command that works, and what to look at in its reply.

        It asks a model that has a router, if there is one, with two rows of different depth, if
        its archive knows them.
        """
        routed = [manifest for manifest in self.manifests if manifest.router is not None]
        manifest = (routed or self.manifests)[0]
        rows, hint = [manifest.example.inputs], ""
        if manifest.router is not None:
            hint = (
                f"\n\nin the reply: depth_run says how many of the {manifest.depth} blocks a row "
                "ran, held_back that the guard sent it to full depth"
            )
        if manifest.depths is not None:
            rows = [manifest.depths.shallow, manifest.depths.deep]
            hint += "; the first of these rows is settled early, the second late"
        inputs = msgspec.json.encode({"inputs": rows}).decode()
        url = self.url(manifest)
        return f"curl -H 'Content-Type: application/json' -d '{inputs}' {url}{hint}"

    def wait(self, stop: threading.Event) -> None:
        """Watch the server until ``stop`` is set.

        Raises:
            LaunchError: If TorchServe ends by itself.
        """
        while not stop.wait(1.0):
            if self.process.poll() is not None:
                raise LaunchError(
                    f"TorchServe ended by itself (status {self.process.returncode}): {self._tail()}"
                )

    def close(self) -> None:
        """Say not ready, stop every process, remove every file."""
        self._ended.set()
        if hasattr(self, "probes"):
            self.probes.ready.clear()
        self._stack.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> bool:
        return hasattr(self, "process") and self.process.poll() is None

    def _open_switch(self, model: str) -> Switch:
        switch = Switch(self._instance.switches / model)
        self._stack.callback(switch.close)
        return switch

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            try:
                self._watch_workers()
                self._monitor.tick(time.monotonic())
            except Exception:
                # A disk that is full now may not be in a second; serving goes on meanwhile.
                logger.exception("the service could not be watched")

    def _watch_workers(self) -> None:
        alive = {
            pid for pid in children(self.process.pid) if pid in self._seen_workers or is_worker(pid)
        }
        gone = self._seen_workers - alive
        if gone:
            self.probes.ready.clear()  # before it shows in the metrics
        for pid in gone:
            self._seen_workers.discard(pid)
            logger.warning("worker %d ended by itself", pid)
            self.metrics.restarts.inc()
            self.metrics.retire(pid)
        self._seen_workers = alive
        # Ready again by itself: TorchServe restarts a worker that died.
        if live_workers(self._instance.metrics) < self._workers:
            self.probes.ready.clear()
        elif not self._ended.is_set():
            self.probes.ready.set()

    def _warm_up(self, manifest: Manifest, deadline: float) -> None:
        body = msgspec.json.encode({"inputs": [manifest.example.inputs]})
        request = Request(  # noqa: S310 - our own http address
            self.url(manifest), body, {"Content-Type": "application/json"}
        )
        problem = "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise LaunchError(f"TorchServe did not start: {self._tail()}")
            try:
                with urlopen(request, timeout=10) as answer:  # noqa: S310
                    label = msgspec.json.decode(answer.read())["outputs"][0]["label"]
            except HTTPError as error:
                problem = f"{error.code} {error.read()[:500].decode(errors='replace')}"
            except (URLError, OSError) as error:
                problem = str(error)
            else:
                if label != manifest.example.label:
                    raise LaunchError(
                        f"{manifest.name} answers its own example with class {label}, its "
                        f"manifest says {manifest.example.label}; build the artifact again"
                    )
                return
            if self._stop.wait(0.1):
                raise LaunchError("stopped before every model was ready")
        raise LaunchError(f"{manifest.name} did not become ready ({problem}): {self._tail()}")

    def _tail(self, lines: int = 15) -> str:
        try:
            text = self._instance.log.read_text(errors="replace")
        except OSError:
            return "it left no log"
        return "its log ends with\n" + "\n".join(text.splitlines()[-lines:])


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and a closed terminal set."""
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
