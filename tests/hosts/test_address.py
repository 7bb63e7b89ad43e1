"""Addresses of IPv4 and IPv6, and requests that bypass the proxy."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.address import Address, in_url, require_free, url_of
from skipserve.direct import open_directly, proxy_note
from skipserve.errors import LaunchError
from skipserve.watching.scrape import WatchError, fetch

NOBODY = "http://127.0.0.1:9"


@given(ip=st.ip_addresses(), port=st.integers(1, 65535), brackets=st.booleans())
def test_any_ip_address_becomes_a_url_that_leads_to_it(ip, port, brackets):
    host = f"[{ip}]" if brackets and ip.version == 6 else str(ip)
    parts = urlsplit(url_of(host, port))
    assert parts.port == port
    reached = ipaddress.ip_address(parts.hostname)
    assert reached == ip or (ip.is_unspecified and reached.is_loopback)
    assert reached.version == ip.version


@pytest.mark.parametrize(
    ("host", "ip", "shown"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:8080"),
        ("localhost", "127.0.0.1", "http://localhost:8080"),
        ("::1", "::1", "http://[::1]:8080"),
        ("[::1]", "::1", "http://[::1]:8080"),
        ("::", "::", "http://[::1]:8080"),
    ],
)
def test_what_is_listened_on_and_what_is_shown(host, ip, shown):
    address = Address(host)
    assert address.ip() == ip
    assert address.inference_url == shown
    assert address.metrics_url == shown.replace("8080", "9464")


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_taken_port_is_told_from_an_address_that_is_not_here(ip):
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((ip, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError) as caught:
            require_free(ip, port, "SKIPSERVE_PORT")
        assert f"cannot listen on {in_url(ip)}:{port}" in str(caught.value)
        assert "set SKIPSERVE_PORT to another port" in str(caught.value)
    require_free(ip, port, "SKIPSERVE_PORT")


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no such host", "", "a" * 64])
def test_an_address_that_is_not_here_names_the_option(host):
    with pytest.raises(LaunchError, match="set --host to an address of this machine"):
        require_free(Address(host).ip(), 8080, "SKIPSERVE_PORT")


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"# EOF\nskipserve_build_info 1\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_is_asked(server, monkeypatch, name):
    for other in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    assert proxy_note() == ""
    monkeypatch.setenv(name, NOBODY)
    with open_directly(server, 10) as reply:
        assert reply.status == 200
    assert fetch(server).total("skipserve_build_info") == 1
    with pytest.raises(WatchError, match=f"{name} is set; it is not used for this"):
        fetch(NOBODY)
