"""Warm-up: every model must answer its own example before the service is ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.error import HTTPError, URLError
from urllib.request import Request

import msgspec
import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.direct import open_directly, proxy_note
from skipserve.errors import LaunchError
from skipserve.hosts.host import Host

SENT = {"content-type": "application/json"}


class WarmUp:
    """Sends examples to models over HTTP, as a client does.

    Args:
        host: Which listens.
        deadline_s: Until when, on the monotonic clock.
        stop: Gives up when set.
        tail: The last lines of its log.
        key: That it is shown, where it wants one.
    """

    def __init__(
        self,
        host: Host,
        deadline_s: float,
        stop: threading.Event,
        tail: Callable[[], str],
        key: str = "",
    ) -> None:
        self._host = host
        self._deadline_s = deadline_s
        self._stop = stop
        self._tail = tail
        self._sent = SENT | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(self, manifest: Manifest, url: str) -> None:
        """Send a model its example, at full depth and with the router on.

        Raises:
            LaunchError: If it does not answer in time, or answers otherwise than its manifest says.
        """
        # The example has the full-depth answer; with the router on the answer may differ.
        require_example(manifest, self._answer(manifest, url, "off"))
        if manifest.router is not None:
            self._answer(manifest, url, "on")

    def _answer(self, manifest: Manifest, url: str, router: str) -> list[float]:
        """The answer of a model to its example, once it answers."""
        request = Request(url, question(manifest, router), self._sent)  # noqa: S310 - our own address
        problem = "no answer"
        while time.monotonic() < self._deadline_s:
            if ended := self._host.ended():
                raise LaunchError(f"{self._host.name} did not start ({ended}): {self._tail()}")
            try:
                with open_directly(request, 10) as answer:
                    found = answer_in(manifest, answer.read())
            except HTTPError as error:
                problem = f"{error.code} {error.read()[:500].decode(errors='replace')}"
            except (URLError, OSError) as error:
                problem = str(error)
            else:
                return found
            if self._stop.wait(0.05):
                raise LaunchError("stopped before every model was ready")
        raise LaunchError(
            f"{manifest.name} did not become ready ({problem}){proxy_note()}: {self._tail()}"
        )


def question(manifest: Manifest, router: str) -> bytes:
    """The body of a request with the example of a model; ``router`` is ``on`` or ``off``."""
    example = manifest.example_request
    return msgspec.json.encode({**example, "parameters": {"router": router}})


def answer_in(manifest: Manifest, body: bytes) -> list[float]:
    """The answer in a reply to it."""
    answer = msgspec.json.decode(body)["outputs"][0][manifest.task.output]
    return answer if isinstance(answer, list) else [answer]


def require_example(manifest: Manifest, answer: list[float]) -> None:
    """Compare the answer at full depth with that of the manifest.

    Raises:
        LaunchError: If the two do not agree.
    """
    task = manifest.task
    served, known = (np.array([one], np.float32) for one in (answer, manifest.example.answer))
    if not task.agree(served, known).all():
        raise LaunchError(
            f"{manifest.name} answers its own example otherwise than its manifest says "
            f"({task.differs}); build the artifact again"
        )
