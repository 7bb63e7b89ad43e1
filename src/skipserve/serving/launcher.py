"""The launcher: unpack archives, start TorchServe, warm up, say ready, stop without leftovers."""

from __future__ import annotations

import contextlib
import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

import msgspec

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Manifest
from skipserve.direct import open_directly, proxy_note
from skipserve.errors import LaunchError
from skipserve.files import machines_fault
from skipserve.serving import tracing
from skipserve.serving.address import Address, free_ports
from skipserve.serving.archive import unpack
from skipserve.serving.config import ServingConfig
from skipserve.serving.control import open_switches
from skipserve.serving.directory import Directory
from skipserve.serving.exposition import Exposition, LostCounts
from skipserve.serving.logs import Log
from skipserve.serving.monitor import Monitor
from skipserve.serving.probes import Probes
from skipserve.serving.processes import STOP_S, die_with_parent, stop_group
from skipserve.serving.readiness import Readiness, Wanted
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
        ip = address.require_free()
        self._directory = Directory(address.metrics_port)
        self._instance = Instance(
            self._directory.path, ip, address.port, address.port + 2, free_ports()
        )
        self._stop = stop or threading.Event()
        self._ended = threading.Event()
        self._lost = ""
        self._log = log or Log("text")
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._directory.remove)
        try:
            self._start(archives, overrides or {}, ready_s)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, archives: Sequence[Path], overrides: dict[str, Any], ready_s: float) -> None:
        instance = self._instance
        tracing.asked_for()  # an error here is one line, in a worker it is a restart for ever
        unpacked = self._fill(archives, overrides)
        self.manifests = [artifact.manifest for artifact, _ in unpacked]
        # Before TorchServe, so that no worker skips a row that an operator forbade.
        switches = open_switches(instance.directory, archives, self.manifests)
        for switch in switches:
            self._stack.callback(switch.close)
        # Before TorchServe, to be closed after it: while it stops, /ready says no.
        self.metrics = Exposition(instance.metrics)
        self.probes = Probes((instance.host, self.address.metrics_port), self.metrics, self._live)
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
        self._readiness = Readiness(
            self.process.pid,
            self.address.inference_url,
            instance.pulses,
            {
                artifact.manifest.name: Wanted.of(serving.workers, serving.response_timeout_s)
                for artifact, serving in unpacked
            },
            self.metrics,
            self.probes.ready,
            ready_s,
        )
        while missing := self._readiness.missing():
            if time.monotonic() > deadline or self._stop.wait(0.1):
                raise LaunchError(f"not every worker became ready ({missing}): {self._tail()}")
        models = [
            (a.manifest, serving, s) for (a, serving), s in zip(unpacked, switches, strict=True)
        ]
        self._monitor = Monitor(self.metrics, models)
        self._directory.remember(
            instance.classes, instance.store, instance.switches, instance.scratch / "models"
        )
        self._look()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._ended.set)

    def url(self, manifest: Manifest) -> str:
        """Where a model answers."""
        return f"{self.address.inference_url}/predictions/{manifest.name}"

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
        inputs = msgspec.json.encode(manifest.question(*rows)).decode()
        url = shlex.quote(self.url(manifest))  # a shell may take an address's brackets for its own
        return f"curl -H 'Content-Type: application/json' -d '{inputs}' {url}{hint}"

    def wait(self, stop: threading.Event) -> None:
        """Watch the server until ``stop`` is set.

        Raises:
            LaunchError: If TorchServe ends by itself, or what is lost does not come back.
        """
        while not stop.wait(1.0):
            if self._lost:
                raise LaunchError(self._lost)
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

    def _fill(
        self, archives: Sequence[Path], overrides: dict[str, Any]
    ) -> list[tuple[Artifact, ServingConfig]]:
        instance = self._instance
        try:
            instance.write_configuration()
            frontend = instance.frontend()
            return [unpack(archive, instance.store, overrides, frontend) for archive in archives]
        except OSError as error:
            if not machines_fault(error):
                raise
            raise LaunchError(
                f"{error.filename or instance.directory}: {error.strerror}; the service's files go "
                f"there: make room, or set TMPDIR to another folder"
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

    def _warm_up(self, manifest: Manifest, deadline: float) -> None:
        # The example's answer is that of full depth; with the router on it may lawfully differ.
        label = self._ask(manifest, "off", deadline)
        if label != manifest.example.label:
            raise LaunchError(
                f"{manifest.name} answers its own example with class {label}, its "
                f"manifest says {manifest.example.label}; build the artifact again"
            )
        if manifest.router is not None:
            self._ask(manifest, "on", deadline)

    def _ask(self, manifest: Manifest, router: str, deadline: float) -> int:
        """The class that a model answers its example with, once it does."""
        question = manifest.question(manifest.example.inputs)
        body = msgspec.json.encode({**question, "parameters": {"router": router}})
        request = Request(  # noqa: S310 - our own http address
            self.url(manifest), body, {"Content-Type": "application/json"}
        )
        problem = "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise LaunchError(f"TorchServe did not start: {self._tail()}")
            try:
                with open_directly(request, 10) as answer:
                    label: int = msgspec.json.decode(answer.read())["outputs"][0]["label"]
            except HTTPError as error:
                problem = f"{error.code} {error.read()[:500].decode(errors='replace')}"
            except (URLError, OSError) as error:
                problem = str(error)
            else:
                return label
            if self._stop.wait(0.1):
                raise LaunchError("stopped before every model was ready")
        raise LaunchError(
            f"{manifest.name} did not become ready ({problem}){proxy_note()}: {self._tail()}"
        )

    def _tail(self, lines: int = 15) -> str:
        try:
            text = self._instance.log.read_text(errors="replace")
        except OSError:
            return "it left no log"
        return "its log ends with\n" + "\n".join(text.splitlines()[-lines:])
