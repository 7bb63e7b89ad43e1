"""TorchServe with a handler on its own base class, and the logs that can be off, off."""

import os
import subprocess

import yaml
from served import (
    BATCH_DELAY_S,
    BATCH_SIZE,
    FILE,
    NAME,
    PORT,
    QUEUE_SIZE,
    SCRATCH,
    SPARE_PORTS,
    WORKERS,
)

LOG4J = """<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%p %c{1} %m%n"/></Console></Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="warn"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="ACCESS_LOG" level="off"/>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""
PROPERTIES = f"""inference_address=http://127.0.0.1:{PORT}
management_address=http://127.0.0.1:{SPARE_PORTS[0]}
metrics_address=http://127.0.0.1:{SPARE_PORTS[1]}
grpc_inference_port={SPARE_PORTS[2]}
grpc_management_port={SPARE_PORTS[3]}
number_of_netty_threads=1
netty_client_threads=1
disable_system_metrics=true
enable_envvars_config=false
"""
MODEL = {
    "minWorkers": WORKERS,
    "maxWorkers": WORKERS,
    "batchSize": BATCH_SIZE,
    "maxBatchDelay": round(BATCH_DELAY_S * 1e3),
    "jobQueueSize": QUEUE_SIZE,
}

if __name__ == "__main__":
    # One pid file and one archive under construction a temporary directory.
    os.environ |= {"TMPDIR": str(SCRATCH), "LOG_LOCATION": str(SCRATCH)}
    for name, text in {
        "log4j2.xml": LOG4J,
        "config.properties": PROPERTIES,
        "model-config.yaml": yaml.safe_dump(MODEL),
    }.items():
        (SCRATCH / name).write_text(text)
    archive = [
        *("torch-model-archiver", "--model-name", NAME, "--version", "1.0", "--force"),
        *("--handler", "handler.py", "--serialized-file", str(FILE)),
        *("--config-file", str(SCRATCH / "model-config.yaml"), "--export-path", str(SCRATCH)),
    ]
    subprocess.run(archive, check=True)
    os.chdir(SCRATCH)
    serve = [
        *("torchserve", "--start", "--foreground", "--ncs", "--disable-token-auth"),
        *("--ts-config", "config.properties", "--log-config", "log4j2.xml"),
        *("--model-store", ".", "--models", f"{NAME}.mar"),
    ]
    os.execvp(serve[0], serve)
