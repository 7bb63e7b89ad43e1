"""The client against a small real HTTP server: counts and latencies."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from skipserve.commands import loadtest as command
from skipserve.errors import ConfigError, LoadTestError
from skipserve.loadtest import capacity
from skipserve.loadtest.capacity import find_capacity
from skipserve.loadtest.client import Client
from skipserve.loadtest.payloads import Choice, Pool
from skipserve.loadtest.periods import Period, Setup
from skipserve.loadtest.plan import Plan, as_text
from skipserve.loadtest.pools import Subject
from skipserve.loadtest.report import write_capacity
from skipserve.loadtest.results import Arm
from skipserve.loadtest.slo import parse_slo
from skipserve.loadtest.target import Running, Target

pytestmark = pytest.mark.slow

MODELS = ("right", "wrong", "malformed", "busy", "gone", "never", "stalls", "slow")
# A label more than today, in another order.
METRICS = """# HELP skipserve_build_info Versions.
# TYPE skipserve_build_info gauge
skipserve_build_info{version="0"} 1.0
# HELP skipserve_requests_total Requests.
# TYPE skipserve_requests_total counter
skipserve_requests_total{code="200",model="a",router="on"} 3.0
skipserve_requests_total{router="off",model="a",code="200"} 4.0
skipserve_requests_total{code="400",model="a",router="off"} 1e+00
skipserve_requests_created{code="200",model="a"} 1.7e+09
skipserve_model_info{backend="ort",checkpoint="abc",model="a",precision="fp32",provider="cpu"} 1
"""
STALL_S = 1.0
SLOW_S = 0.01


class Handler(BaseHTTPRequestHandler):
    """Answers at once; one request at a time where a model's name says so."""

    protocol_version = "HTTP/1.1"
    stalled = threading.Event()
    one_at_a_time = threading.Lock()

    def do_POST(self) -> None:
        model = self.path.rpartition("/")[2]
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        rows = len(sent["inputs"]["inputs"])
        if model == "gone":
            self.close_connection = True
            return
        if model == "never":
            time.sleep(1.5)
        if model == "stalls":
            with self.one_at_a_time:
                if not self.stalled.is_set():
                    self.stalled.set()
                    time.sleep(STALL_S)
        if model == "slow":
            with self.one_at_a_time:
                time.sleep(SLOW_S)
        label = 1 if model == "wrong" else 0
        row = {"label": label, "probabilities": [1 - label, label], "depth_run": 4}
        body = json.dumps({"outputs": [row] * rows, "depth": 4, "router": "off"}).encode()
        if model == "malformed":
            body = body[:-5]
        self.send_response(503 if model == "busy" else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("server-timing", "decode;dur=0.100, inference;dur=0.200")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        body = METRICS.encode() if self.path == "/metrics" else b"# nothing\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A client that gave up is no news."""


@pytest.fixture(scope="module")
def host():
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def pool(model: str) -> Pool:
    return Pool(model, 4, 2, [("[0.5,0.5]",), ("[0.1,0.2]",)], [0, 0])


@pytest.fixture(scope="module")
def client(host):
    with Client(Setup(host, [pool(model) for model in MODELS], 64, 1.0)) as client:
        yield client


def load(client, model, rate=40.0, duration_s=0.5, users=None, rows=1):
    mix = [Choice(model, rows=rows)]
    result = client.run(Period(mix, [(duration_s, rate)], "constant", 0, duration_s, users))
    return result, Arm("asked", mix, [result], duration_s).total


def test_every_request_of_the_schedule_is_sent_checked_and_counted(client):
    result, tally = load(client, "right", rows=3)
    assert (result.scheduled, tally.requests, tally.answered) == (20, 20, 20)
    assert tally.rows == 60
    assert tally.statuses == {"right 200": 20}
    assert not result.stopped and result.ran_s == 0.5
    for name in ("corrected", "uncorrected", "lag", "decode", "inference", "queue"):
        assert len(getattr(tally, name)) == 20
    assert tally.decode.percentile(50) == pytest.approx(1e-4, abs=2e-6)
    assert tally.inference.percentile(50) == pytest.approx(2e-4, abs=2e-6)


@pytest.mark.parametrize(
    ("model", "failure", "statuses", "unanswered"),
    [
        ("wrong", "wrong answer", {"wrong 200": 20}, 0),
        ("malformed", "malformed reply", {"malformed 200": 20}, 0),
        ("busy", "status 503", {"busy 503": 20}, 0),
        ("gone", "no reply", {}, 20),
        ("never", "no reply", {}, 20),
    ],
)
def test_what_is_not_a_right_answer_is_a_failure(client, model, failure, statuses, unanswered):
    _, tally = load(client, model)
    assert (tally.requests, tally.answered, tally.failed) == (20, 0, 20)
    assert all(each.startswith(failure) for each in tally.failures), tally.failures
    assert tally.statuses == statuses
    assert tally.unanswered.total() == unanswered
    if "200" not in str(statuses):  # no answer counts as long as the timeout
        assert tally.corrected.percentile(1) >= 0.999


def test_a_stall_is_seen_by_the_open_loop_and_hidden_by_the_closed_one(host):
    seen = {}
    for name, connections, users in (("open", 64, None), ("queued", 1, None), ("closed", 1, 1)):
        Handler.stalled.clear()
        with Client(Setup(host, [pool("stalls")], connections, 5.0)) as client:
            seen[name] = load(client, "stalls", 50.0, 2.0, users)[1]
        assert Handler.stalled.is_set()
    # Half of the 100 requests were due in that second, and waited for the rest of it.
    assert seen["open"].corrected.percentile(80) > STALL_S / 4
    assert seen["queued"].corrected.percentile(80) > STALL_S / 4
    # One connection: nothing is sent while it waits, so only one request looks slow.
    assert seen["queued"].uncorrected.percentile(80) < STALL_S / 4
    assert seen["closed"].corrected.percentile(80) < STALL_S / 4
    assert seen["closed"].corrected.percentile(100) > 0.99 * STALL_S


def test_a_closed_loop_has_as_many_on_their_way_as_users(client):
    result, tally = load(client, "slow", users=4)
    # 10 ms each, one at a time: each of four waits for the three before it.
    assert tally.requests == tally.answered == result.scheduled
    assert tally.corrected.percentile(50) > 3 * SLOW_S


def test_a_period_can_be_stopped_and_the_next_one_runs(client):
    threading.Timer(0.5, client.stop).start()
    result, tally = load(client, "right", duration_s=60.0)
    assert result.stopped and result.ran_s < 30
    assert tally.requests == result.scheduled < 2400
    assert load(client, "right")[1].answered == 20


def test_slices_and_choices_are_kept_apart(client):
    mix = [Choice("right", weight=3.0), Choice("busy")]
    result = client.run(Period(mix, [(1.0, 100.0)], "constant", 0, 0.25))
    arm = Arm("asked", mix, [result], 0.25)
    assert [tally.requests for _, _, tally in arm.slices] == [25, 25, 25, 25]
    right, busy = arm.by_choice
    assert right.failed == 0 and busy.answered == 0
    assert right.requests + busy.requests == 100 and 10 <= busy.requests <= 40


def test_capacity_of_a_server_that_takes_ten_ms_a_request(host, tmp_path, monkeypatch):
    # Coarser than what users get, and ten times as quick.
    monkeypatch.setattr(capacity, "TOLERANCE", 1.5)
    monkeypatch.setattr(capacity, "FEWEST_REQUESTS", 30)
    subject = Subject(
        pool("slow"), Running("", "", "", ""), {}, Path(), {}, {}, {}, has_router=False
    )
    plan = Plan([Choice("slow")], 0.5, 40.0, timeout_s=2.0, connections=64)
    said: list[str] = []
    objective, target = parse_slo("p50=50ms,errors=0"), Target(host, host)
    (found,) = find_capacity(plan, objective, target, [subject], threading.Event(), said.append)
    assert found.complete
    # Never above what it can do, but for the chance of a short trial.
    assert 0 < found.highest < 1.5 / SLOW_S
    assert found.failing is not None and found.failing <= 1.5 * found.highest
    assert len(said) == len(found.trials)
    about = {"started": "now", "plan": as_text(plan, objective, target), "environment": {}}
    write_capacity(tmp_path / "found", [found], {**about, "models": {}}, partial=False)
    kept = json.loads((tmp_path / "found.json").read_text())["capacity"][0]
    assert kept["highest"] == found.highest and len(kept["trials"]) == len(found.trials)
    page = (tmp_path / "found.html").read_text()
    assert "asked: p50 ≤ 50 ms" in page and page.count("<tr><td>as asked") == 1 + len(said)


def test_counts_are_summed_over_labels_we_do_not_know(host):
    target = Target(host, f"{host}/metrics")
    assert target.requests() == {"a 200": 7, "a 400": 1}
    assert target.models() == {"a": Running("ort", "cpu", "fp32", "abc")}


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_another_port_than_that_of_the_metrics_is_an_error(host, path):
    with pytest.raises(LoadTestError, match="must be the service's own metrics port"):
        Target(host, host + path).requests()


class Other(socketserver.BaseRequestHandler):
    """A server of another protocol."""

    def handle(self):
        self.request.recv(1024)
        self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_what_speaks_no_http_is_an_error():
    with socketserver.TCPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        target = Target(url, f"{url}/metrics")
        for ask in (target.requests, lambda: target.ask(pool("a"), Choice("a"))):
            with pytest.raises(LoadTestError, match=r"nothing answers at .*SSH-2.0"):
                ask()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1:80", "file:///etc/passwd", "http://"])
def test_what_is_no_address_is_an_error(address):
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        Target(address, address)


@pytest.mark.parametrize("model", ["malformed", "gone"])
def test_a_service_that_does_not_speak_our_protocol_is_an_error(host, model):
    with pytest.raises(LoadTestError):
        Target(host, f"{host}/metrics").ask(pool(model), Choice(model))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(command.NEEDED, "no_such_module", "no-such-package")
    with pytest.raises(ConfigError, match=r"no-such-package; .*: make .venv/load$"):
        command.require_packages()
    monkeypatch.setattr(command, "CLONE", tmp_path)  # an installation: no Makefile there
    with pytest.raises(ConfigError, match=r"no-such-package; .*pip install 'skipserve\[load"):
        command.require_packages()
