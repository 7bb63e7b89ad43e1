"""A real server starts with an example that its router answers otherwise, and stays off by hand."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from running import free_ports, until

import skipserve
from skipserve.address import Address
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.serving import ServingConfig
from skipserve.commands.router import status
from skipserve.hosts.config import HostConfig
from skipserve.hosts.control import find_router
from skipserve.hosts.launcher import Server
from skipserve.hosts.reloads import ask_to_reload
from skipserve.hosts.torchserve.packaging import package
from skipserve.safety.standing import STATE_VARIABLE
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def archive(routed_project, tmp_path_factory) -> Path:
    """A model whose example leaves after one block, as its certificate allows, as another class."""
    root = tmp_path_factory.mktemp("disagreeing")
    artifact = Path(shutil.copytree(routed_project[0] / "artifacts" / "small", root / "small"))
    made = json.loads((artifact / CERTIFICATES).read_text())
    at_once = [0.0] * len(made["certificates"][0]["thresholds"])
    for one in made["certificates"]:
        one |= {"thresholds": at_once, "guard_limit": None, "candidate": 0}
    made["candidates"] = [at_once]
    (artifact / CERTIFICATES).write_text(json.dumps(made))
    manifest = json.loads((artifact / MANIFEST).read_text())
    manifest["router"]["guard_limit"] = None
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    engine = skipserve.open(artifact, provider="cpu")
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    full, fast = engine.predict(rows), engine.predict(rows, risk=0.05)
    assert set(fast.depth_run) == {1}
    row = (full.labels != fast.labels).argmax()
    assert full.labels[row] != fast.labels[row]
    manifest["example"] |= {
        "inputs": {"inputs": rows[row].tolist()},
        "answer": full.answers[row].tolist(),
    }
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    open_artifact(artifact)
    handler = Path(__file__).parents[2] / "handlers" / "torchserve_handler.py"
    return package(artifact, handler, ServingConfig(risk=0.05), root / "store")


def ask(server: Server) -> dict:
    (manifest,) = server.manifests
    body = json.dumps(manifest.request_of(manifest.example.inputs)).encode()
    request = Request(server.url(manifest), body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as reply:
        answer: dict = json.load(reply)
    return answer


def test_it_starts_and_what_was_switched_off_stays_off(archive, caplog, capsys):
    port, metrics_port = free_ports()
    address = Address("127.0.0.1", port, metrics_port)
    with Server([archive], HostConfig(address)) as server:
        answer = ask(server)
        assert (answer["router"], answer["outputs"][0]["depth_run"]) == ("on", 1)
        assert answer["outputs"][0]["label"] != int(np.argmax(server.manifests[0].example.answer))
        find_router(metrics_port, "small").set("disabled")
        assert ask(server)["router"] == "off"
    caplog.clear()
    with caplog.at_level(logging.WARNING), Server([archive], HostConfig(address)) as server:
        assert "small skips nothing: it was switched off by hand" in caplog.text
        answer = ask(server)
        assert answer["outputs"][0]["label"] == int(np.argmax(server.manifests[0].example.answer))
        assert answer["router_reason"] == "switched off by the operator"
        status(None, metrics_port)
        assert capsys.readouterr().out == "small: disabled, also after a restart\n"
        status(None, metrics_port, json=True)
        state = {"state": "disabled", "disabled_after_restart": True}
        assert json.loads(capsys.readouterr().out) == {"routers": {"small": state}}
        find_router(metrics_port, "small").set("on")
        assert ask(server)["router"] == "on"
    assert not any((archive.parent / ".router-off").iterdir())


def test_a_service_follows_the_orders_in_the_folder_that_it_shares(
    archive, tmp_path, monkeypatch, capsys
):
    """As another replica gives and lifts them, or whoever may write there."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    port, metrics_port = free_ports()
    order = tmp_path / ".router-off" / "small"
    with Server([archive], HostConfig(Address("127.0.0.1", port, metrics_port))) as server:
        assert ask(server)["router"] == "on"
        order.parent.mkdir()
        order.touch()
        until(lambda: ask(server)["router"] == "off")
        assert ask(server)["router_reason"] == "switched off by the operator"
        status(None, metrics_port)
        assert capsys.readouterr().out == "small: disabled, also after a restart\n"
        ask_to_reload(metrics_port)  # the processes that come after follow it, too
        assert ask(server)["router"] == "off"
        order.unlink()
        until(lambda: ask(server)["router"] == "on")
