"""TorchServe as we run it: its configuration, its command line, its environment.

docs/decisions/0003-torchserve-configuration.md says why each value is what it is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from skipserve.serving.address import in_url
from skipserve.serving.archive import Frontend
from skipserve.serving.frontend_patches import BATCH_DELAY, PIPELINE, patch_frontend
from skipserve.serving.java import find_java
from skipserve.serving.messages import MAX_BODY_BYTES
from skipserve.serving.pulse import DIRECTORY_VARIABLE as PULSES_VARIABLE
from skipserve.serving.switch import DIRECTORY_VARIABLE

LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <Console name="frontend" target="SYSTEM_ERR">
      <PatternLayout charset="UTF-8" alwaysWriteExceptions="false"><Pattern>{\
"time":"%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC}","level":"%p{lowerCase=true}",\
"logger":"torchserve.%c{1}","message":"%enc{%m}{JSON}","exception":"%enc{%ex}{JSON}"}%n\
</Pattern></PatternLayout>
    </Console>
    <Console name="worker" target="SYSTEM_ERR">
      <PatternLayout charset="UTF-8" pattern="%m%n"/>
    </Console>
    <RollingFile name="file" fileName="LOGS/torchserve.log" filePattern="LOGS/torchserve.%i.log">
      <PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TELEMETRY_METRICS" level="off"/>
    <Logger name="org.pytorch.serve.job" level="error"/>
    <Logger name="MODEL_LOG" level="info" additivity="false">
      <AppenderRef ref="worker" level="warn"/>
      <AppenderRef ref="file"/>
    </Logger>
    <Root level="warn">
      <AppenderRef ref="frontend" level="warn"/>
      <AppenderRef ref="file"/>
    </Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class Instance:
    """One run of TorchServe, in a directory of its own.

    Attributes:
        directory: Holds everything this run writes; removed with it.
        host: IP address the inference port binds to, without brackets.
        port: Inference port.
        torchserve_metrics_port: TorchServe's own metrics, always on loopback.
        grpc_ports: Two free ports; TorchServe opens them and cannot be told not to.
    """

    directory: Path
    host: str
    port: int
    torchserve_metrics_port: int
    grpc_ports: tuple[int, int]

    @property
    def store(self) -> Path:
        """Unpacked archives, one directory a model."""
        return self.directory / "store"

    @property
    def metrics(self) -> Path:
        """Where the workers write their metrics."""
        return self.directory / "metrics"

    @property
    def switches(self) -> Path:
        """Where each model's switch is."""
        return self.directory / "switches"

    @property
    def pulses(self) -> Path:
        """Where each worker says that it is there."""
        return self.directory / "pulses"

    @property
    def log(self) -> Path:
        """What TorchServe and the workers log."""
        return self.directory / "logs" / "torchserve.log"

    @property
    def scratch(self) -> Path:
        """The instance's own temporary directory: pid file, sockets, links to the models."""
        return self.directory / "tmp"

    @property
    def classes(self) -> Path:
        """Classes of the frontend that replace its own."""
        return self.directory / "classes"

    def frontend(self) -> Frontend:
        """What the frontend can do, mended as far as it could be."""
        unit_ms = 1e-3 if BATCH_DELAY.is_in(self.classes) else 1.0
        return Frontend(unit_ms, PIPELINE.is_in(self.classes))

    def write_configuration(self) -> None:
        """Make the directories, the two configuration files and the mended classes."""
        made = (self.store, self.metrics, self.switches, self.pulses)
        for directory in (*made, self.log.parent, self.scratch):
            directory.mkdir(parents=True, exist_ok=True)
        patch_frontend(_package() / "frontend" / "model-server.jar", self.classes)
        (self.directory / "config.properties").write_text(self._properties())
        (self.directory / "log4j2.xml").write_text(LOG4J.replace("LOGS", str(self.log.parent)))

    def command(self) -> list[str]:
        """The frontend's command line, as ``torchserve --start --foreground`` would run it.

        Without the Python process in between, which does not forward signals.
        """
        package = _package()
        return [
            str(find_java()),
            *("-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.disable.jmx=true"),
            f"-Dmodel_server_home={package.parent}",
            f"-Djava.io.tmpdir={self.scratch}",
            # An image keeps netty's native library here, as its /tmp may not hold code.
            f"-Djava.library.path={package / 'frontend'}",
            f"-Dlog4j.configurationFile=file://{self.directory / 'log4j2.xml'}",
            *("-cp", f"{self.classes}:{package / 'frontend' / '*'}"),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable),
            *("-f", str(self.directory / "config.properties")),
            *("-s", str(self.store), "-ncs", "--disable-token-auth"),
        ]

    def environment(self) -> dict[str, str]:
        """The environment of the frontend and, through it, of the workers."""
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        direct = ",".join(filter(None, (direct, "localhost,127.0.0.1,::1")))
        return {
            **os.environ,
            # A proxy cannot reach this machine's own ports, such as a collector's of spans.
            **dict.fromkeys(("no_proxy", "NO_PROXY"), direct),
            "TMPDIR": str(self.scratch),
            "TEMP": str(self.scratch),
            "LOG_LOCATION": str(self.log.parent),
            "METRICS_LOCATION": str(self.log.parent),
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            DIRECTORY_VARIABLE: str(self.switches),
            PULSES_VARIABLE: str(self.pulses),
            "TS_DECODE_INPUT_REQUEST": "false",
            # From 1.32 on ONNX Runtime reports to its maker unless told not to.
            "ORT_DISABLE_TELEMETRY": os.environ.get("ORT_DISABLE_TELEMETRY", "1"),
            # Thread pools of libraries we do not use; the backends get theirs explicitly.
            "OMP_NUM_THREADS": "1",
        }

    def _properties(self) -> str:
        values: dict[str, object] = {
            "inference_address": f"http://{in_url(self.host)}:{self.port}",
            # A socket in our own directory: nothing on the network can register or delete models.
            "management_address": f"unix:{self.scratch}/management.sock",
            "metrics_address": f"http://127.0.0.1:{self.torchserve_metrics_port}",
            "grpc_inference_address": "127.0.0.1",
            "grpc_management_address": "127.0.0.1",
            "grpc_inference_port": self.grpc_ports[0],
            "grpc_management_port": self.grpc_ports[1],
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
