"""HTTP requests without a proxy, for services on this machine or network.

A company's ``http_proxy`` is meant for the world outside; it cannot reach the loopback of whoever
asks it, and what is measured through it is the proxy.
"""

from __future__ import annotations

import os
import ssl
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

# The certificate of a local service need not name the loopback address.
_UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNCHECKED.check_hostname = False
_UNCHECKED.verify_mode = ssl.CERT_NONE
_OPENER = build_opener(ProxyHandler({}), HTTPSHandler(context=_UNCHECKED))
PING_S = 2.0
_VARIABLES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def open_directly(asked: str | Request, timeout_s: float) -> HTTPResponse:
    """``urlopen`` that ignores the proxy of the environment.

    Args:
        asked: An http address, or a request to one.
        timeout_s: Seconds to wait for the connection, and for each part of the reply.

    Raises:
        HTTPError: If the reply's status is an error.
        URLError: If nothing answers.
    """
    return cast(HTTPResponse, _OPENER.open(asked, timeout=timeout_s))


def answers(url: str) -> bool:
    """Whether an address answers within two seconds, with any status."""
    try:
        open_directly(url, PING_S).close()
    except HTTPError as error:
        error.close()
    except (OSError, HTTPException):
        return False
    return True


def proxy_note() -> str:
    """A hint about the proxy of the environment for error messages; empty without one."""
    named = [name for name in _VARIABLES if os.environ.get(name)]
    return f" ({named[0]} is set; it is not used for this)" if named else ""
