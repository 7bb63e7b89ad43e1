"""A real server that earns its certificate, keeps it over a restart, and says how far it is."""

from __future__ import annotations

import json
import re
import shutil
import time
from urllib.request import Request, urlopen

import pytest
from running import free_ports
from typer.testing import CliRunner

from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import write_certificates
from skipserve.artifacts.manifest import write_manifest
from skipserve.artifacts.serving import ServingConfig
from skipserve.building.buildfile import HANDLER
from skipserve.cli import app
from skipserve.errors import StateError
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve.packaging import package
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def archive(routed_project, tmp_path_factory):
    """The small model, as ``certificate = "earned"`` would have made it."""
    root = tmp_path_factory.mktemp("earned")
    shutil.copytree(routed_project[0] / "artifacts" / "small", root / "small")
    artifact = open_artifact(root / "small")
    router = artifact.manifest.router.model_copy(update={"certificate": "earned"})
    write_manifest(root / "small", artifact.manifest.model_copy(update={"router": router}))
    none = artifact.certificates.model_copy(update={"certificates": (), "refusals": ()})
    write_certificates(root / "small", none)
    return package(root / "small", HANDLER, ServingConfig(risk=0.05), root / "store")


class Served:
    def __init__(self, archive):
        port, self.metrics_port = free_ports()
        config = HostConfig(Address("127.0.0.1", port, self.metrics_port), workers=1)
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


def test_it_earns_keeps_exports_takes_over_and_forgets(archive, tmp_path):
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:250]
    earned = r"risk 0\.05: candidate (\d+) of \d+ is in force, earned in epoch 1 on 250 rows"
    served = Served(archive)
    with served.server:
        text = served.certificate()
        assert "risk 0.05: nothing is in force that was earned; earning: 0 of about 97 rows" in text
        with pytest.raises(StateError, match="nothing is earned yet"):
            served.certificate("--export", str(tmp_path / "none"))
        assert served.send(rows)["router"] == "off"
        served.until(earned)
        deadline = time.monotonic() + 60
        while served.send(rows[:1])["router"] == "off":
            assert time.monotonic() < deadline
    again = Served(archive)
    with again.server:
        assert again.send(rows[:1])["router"] == "on"
        file = tmp_path / "earned.jsonl"
        assert again.certificate("--export", str(file)) == f"{file}\n"
        assert "earned in epoch 1, " in verified(again, archive, tmp_path)
        assert "forgotten; epoch 2 begins" in again.certificate("--reset")
        assert "nothing is in force" in again.certificate().splitlines()[2]
        again.certificate("--import", str(file))
        assert re.search(earned, again.certificate())
        found = json.loads(again.certificate("--json"))
        (whole,) = found["slices"]
        assert (found["model"], whole["slice"], whole["earning"]) == ("small", None, True)
        (risk,) = (one for one in whole["risks"] if one["risk"] == 0.05)
        assert risk["candidate_in_force"] >= 1 and risk["earned"]["rows"] == 250
        assert "earned in epoch 1, " in verified(again, archive, tmp_path)
        deadline = time.monotonic() + 60
        while again.send(rows[:1])["router"] == "off":
            assert time.monotonic() < deadline
