"""A real server with traffic unlike calibration: it proposes, earns and skips; killed twice."""

from __future__ import annotations

import re
import time

import psutil
import pytest
from earned_server import remade
from running import serving
from typer.testing import CliRunner

from skipserve.cli import app
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server
ROWS = 300


@pytest.fixture(scope="module")
def project(routed_project, tmp_path_factory):
    """The small model, as ``certificate = "earned"`` and ``propose_rows`` would have made it."""
    root = tmp_path_factory.mktemp("proposes")
    remade(routed_project[0], root, certificate="earned", propose_rows=ROWS, eager_rows=0)
    return root


@pytest.fixture(scope="module")
def drifted():
    """Rows three times as large as those of calibration: most are outside the guard."""
    return 3 * open_recipe("two_moons").draw("certify").inputs.numpy()[:1_200]


def command(running, *arguments):
    result = CliRunner().invoke(app, [*arguments, "--metrics-port", str(running.metrics_port)])
    assert result.exit_code == 0, result.output
    return result.stdout


def until(running, pattern):
    deadline = time.monotonic() + 90
    while not re.search(pattern, text := command(running, "certificate", "small")):
        assert time.monotonic() < deadline, text
        time.sleep(0.2)
    return text


def send(running, rows):
    status, _, reply = running.ask("small", {"inputs": rows.tolist()})
    assert status == 200
    return reply


def until_shown(running, line):
    """Until the metrics have a line of what is earned."""
    deadline = time.monotonic() + 60
    while f"skipserve_earning_{line}" not in (shown := running.get("/metrics")):
        assert time.monotonic() < deadline, shown
        time.sleep(0.2)


def killed(running):
    family = running.descendants()
    running.process.kill()
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_rows_that_the_guard_would_hold_back_for_ever_are_let_in(project, drifted, tmp_path):
    with serving(project) as running:
        until(running, f"proposing: 0 of {ROWS} rows")
        assert send(running, drifted[:200])["router"] == "off"
        until(running, f"proposing: 200 of {ROWS} rows")
        until_shown(running, 'proposing_rows{model="small",slice=""} 200.0')
        until_shown(running, f'proposing_needed_rows{{model="small",slice=""}} {ROWS}.0')
        killed(running)
    with serving(project) as running:
        until(running, f"proposing: 200 of {ROWS} rows")
        send(running, drifted[200:300])
        text = until(running, r"proposed on 300 rows: \d+ candidates, the guard at [1-9.]+: ")
        assert "0 of 10,000 evidence rows" in text
        while send(running, drifted[300:400])["router"] == "off":
            pass  # some of these may still have proposed
        text = until(running, r"risk 0\.05: candidate \d+ of \d+ is in force, earned in epoch 1")
        until_shown(running, 'proposed{model="small",risk="0.05",slice=""} 1.0')
        killed(running)
    with serving(project) as running:
        deadline = time.monotonic() + 60
        while (reply := send(running, drifted[400:]))["router"] == "off":
            assert time.monotonic() < deadline
        shallow = [one["depth_run"] < reply["depth"] for one in reply["outputs"]]
        # Of these rows the guard of calibration holds back five in six.
        assert sum(shallow) > 0.5 * len(shallow)
        file = tmp_path / "certificate.json"
        command(running, "attest", "small", "--out", str(file))
        archive = str(project / "model_store" / "small.mar")
        told = CliRunner().invoke(app, ["verify", str(file), archive])
        assert told.exit_code == 0, told.output
        assert '"proposal": {' in file.read_text()
