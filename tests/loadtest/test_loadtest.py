"""`skipserve loadtest` and Locust against the real service."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from locusts import locust, web_page
from running import free_ports
from small_project import ROUTED, build

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.loadtest.results import read_report

GENEROUS = "p50=2s,p99=5s,errors=0"
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def project(routed_project, tmp_path_factory) -> Path:
    """A model with a router and one without."""
    root = tmp_path_factory.mktemp("loaded") / "project"
    shutil.copytree(routed_project[0], root)
    bare = ROUTED.replace("small", "bare").replace("epochs = 3", "epochs = 2")
    (root / "export" / "bare.toml").write_text(bare[: bare.index("[router]")])
    build(root, "bare")
    return root


@pytest.fixture(scope="module")
def server(project):
    archives = [project / "model_store" / f"{name}.mar" for name in ("small", "bare")]
    with Server(archives, HostConfig(Address("127.0.0.1", *free_ports()))) as server:
        yield server.address


def command(address: Address, *options: str) -> list[str]:
    ports = ("--port", str(address.port), "--metrics-port", str(address.metrics_port))
    return [sys.executable, "-m", "skipserve.cli", "loadtest", *ports, *options]


def loadtest(project, address, *options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(address, *options), cwd=project, capture_output=True, text=True, timeout=300
    )


def test_a_generous_objective_passes_with_a_mix_and_its_baseline(project, server):
    options = ("--model", "small=3,bare", "--router", "default,0.02", "--rows", "1=2,5")
    done = loadtest(
        project, server, *options, "--rate", "100", "--duration", "2", "--slo", "p50=2s,errors=0"
    )
    # A model without a router refuses a risk, and that is seen before the load.
    assert done.returncode == 2
    assert "bare has no router" in done.stderr
    done = loadtest(
        project,
        server,
        *("--model", "small", "--router", "default,0.02,off", "--rows", "1=2,5"),
        *("--rate", "200", "--duration", "2", "--out", "mixed"),
        *("--slo", f"{GENEROUS},disagreement=0.05"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS; report in mixed.html and mixed.json"
    report = read_report(project / "mixed.json")
    assert report.verdict == "PASS" and not report.partial
    assert [len(arm.periods) for arm in report.arms] == [2, 2]
    asked, baseline = report.arms
    assert asked.total.requests == baseline.total.requests == asked.scheduled > 299
    assert len(asked.by_choice) == 6 and all(one.answered for one in asked.by_choice)
    assert asked.total.routed_rows < asked.total.rows  # a third of the mix is router off
    assert 0 < asked.total.skip_rate < 1
    assert baseline.total.routed_rows == 0
    assert len(asked.total.inference) == asked.total.requests
    about = report.models["small"]
    assert about["risks"] == {"default": 0.05, "0.02": 0.02, "off": None}
    manifest = json.loads((project / "artifacts" / "small" / "manifest.json").read_text())
    assert about["files"] == {
        one["path"]: one["sha256"] for one in manifest["files"] if one["format"] == "onnx"
    }
    # What the service answered is what the artifact answers in this process.
    assert asked.total.unforeseen == 0
    page = (project / "mixed.html").read_text()
    addresses = re.findall(r"https?://[^/\"\s]+", page)
    assert {one.split(":")[1] for one in addresses} <= {"//127.0.0.1", "//www.w3.org"}
    assert not re.search(r"(?:href|url\()\W*https?:", page)
    assert "src=" not in page and "@import" not in page


def test_an_objective_that_is_out_of_reach_fails(project, server):
    done = loadtest(
        *(project, server, "--model", "bare", "--rate", "50", "--duration", "1"),
        *("--slo", "p50=1us,errors=0", "--json"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["partial"]) == ("FAIL", False)
    checks = {one["what"]: one for one in found["checks"]}
    assert checks["p50"]["verdict"] == "FAIL" and "asked: 0.001 ms" in checks["p50"]["found"]
    assert found["report"]["json"] == ".build/loadtest/bare.json"
    assert (
        found["summary"]["asked"]
        == json.loads((project / ".build/loadtest/bare.json").read_text())["summary"]["asked"]
    )


def test_a_rate_beyond_the_client_is_invalid(project, server):
    done = loadtest(
        *(project, server, "--model", "bare", "--rate", "50000", "--duration", "1"),
        *("--slo", GENEROUS, "--timeout", "1", "--connections", "64"),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "INVALID offered" in done.stdout


def test_ctrl_c_leaves_a_partial_report(project, server):
    process = subprocess.Popen(
        command(server, "--model", "small", "--rate", "50", "--duration", "200", "--out", "cut"),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("as asked"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "INVALID complete" in out and "the report is partial" in out
    report = read_report(project / "cut.json")
    assert report.partial and report.verdict == "INVALID"
    assert 0 < report.asked.total.requests < 10_000
    # Everything that was sent came back, and both sides count it alike.
    assert {check.what: check.verdict for check in report.checks}["counts"] == "PASS"
    assert "Partial" in (project / "cut.html").read_text()


def test_it_starts_and_stops_the_service_and_compares_with_an_earlier_run(project):
    address = Address("127.0.0.1", *free_ports())
    options = ("--start", "--model", "bare", "--rate", "50", "--duration", "2", "--slo", "p50=2s")
    done = loadtest(project, address, *options, "--out", "old")
    assert done.returncode == 0, done.stdout + done.stderr
    done = loadtest(
        project, address, *options, "--compare", "old.json", "--out", "new", "--users", "1"
    )
    assert done.returncode == 2 and "leave out --rate" in done.stderr
    done = loadtest(project, address, *options, "--compare", "old.json", "--out", "new")
    assert "p50, as asked: " in done.stdout and "ratio" in done.stdout
    assert "Against the earlier run" in (project / "new.html").read_text()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", address.port)) != 0


def test_a_closed_loop(project, server):
    done = loadtest(
        *(project, server, "--model", "bare", "--users", "2", "--duration", "1"),
        *("--slo", "p50=2s,errors=0", "--out", "closed"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_report(project / "closed.json").plan["loop"] == "closed"


def wrong(command_line, project, address, *options) -> str:
    """What a wrong command line is told."""
    ended = command_line(*command(address, *options)[3:], folder=project)
    assert ended.code == 2
    return ended.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "nowhere", "--rate", "50"], "artifacts/nowhere is not an artifact"),
        (["--model", "moved", "--rate", "50"], "serves no model 'moved', only bare, small"),
        (["--model", "bare", "--rate", "0"], "rate must be a positive number"),
        (["--model", "bare", "--rate", "nan"], "rate must be a positive number"),
        (["--model", "bare"], "say how much load"),
        (["--model", "bare", "--rate", "50", "--slo", "p50=15"], "not a duration"),
        (["--model", "bare", "--rate", "50", "--slo", "mean=1ms"], "unknown measure 'mean'"),
        (["--model", "bare", "--rate", "5", "--slo", "p99=1s"], "run at least 71 s"),
        (
            ["--model", "bare", "--rate", "50", "--shape", "saw"],
            "'saw' is not one of 'steady', 'step'",
        ),
        (["--model", "bare", "--rate", "50", "--compare", "no.json"], "no.json cannot be read"),
        (
            ["--model", "bare", "--rate", "50", "--slo", "disagreement=0.01"],
            "this mix has none",
        ),
        (["--model", "nowhere", "--rate", "50", "--start"], "no model_store/nowhere.mar to start"),
    ],
)
def test_wrong_input_is_one_line(project, server, options, says, command_line):
    moved = project / "artifacts" / "moved"
    if not moved.exists():
        shutil.copytree(project / "artifacts" / "bare", moved)
    told = wrong(command_line, project, server, *options)
    assert says in told
    assert "Traceback" not in told


def test_a_service_that_is_not_up_is_one_line(project, command_line):
    nobody = Address("127.0.0.1", *free_ports())
    told = wrong(command_line, project, nobody, "--model", "bare", "--rate", "50")
    assert "nothing answers at http://127.0.0.1" in told and "--start" in told
    assert len(told.splitlines()) == 1


def test_another_artifact_than_the_one_served_is_refused(project, server, command_line):
    other = project / "elsewhere" / "bare"
    if not other.exists():
        shutil.copytree(project / "artifacts" / "small", other)
    options = ["--model", "bare", "--rate", "50", "--artifacts", "elsewhere"]
    told = wrong(command_line, project, server, *options)
    assert "its answers would not be those to expect" in told


def test_locusts_distributed_workers_share_one_schedule(project, server):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ports = ("--master-bind-port", port, "--master-port", port)
    done = subprocess.run(
        locust(server, "--headless", "--processes", "2", *ports),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "80 of 80 right" in done.stdout
    assert "corrected ms: p50" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shape", "sted"), "unknown shape 'sted'"),
        (("--rate", "0"), "must be a positive number"),
        (("--router", "maybe"), "expected default, on, off or a risk"),
    ],
)
def test_a_wrong_option_of_locust_ends_it(project, server, options, says):
    done = subprocess.run(
        [*locust(server, "--headless", "-u", "1", "-r", "1"), *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_locusts_web_page_starts_a_test_with_our_options(project, server):
    def stats(url: str) -> dict[str, object]:
        with urllib.request.urlopen(f"{url}/stats/requests") as reply:
            return json.loads(reply.read())

    with web_page(project, server) as url:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                assert stats(url)["state"] == "ready"
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        form = {"user_count": 8, "spawn_rate": 8, "rate": 30.0, "seconds": 2.0, "router": "off"}
        body = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{url}/swarm", body) as reply:
            assert json.loads(reply.read())["success"]
        while stats(url)["state"] != "stopped":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (row,) = [one for one in stats(url)["stats"] if one["name"] != "Aggregated"]
        assert (row["name"], row["num_requests"], row["num_failures"]) == (
            "small, router off",
            60,
            0,
        )
