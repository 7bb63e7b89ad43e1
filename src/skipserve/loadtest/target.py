"""The service under test, seen from outside: answers, counts, what it runs on."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import Request

import msgspec

from skipserve.direct import open_directly, proxy_note
from skipserve.errors import ConfigError, LoadTestError, WatchError
from skipserve.loadtest.answers import Answer, read_answer
from skipserve.loadtest.payloads import Choice, Pool, body
from skipserve.watching.scrape import parse

# Workers count after the reply is on its way.
SETTLE_S = 5.0


@dataclass(frozen=True)
class Running:
    """The backend of a model, from its metrics; ``checkpoint`` is the start of its SHA-256."""

    backend: str
    provider: str
    precision: str
    checkpoint: str


class Target:
    """A running service.

    Args:
        host: Root of its inference port, such as ``http://127.0.0.1:8080``.
        metrics: Its metrics, such as ``http://127.0.0.1:9464/metrics``.

    Raises:
        ConfigError: If one is not an http address.
    """

    def __init__(self, host: str, metrics: str) -> None:
        for address in (host, metrics):
            if not re.match(r"https?://[^/]", address):
                raise ConfigError(f"{address!r} is not an address; expected http://HOST:PORT")
        self.host = host.rstrip("/")
        self.metrics = metrics

    def requests(self) -> Counter[str]:
        """Requests the workers answered so far, as ``MODEL CODE``."""
        counts: Counter[str] = Counter()
        for labels, value in self._samples("skipserve_requests_total"):
            counts[f"{labels['model']} {labels['code']}"] += round(value)
        return counts

    def requests_reaching(self, before: Counter[str], expected: Counter[str]) -> Counter[str]:
        """Requests answered since ``before``, once they are as many as expected or time is up."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            counts = self.requests()
            since = Counter({key: counts[key] - before[key] for key in counts})
            if all(since[key] >= expected[key] for key in expected):
                return since
            if time.monotonic() > deadline:
                return since
            time.sleep(0.2)

    def models(self) -> dict[str, Running]:
        """The served models, by name."""
        return {
            labels["model"]: Running(
                *(labels[name] for name in ("backend", "provider", "precision", "checkpoint"))
            )
            for labels, _ in self._samples("skipserve_model_info")
        }

    def ask(self, pool: Pool, choice: Choice) -> Answer:
        """Send one request.

        Raises:
            ConfigError: If the service refuses it.
            LoadTestError: If nothing answers, or not in our protocol.
        """
        url = f"{self.host}/predictions/{choice.model}"
        request = Request(url, body(pool, choice, 0).encode(), {"Content-Type": "application/json"})  # noqa: S310
        try:
            with open_directly(request, 30) as reply:
                return read_answer(reply.read())
        except HTTPError as error:
            said = error.read()[:500].decode(errors="replace")
            if error.code == 404:
                have = ", ".join(sorted(self.models())) or "none"
                raise ConfigError(
                    f"{self.host} serves no model {choice.model!r}, only {have}; "
                    f"serve it with `skipserve serve {choice.model}`"
                ) from None
            raise ConfigError(
                f"{url} refuses a test request ({choice}): {error.code} {said}"
            ) from None
        except (URLError, OSError, HTTPException) as error:
            raise self._silent(self.host, error) from None
        except msgspec.DecodeError as error:
            raise LoadTestError(
                f"{url} answers, but not in the native protocol: {error}; "
                "is it the service's inference port?"
            ) from None

    def _samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        try:
            with open_directly(self.metrics, 10) as reply:
                text = reply.read().decode()
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise self._silent(self.metrics, error) from None
        try:
            found = parse(text, time.monotonic()).samples.get(name)
        except WatchError as error:
            raise LoadTestError(
                f"{self.metrics} answers, but {error}; it must be the service's own metrics port "
                "(--metrics-port)"
            ) from None
        if not found:
            raise LoadTestError(
                f"{self.metrics} has no {name}; it must be the service's own metrics port, "
                "9464 by default (--metrics-port)"
            )
        return [(dict(labels), value) for labels, value in found.items()]

    def _silent(self, address: str, error: Exception) -> LoadTestError:
        reason = getattr(error, "reason", error)
        return LoadTestError(
            f"nothing answers at {address} ({reason}){proxy_note()}; start the service "
            "with `skipserve serve`, or add --start"
        )
