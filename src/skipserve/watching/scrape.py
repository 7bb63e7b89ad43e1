"""One look at ``/metrics`` of a running service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError

from prometheus_client.parser import text_string_to_metric_families

from skipserve.direct import open_directly, proxy_note
from skipserve.errors import WatchError

Labels = tuple[tuple[str, str], ...]
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Scrape:
    """Every sample of one answer.

    Attributes:
        time_s: When it was taken, seconds on a clock that never jumps.
        samples: Value by name and sorted labels.
    """

    time_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    def by(self, label: str, name: str, **matching: str) -> dict[str, float]:
        """Sums of a metric's samples by one of its labels; only of those that match."""
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            named = dict(labels)
            if label in named and matching.items() <= named.items():
                found[named[label]] = found.get(named[label], 0.0) + value
        return found

    def total(self, name: str, **matching: str) -> float | None:
        """Sum of a metric's samples that match; ``None`` if none does."""
        values = [
            value
            for labels, value in self.samples.get(name, {}).items()
            if matching.items() <= dict(labels).items()
        ]
        return sum(values) if values else None

    def largest(self, name: str, **matching: str) -> float | None:
        """Largest of a metric's samples that match; ``None`` if none does."""
        found = self.samples.get(name, {}).items()
        pairs = ((dict(labels), value) for labels, value in found)
        return max((value for at, value in pairs if matching.items() <= at.items()), default=None)

    def since(self, before: Scrape) -> Scrape:
        """The increase of each sample; counters that restarted count from zero."""
        added = {
            name: {
                labels: value - then if (then := earlier.get(labels, 0.0)) <= value else value
                for labels, value in samples.items()
            }
            for name, samples in self.samples.items()
            for earlier in (before.samples.get(name, {}),)
        }
        return Scrape(self.time_s - before.time_s, added)


def parse(text: str, time_s: float) -> Scrape:
    """Read Prometheus's text format.

    Raises:
        WatchError: If it is not that format, or not of skipserve.
    """
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[labels] = sample.value
    except (ValueError, KeyError) as error:
        raise WatchError(f"what it answers is not Prometheus's text format: {error}") from None
    if "skipserve_build_info" not in samples:
        raise WatchError(
            "it has no skipserve_build_info, so it is no metrics port of skipserve "
            "(9464 unless SKIPSERVE_METRICS_PORT says otherwise)"
        )
    return Scrape(time_s, samples)


def fetch(url: str) -> Scrape:
    """Ask a service for its metrics.

    Args:
        url: Its metrics port, such as ``http://127.0.0.1:9464``.

    Raises:
        WatchError: If nothing answers there, or it is not skipserve.
    """
    if not url.startswith(("http://", "https://")):
        raise WatchError(f"{url!r} is no address; expected something like http://127.0.0.1:9464")
    try:
        with open_directly(f"{url.rstrip('/')}/metrics", TIMEOUT_S) as answer:
            text = answer.read().decode()
    except HTTPError as error:
        raise WatchError(
            f"{url}/metrics answers {error.code}; is that skipserve's metrics port?"
        ) from None
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise WatchError(
            f"nothing answers at {url}/metrics ({reason}){proxy_note()}; "
            "start `skipserve serve`, or name its metrics port"
        ) from None
    try:
        return parse(text, time.monotonic())
    except WatchError as error:
        raise WatchError(f"{url} answers, but {error}") from None
