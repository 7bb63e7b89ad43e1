"""A server whose model earns its certificate, and what is asked of it."""

from __future__ import annotations

import json
import re
import shutil
import time
from urllib.request import Request, urlopen

from running import free_ports
from typer.testing import CliRunner

from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import write_certificates
from skipserve.artifacts.manifest import write_manifest
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import HANDLER
from skipserve.cli import app
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve.packaging import package


class Served:
    def __init__(self, archive, host="127.0.0.1"):
        port, self.metrics_port = free_ports()
        config = HostConfig(Address(host, port, self.metrics_port), workers=1)
        self.server = Server([archive], config, "granian")

    def send(self, rows):
        body = json.dumps({"inputs": rows.tolist()}).encode()
        url = self.server.url(self.server.manifests[0])
        with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=60) as reply:
            return json.loads(reply.read())

    def certificate(self, *options):
        command = ["certificate", "small", "--metrics-port", str(self.metrics_port), *options]
        result = CliRunner().invoke(app, command)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    def until(self, pattern):
        deadline = time.monotonic() + 60
        while not re.search(pattern, text := self.certificate()):
            assert time.monotonic() < deadline, text
            time.sleep(0.2)
        return text


def verified(served, archive, folder):
    """What is said of the certificate that others get."""
    file, port = str(folder / "certificate.json"), str(served.metrics_port)
    for command in (
        ["attest", "small", "--out", file, "--metrics-port", port],
        ["verify", file, str(archive)],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    return result.stdout


def remade(project, root, **router):
    """The archive of a project's small model without certificates, its router as these say.

    Args:
        project: That was built.
        root: An empty folder; the archive is in its ``model_store``.
        router: Settings of [router].
    """
    shutil.copytree(project / "artifacts" / "small", root / "small")
    artifact = open_artifact(root / "small")
    changed = artifact.manifest.router.model_copy(update=router)
    write_manifest(root / "small", artifact.manifest.model_copy(update={"router": changed}))
    none = artifact.certificates.model_copy(update={"certificates": (), "refusals": ()})
    write_certificates(root / "small", none)
    return package(root / "small", HANDLER, ServingConfig(risk=0.05), root / "model_store")
