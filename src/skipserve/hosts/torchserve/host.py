"""TorchServe as a host: its configuration, its command line, its environment.

docs/decisions/0003-torchserve-configuration.md says why each value is what it is.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from skipserve.address import free_ports
from skipserve.artifacts.archive import MODEL_CONFIG, Unpacked
from skipserve.direct import answers
from skipserve.errors import LaunchError
from skipserve.extras import require
from skipserve.hosts.child import Child
from skipserve.hosts.config import HostConfig
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.processes import children, command_line
from skipserve.hosts.torchserve.frontend import patch_frontend
from skipserve.hosts.torchserve.java import find_java
from skipserve.hosts.torchserve.log4j import LOG4J
from skipserve.hosts.torchserve.packaging import model_config
from skipserve.protocols.messages import MAX_BODY_BYTES
from skipserve.telemetry.logs import Log

# Java heap of the frontend, which holds every body.
HEAP = "512m"
# Exit status of -XX:+ExitOnOutOfMemoryError.
OUT_OF_MEMORY = 3


class TorchServe:
    """The host that the archives are made for: a Java frontend with Python workers.

    Args:
        instance: Folders of this run.
        config: Where to listen; TorchServe's own metrics are two ports above, on loopback.
        log: Where everything that it says goes.

    Raises:
        LaunchError: If it is not installed, or was asked for what it cannot do.
    """

    name = "TorchServe"

    def __init__(self, instance: Instance, config: HostConfig, log: Log) -> None:
        require("ts", "yaml", hint=", or leave out --server torchserve")
        if config.tls is not None or config.origins or config.keys is not None:
            raise LaunchError(
                "TorchServe is served without TLS and CORS here, and without keys; put a proxy "
                "before it, or use --server granian"
            )
        self._ip = config.address.ip()
        if ":" in self._ip:
            raise LaunchError(
                f"TorchServe cannot listen on the IPv6 address {self._ip}; use --server granian, "
                "or an IPv4 address"
            )
        self._instance = instance
        self._config = config
        self._log = log
        self._grpc_ports = free_ports()
        self._child: Child | None = None

    def start(self, models: Sequence[Unpacked]) -> None:
        """Write its configuration, and start it.

        Raises:
            LaunchError: If Java is missing or too old, or a model has several versions.
        """
        if beside := [model.name for model in models if model.name != model.model]:
            raise LaunchError(
                f"TorchServe serves one version of each model here, so {beside[0]} cannot be "
                "served beside another; use --server granian"
            )
        instance, package = self._instance, _package()
        patch_frontend(package / "frontend" / "model-server.jar", self._classes)
        for model in models:
            written = model_config(model.serving, self._config.workers)
            (model.directory / MODEL_CONFIG).write_text(written)
        (instance.directory / "config.properties").write_text(self._properties())
        log4j = LOG4J.replace("LOGS", str(instance.log.parent)).replace("FILE", instance.log.name)
        (instance.directory / "log4j2.xml").write_text(log4j)
        environment = instance.environment() | {
            "LOG_LOCATION": str(instance.log.parent),
            "METRICS_LOCATION": str(instance.log.parent),
            "TS_DECODE_INPUT_REQUEST": "false",
        }
        command = self._command(package)
        self._child = Child(command, environment, instance.directory, self._log, "torchserve")

    def keeps(self) -> Sequence[Path]:
        """Its classes and its links to the models, which a restarted worker reads again."""
        return (self._classes, self._instance.scratch / "models")

    def ready(self) -> bool:
        """Whether its frontend answers, even if workers are missing."""
        return answers(f"{self._config.url}/ping")

    def workers(self) -> set[int]:
        """Its worker processes."""
        if self._child is None:
            return set()
        found = children(self._child.pid)
        return {pid for pid in found if "model_service_worker" in command_line(pid)}

    def ended(self) -> str:
        """Why it ended."""
        if self._child is None or not self._child.ended():
            return ""
        status = self._child.process.returncode
        why = f"its {HEAP} heap is full" if status == OUT_OF_MEMORY else f"status {status}"
        return f"TorchServe ended by itself ({why})"

    def successor(self, instance: Instance) -> Host:
        """None: two frontends cannot share a port."""
        raise LaunchError(
            "TorchServe cannot open other archives while it serves; restart `skipserve serve`, or "
            "use --server granian"
        )

    def retire(self, stop: threading.Event) -> None:
        """Nothing: it has no successor."""

    def close(self) -> None:
        """End it; pending requests are lost."""
        if self._child is not None:
            self._child.close(self._config.drain_s)

    @property
    def _classes(self) -> Path:
        """Patched classes of the frontend."""
        return self._instance.directory / "classes"

    def _command(self, package: Path) -> list[str]:
        """The frontend's command line, as ``torchserve --start --foreground`` would run it.

        Without the Python process in between, which does not forward signals.
        """
        directory = self._instance.directory
        return [
            str(find_java()),
            *(f"-Xmx{HEAP}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"),
            "-Dlog4j2.disable.jmx=true",
            f"-Dmodel_server_home={package.parent}",
            f"-Djava.io.tmpdir={self._instance.scratch}",
            # An image keeps netty's native library here, as its /tmp may not hold code.
            f"-Djava.library.path={package / 'frontend'}",
            f"-Dlog4j.configurationFile=file://{directory / 'log4j2.xml'}",
            *("-cp", f"{self._classes}:{package / 'frontend' / '*'}"),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable),
            *("-f", str(directory / "config.properties")),
            *("-s", str(self._instance.store), "-ncs", "--disable-token-auth"),
        ]

    def _properties(self) -> str:
        port = self._config.address.port
        values: dict[str, object] = {
            "inference_address": f"http://{self._ip}:{port}",
            # A socket in our own directory: nothing on the network can register or delete models.
            "management_address": f"unix:{self._instance.scratch}/management.sock",
            "metrics_address": f"http://127.0.0.1:{port + 2}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": self._grpc_ports[0],
            "grpc_management_port": self._grpc_ports[1],
            "load_models": "all",
            "disable_token_authorization": "true",
            "allowed_urls": "file:///nowhere",
            "decode_input_request": "false",
            "disable_system_metrics": "true",
            "metrics_mode": "prometheus",
            "number_of_netty_threads": 1,
            "netty_client_threads": 1,
            "prefer_direct_buffer": "true",
            "max_request_size": MAX_BODY_BYTES,
            "max_response_size": MAX_BODY_BYTES,
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())


def _package() -> Path:
    spec = importlib.util.find_spec("ts")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
