"""Asking each model its own example before a service says that it is ready."""

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
from skipserve.hosts.application import Application
from skipserve.hosts.host import Host
from skipserve.hosts.models import Model
from skipserve.hosts.routes import Infer

_SENT = {"content-type": "application/json"}


class WarmUp:
    """Asks models over HTTP, as a client would.

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
        self._sent = _SENT | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(self, manifest: Manifest, url: str) -> None:
        """Ask a model its example, at full depth and with the router on.

        Raises:
            LaunchError: If it does not answer in time, or answers otherwise than its manifest says.
        """
        # The example's answer is that of full depth; with the router on it may lawfully differ.
        _require_example(manifest, self._answer(manifest, url, "off"))
        if manifest.router is not None:
            self._answer(manifest, url, "on")

    def _answer(self, manifest: Manifest, url: str, router: str) -> list[float]:
        """What a model answers its example with, once it does."""
        request = Request(url, _question(manifest, router), self._sent)  # noqa: S310 - our own address
        problem = "no answer"
        while time.monotonic() < self._deadline_s:
            if ended := self._host.ended():
                raise LaunchError(f"{self._host.name} did not start ({ended}): {self._tail()}")
            try:
                with open_directly(request, 10) as answer:
                    found = _answer_in(manifest, answer.read())
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


async def rehearse(application: Application, model: Model) -> None:
    """Ask a model its example within the process that has it open.

    Raises:
        LaunchError: If it does not answer, or answers otherwise than its manifest says.
    """
    manifest = model.manifest
    for router in ("off", "on") if manifest.router is not None else ("off",):
        reply = await application.ask(Infer(model, ""), _SENT, _question(manifest, router))
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if reply.status != 200:
            raise LaunchError(
                f"{manifest.name} does not answer its own example: {reply.status} "
                f"{body[:500].decode(errors='replace')}"
            )
        if router == "off":
            _require_example(manifest, _answer_in(manifest, body))


def _question(manifest: Manifest, router: str) -> bytes:
    example = manifest.example_request
    return msgspec.json.encode({**example, "parameters": {"router": router}})


def _answer_in(manifest: Manifest, body: bytes) -> list[float]:
    answer = msgspec.json.decode(body)["outputs"][0][manifest.task.output]
    return answer if isinstance(answer, list) else [answer]


def _require_example(manifest: Manifest, answer: list[float]) -> None:
    task = manifest.task
    served, known = (np.array([one], np.float32) for one in (answer, manifest.example.answer))
    if not task.agree(served, known).all():
        raise LaunchError(
            f"{manifest.name} answers its own example otherwise than its manifest says "
            f"({task.differs}); build the artifact again"
        )
