"""`skipserve top`: numbers from two readings of /metrics, by hand and from a real service."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from observed import MODEL
from rich.console import Console
from running import cli, free_ports

from skipserve.errors import WatchError
from skipserve.watching.numbers import numbers, quantile
from skipserve.watching.scrape import fetch, parse
from skipserve.watching.screen import draw, frames

BUILD = 'skipserve_build_info{version="1.2",python="3"} 1\n'
INFO = 'skipserve_model_info{model="a",backend="onnxruntime",provider="cpu",precision="fp32"} 1\n'
BEFORE = f"""{BUILD}{INFO}
skipserve_requests_total{{model="a",code="200"}} 100
skipserve_requests_total{{model="a",code="500"}} 5
"""
AFTER = f"""{BUILD}{INFO}
skipserve_worker_restarts_total 1
skipserve_requests_total{{model="a",code="200"}} 190
skipserve_requests_total{{model="a",code="500"}} 15
skipserve_request_duration_seconds_bucket{{model="a",depth="full",le="0.01"}} 10
skipserve_request_duration_seconds_bucket{{model="a",depth="full",le="0.015"}} 30
skipserve_request_duration_seconds_bucket{{model="a",depth="full",le="+Inf"}} 40
skipserve_request_duration_seconds_bucket{{model="a",depth="skipped",le="0.01"}} 10
skipserve_request_duration_seconds_bucket{{model="a",depth="skipped",le="0.015"}} 10
skipserve_request_duration_seconds_bucket{{model="a",depth="skipped",le="+Inf"}} 10
skipserve_rows_total{{model="a",router="on"}} 200
skipserve_rows_total{{model="a",router="off"}} 7
skipserve_guard_held_back_rows_total{{model="a"}} 4
skipserve_block_rows_total{{model="a",block="1",action="run"}} 200
skipserve_block_rows_total{{model="a",block="1",action="skipped"}} 0
skipserve_block_rows_total{{model="a",block="2",action="run"}} 50
skipserve_block_rows_total{{model="a",block="2",action="skipped"}} 150
skipserve_block_rows_total{{model="a",block="10",action="run"}} 0
skipserve_block_rows_total{{model="a",block="10",action="skipped"}} 200
skipserve_router_state{{model="a",slice="",state="on"}} 1
skipserve_router_state{{model="a",slice="",state="fell_back"}} 0
skipserve_certified_risk_ratio{{model="a",slice=""}} 0.01
skipserve_evidence_rows_total{{model="a",slice="",risk="0.01"}} 1000
skipserve_evidence_rows_total{{model="a",slice="",risk="0.05"}} 7
skipserve_evidence_disagreements_total{{model="a",slice="",risk="0.01"}} 8
skipserve_evidence_disagreements_total{{model="a",slice="",risk="0.05"}} 7
skipserve_alarm_evidence{{model="a",slice=""}} 0.5
skipserve_alarm_level{{model="a"}} 20
skipserve_signal_drift_ratio{{model="a",stage="1"}} 0.02
skipserve_signal_drift_ratio{{model="a",stage="2"}} 0.3
"""


def test_two_looks_give_numbers():
    found = numbers(parse(BEFORE, 10.0), parse(AFTER, 20.0))
    assert (found.seconds, found.version, found.restarts) == (10.0, "1.2", 1)
    (one,) = found.models
    assert (one.model, one.runs_on, one.state) == ("a", "onnxruntime cpu fp32", "on")
    assert one.requests_per_s == 10.0
    assert one.errors == 0.1
    assert one.p50_s == pytest.approx(0.01 + 0.005 * (25 - 20) / (40 - 20))
    assert one.p99_s == 0.015  # beyond the last edge nothing is known
    assert one.within_target == 0.8
    assert one.skip_rates == (0.0, 0.75, 1.0)
    assert one.skip_rate == pytest.approx(350 / 600)
    assert one.held_back == 0.02
    assert (one.risk, one.disagreement, one.evidence_rows) == (0.01, 0.008, 1000)
    assert (one.alarm, one.alarm_level, one.drift) == (0.5, 20, 0.3)


@pytest.mark.parametrize(
    ("risk", "label"),
    [("5e-05", "0.00005"), ("5e-05", "5e-05"), ("0.0123456789", "0.0123456789"), ("0.1", "0.1")],
)
def test_evidence_is_found_at_a_risk_of_any_digits(risk, label):
    text = AFTER.replace('risk="0.01"', f'risk="{label}"')
    text = text.replace('ratio{model="a",slice=""} 0.01', f'ratio{{model="a",slice=""}} {risk}')
    (one,) = numbers(parse(text, 10.0), parse(text, 12.0)).models
    assert (one.risk, one.evidence_rows, one.disagreements) == (float(risk), 1000, 8)


EARNING = """
skipserve_earning_epoch{model="a",slice=""} 2
skipserve_earning_rows{model="a",slice=""} 1240
skipserve_earning_needed_rows{model="a",slice="",risk="0.01"} 5000
skipserve_earning_needed_rows{model="a",slice="",risk="0.05"} 2000
skipserve_earning_left_seconds{model="a",slice="",risk="0.01"} 3760
skipserve_earning_left_seconds{model="a",slice="",risk="0.05"} 760
skipserve_earning_in_force{model="a",slice="",risk="0.05"} 2
skipserve_earning_disagreements{model="a",slice="",candidate="1"} 0
skipserve_earning_disagreements{model="a",slice="",candidate="2"} 3
skipserve_earning_disagreements{model="a",slice="",candidate="3"} 9
skipserve_earning_problem{model="a",slice=""} 0
"""


def test_how_far_a_certificate_is():
    found = numbers(parse(AFTER + EARNING, 10.0), parse(AFTER + EARNING, 12.0))
    text = shown(found)
    assert "earning: 1,240 of about 2,000 rows, 13 min" in text
    assert "epoch 2   ε 5 %: candidate 2" in text
    assert numbers(parse(AFTER, 10.0), parse(AFTER, 12.0)).models[0].earning == ()
    broken = 'skipserve_earning_problem{model="a",slice=""} 1\n'
    assert "nothing can be earned" in shown(
        numbers(parse(AFTER, 10.0), parse(AFTER + broken, 12.0))
    )


def test_nothing_happened():
    look = parse(AFTER, 10.0)
    (one,) = numbers(look, parse(AFTER, 12.0)).models
    assert one.requests_per_s == 0
    assert (one.errors, one.p50_s, one.skip_rate, one.held_back) == (None, None, None, None)
    assert one.skip_rates == ()
    assert "no traffic" in shown(numbers(look, parse(AFTER, 12.0)))


def test_a_service_that_started_again_counts_from_zero():
    (one,) = numbers(parse(AFTER, 10.0), parse(BEFORE, 20.0)).models
    assert one.requests_per_s == 10.5


def test_a_model_without_a_router_has_nothing_to_say_of_one():
    text = f'{BUILD}{INFO}skipserve_router_state{{model="a",slice="",state="off"}} 1\n'
    found = numbers(parse(text, 0.0), parse(text, 1.0))
    assert (found.models[0].risk, found.models[0].alarm) == (None, None)
    assert "skip rate" not in shown(found)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
def test_a_quantile_lies_in_the_bucket_of_the_true_one(q):
    values = np.random.default_rng(0).exponential(0.01, 5_000)
    edges = np.geomspace(1e-4, 1, 40)
    buckets = {str(edge): float((values <= edge).sum()) for edge in edges} | {"+Inf": 5_000.0}
    low, high = (edges[np.searchsorted(edges, np.quantile(values, q)) + i] for i in (-1, 0))
    found = quantile(q, buckets)
    assert found is not None
    assert low <= found <= high
    assert quantile(q, {}) is None
    assert quantile(q, {"0.1": 0.0, "+Inf": 0.0}) is None


def shown(found) -> str:
    console = Console(width=110)
    with console.capture() as capture:
        console.print(draw("http://here", found))
    return capture.get()


def test_a_frame():
    text = shown(numbers(parse(BEFORE, 10.0), parse(AFTER, 20.0)))
    assert "p50 11.2 ms" in text
    assert "5xx 10 %" in text
    assert re.search(r"skip rate +58.3 % +▏ ▆█▕ blocks 1…3", text)
    assert "99.2 % of 1,000 evidence rows" in text
    assert "alarm 0.5 of 20" in text
    assert "1 worker restarts" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<html>hello</html>", "text format"),
        ("ts_queue_latency_microseconds 4\n", "skipserve_build_info"),
        ("", "skipserve_build_info"),
        ("a{b=", "text format"),
    ],
)
def test_something_else_answers(text, problem):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(WatchError, match=problem):
            fetch(f"http://127.0.0.1:{server.server_port}")
        thread.join()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:9464", ""])
def test_a_wrong_address(url):
    with pytest.raises(WatchError, match=r"is no address; expected something like http://"):
        fetch(url)


def test_nothing_listens():
    port, _ = free_ports()
    done = subprocess.run(
        cli("top", "--once", f"--metrics-port={port}"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"nothing answers at http://127.0.0.1:{port}/metrics" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_goes_away_is_asked_again():
    port, _ = free_ports()
    shown_frames = frames(f"http://127.0.0.1:{port}", 0.01, deque([parse(BEFORE, 0.0)]))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(next(shown_frames))
        console.print(next(shown_frames))
    assert capture.get().count("asking again") == 2


@pytest.mark.server
def test_the_live_view_on_a_terminal(observed):
    ours, theirs = pty.openpty()
    command = cli("top", "--interval=0.5", observed.metrics_url)
    size = {"COLUMNS": "110", "LINES": "40"}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    # A shell's background jobs inherit an ignored SIGINT; a terminal's do not.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env={**os.environ, **size}, **streams, **heard) as top:
        os.close(theirs)
        screen = b""
        while b"p50" not in screen or b"evidence rows" not in screen:
            observed.traffic(5)
            screen += os.read(ours, 65536)
        top.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is gone when the program is
            while screen := os.read(ours, 65536):
                assert b"Traceback" not in screen
        os.close(ours)
    assert top.returncode == 0


@pytest.mark.server
def test_one_frame_of_a_real_service(observed):
    command = cli("top", "--once", "--interval=3", observed.metrics_url)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as top:
        while top.poll() is None:
            observed.traffic(20)
        assert top.stdout is not None
        text = top.stdout.read()
    assert top.returncode == 0
    assert MODEL in text
    assert re.search(r"requests +[\d,.]+/s +5xx 0 %", text)
    assert re.search(r"latency +p50 [\d.]+ ms", text)
    assert re.search(r"router +on +certified ε 5 %", text)
    assert re.search(r"skip rate +[\d.]+ % +▏.{4}▕ blocks 1…4", text)
    assert re.search(r"agreement +[\d.]+ % of [\d,]+ evidence rows", text)


@pytest.mark.server
def test_one_look_as_json(observed):
    command = cli("top", "--json", "--interval=1", observed.metrics_url)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as top:
        while top.poll() is None:
            observed.traffic(20)
        assert top.stdout is not None
        found = json.loads(top.stdout.read())
    assert top.returncode == 0
    (one,) = found["models"]
    assert (one["model"], one["state"], one["risk"], one["errors"]) == (MODEL, "on", 0.05, 0)
    assert one["requests_per_s"] > 0
    assert len(one["skip_rates"]) == 4


@pytest.mark.server
def test_the_numbers_are_those_of_metrics(observed):
    before = fetch(observed.metrics_url)
    observed.traffic(50, rows=3)
    observed.traffic(10, router="off", rows=3)
    after = fetch(observed.metrics_url)
    (one,) = numbers(before, after).models
    assert one.requests_per_s * (after.time_s - before.time_s) == pytest.approx(60, abs=4)
    assert one.errors == 0
    assert one.skip_rate is not None
    assert 0 < one.skip_rate < 1
    assert list(one.skip_rates) == sorted(one.skip_rates)  # exit: what is left out stays out
