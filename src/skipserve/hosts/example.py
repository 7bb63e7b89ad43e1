"""The command that `skipserve serve` prints: a request that works, with what to look at."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from skipserve.artifacts.manifest import Manifest
from skipserve.hosts.config import HostConfig

# Longer bodies, such as a picture's, go into a file.
LONGEST = 600
FILE = "example.json"
# The log is no place for a key.
KEY = "YOUR_KEY"


def curl_of(
    manifests: Sequence[Manifest],
    url_of: Callable[[Manifest], str],
    config: HostConfig,
    directory: Path,
) -> str:
    """A line for a shell, and a hint below it.

    It asks a model that has a router, if there is one, with two rows of different depth, if its
    artifact knows them.

    Args:
        manifests: Of the models that are served; at least one.
        url_of: Where a model answers.
        config: Of the host.
        directory: Of the instance; gets the body where it is long.
    """
    routed = [manifest for manifest in manifests if manifest.router is not None]
    manifest = (routed or manifests)[0]
    hint = ""
    if manifest.router is not None:
        hint = (
            f"\n\nin the reply: depth_run says how many of the {manifest.depth} blocks a row "
            "ran, held_back that the guard sent it to full depth"
        )
    if manifest.depths is not None:
        hint += "; the first of these rows is settled early, the second late"
    body = msgspec.json.encode(_short(manifest.depths_request))
    data = shlex.quote(body.decode())
    if len(body) > LONGEST:
        (directory / FILE).write_bytes(body)
        data = f"@{directory / FILE}"
    url = shlex.quote(url_of(manifest))  # a shell may take an address's brackets for its own
    unchecked = "" if config.tls is None else "-k "
    key = "" if config.keys is None else f"-H 'Authorization: Bearer {KEY}' "
    return f"curl {unchecked}{key}-H 'Content-Type: application/json' -d {data} {url}{hint}"


def _short(value: Any) -> Any:
    """The same with floats in the fewest digits that are the same number in FP32."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return value
