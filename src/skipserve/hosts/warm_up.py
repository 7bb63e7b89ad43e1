"""Asking each model its own example before a service says that it is ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.error import HTTPError, URLError
from urllib.request import Request

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.direct import open_directly, proxy_note
from skipserve.errors import LaunchError
from skipserve.hosts.host import Host


class WarmUp:
    """Asks models over HTTP, as a client would.

    Args:
        host: Which listens.
        deadline_s: Until when, on the monotonic clock.
        stop: Gives up when set.
        tail: The last lines of its log.
    """

    def __init__(
        self, host: Host, deadline_s: float, stop: threading.Event, tail: Callable[[], str]
    ) -> None:
        self._host = host
        self._deadline_s = deadline_s
        self._stop = stop
        self._tail = tail

    def ask(self, manifest: Manifest, url: str) -> None:
        """Ask a model its example, at full depth and with the router on.

        Raises:
            LaunchError: If it does not answer in time, or answers otherwise than its manifest says.
        """
        # The example's answer is that of full depth; with the router on it may lawfully differ.
        label = self._label(manifest, url, "off")
        if label != manifest.example.label:
            raise LaunchError(
                f"{manifest.name} answers its own example with class {label}, its "
                f"manifest says {manifest.example.label}; build the artifact again"
            )
        if manifest.router is not None:
            self._label(manifest, url, "on")

    def _label(self, manifest: Manifest, url: str, router: str) -> int:
        """The class that a model answers its example with, once it does."""
        question = manifest.question(manifest.example.inputs)
        body = msgspec.json.encode({**question, "parameters": {"router": router}})
        request = Request(  # noqa: S310 - our own http address
            url, body, {"Content-Type": "application/json"}
        )
        problem = "no answer"
        while time.monotonic() < self._deadline_s:
            if ended := self._host.ended():
                raise LaunchError(f"{self._host.name} did not start ({ended}): {self._tail()}")
            try:
                with open_directly(request, 10) as answer:
                    label: int = msgspec.json.decode(answer.read())["outputs"][0]["label"]
            except HTTPError as error:
                problem = f"{error.code} {error.read()[:500].decode(errors='replace')}"
            except (URLError, OSError) as error:
                problem = str(error)
            else:
                return label
            if self._stop.wait(0.05):
                raise LaunchError("stopped before every model was ready")
        raise LaunchError(
            f"{manifest.name} did not become ready ({problem}){proxy_note()}: {self._tail()}"
        )
