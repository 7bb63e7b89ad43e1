"""Access control: API keys, and a rate limit for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from skipserve.errors import ConfigError, InputError
from skipserve.hosts.keys import Keys, shown_key
from skipserve.hosts.rates import Rates
from skipserve.protocols.messages import RETRY_AFTER, Headers

# Health checks need no key.
OPEN = frozenset({"/ping", "/health", "/live", "/ready", "/v2/health/live", "/v2/health/ready"})


def check_limit(per_s: float | None, keys: Path | None, limit: str, file: str) -> None:
    """Check a rate limit, before a service starts without it.

    Args:
        per_s: Requests a second for each key; ``None``: no limit.
        keys: The file of keys.
        limit: What the limit is called where it is set.
        file: What the file of keys is called there.

    Raises:
        ConfigError: If there are no keys, or the limit is no rate.
    """
    if per_s is None:
        return
    if keys is None:
        raise ConfigError(f"{limit} is for each key; name their file with {file}")
    if not 0 < per_s < math.inf:
        raise ConfigError(f"{limit} is {per_s}; expected requests a second, such as 100")


@dataclass(frozen=True)
class AccessDenied:
    """Why a request is refused for want of access.

    Attributes:
        error: Why.
        headers: Of the reply.
    """

    error: InputError
    headers: dict[str, str]


class AccessControl:
    """Checks the key of every request, and how often it is used.

    Args:
        file: The file of keys.
        per_s: Requests a second allowed for each key; unlimited by default.
        shared: File in which the processes of a service share their counts.
    """

    def __init__(self, file: Path, per_s: float | None = None, shared: Path | None = None) -> None:
        self._keys = Keys(file)
        self._per_s = per_s
        self._rates = None if per_s is None else Rates(per_s, shared)

    def check(self, headers: Headers) -> AccessDenied | None:
        """Why a request is refused; ``None`` if it may go on."""
        shown = shown_key(headers)
        if shown is None:
            message = "a key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY"
            return AccessDenied(InputError("no_key", message), {"www-authenticate": "Bearer"})
        key = self._keys.find(shown)
        if key is None:
            return AccessDenied(InputError("wrong_key", "this key is unknown or was removed"), {})
        if self._rates is None:
            return None
        wait_s = self._rates.wait_s(key)
        if not wait_s:
            return None
        message = f"this key may make {self._per_s:g} requests a second; ask less often"
        return AccessDenied(
            InputError("too_often", message), {RETRY_AFTER: str(max(1, math.ceil(wait_s)))}
        )
