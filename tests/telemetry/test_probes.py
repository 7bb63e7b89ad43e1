"""The metrics port: requests of probes, browsers and scrapers."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families
from running import until

from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.probes import Probes

PLAIN_004 = "text/plain; version=0.0.4; charset=utf-8"


class Port:
    """Probes on a free port, ready and live."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.exposition = Exposition(directory)
        self.probes = Probes(
            ("127.0.0.1", self.port), self.exposition, threading.Event(), lambda: True
        )
        self.probes.ready.set()

    def ask(self, method: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return reply, reply.read()
        finally:
            connection.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path)
    yield port
    port.probes.close()


@pytest.mark.parametrize("query", ["", "?verbose", "?x=1", "/", "/?x=1"])
@pytest.mark.parametrize("path", ["/ready", "/live", "/metrics"])
def test_a_query_or_a_slash_changes_nothing(port: Port, path: str, query: str) -> None:
    expected = port.ask("GET", path)[1]
    reply, body = port.ask("GET", path + query)
    assert reply.status == 200
    assert body == expected != b""


@pytest.mark.parametrize("path", ["/", "/ready", "/live", "/metrics", "/nowhere"])
def test_head_is_get_without_the_body(port: Port, path: str) -> None:
    got, content = port.ask("GET", path)
    reply, body = port.ask("HEAD", path)
    assert (reply.status, body) == (got.status, b"")
    assert reply.getheader("Content-Type") == got.getheader("Content-Type")
    assert reply.getheader("Content-Length") == str(len(content))


def test_a_probe_that_says_no_says_it_to_head_too(port: Port) -> None:
    port.probes.ready.clear()
    assert port.ask("HEAD", "/ready")[0].status == port.ask("GET", "/ready?x")[0].status == 503


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PLAIN_004),
        ("*/*", PLAIN_004),
        ("text/plain;version=0.0.4", PLAIN_004),
        ("text/html, text/plain;version=0.0.4;q=0.5", PLAIN_004),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
def test_metrics_come_in_the_format_asked_for(port: Port, accept: str, kind: str) -> None:
    port.exposition.set_state("small", "", "on")
    reply, body = port.ask("GET", "/metrics", Accept=accept)
    assert reply.status == 200
    assert reply.getheader("Content-Type", "").startswith(kind)
    parse = openmetrics_families if "openmetrics" in kind else text_families
    names = {family.name for family in parse(body.decode())}
    assert {"skipserve_build_info", "skipserve_router_state"} <= names


def test_scrapers_that_reset_leave_no_line(
    port: Port, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(3_000):  # more than the buffers of a socket hold
        port.exposition.alarm_level.labels(f"model_{number}").set(1)
    with caplog.at_level(logging.DEBUG):
        for _ in range(20):
            scraper = socket.create_connection(("127.0.0.1", port.port))
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
            scraper.recv(1)
            scraper.close()
        until(lambda: not any("process_request" in one.name for one in threading.enumerate()))
    assert caplog.records == []
    assert capfd.readouterr().err == ""
