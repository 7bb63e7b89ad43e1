"""Drives a URL with wrk, a load generator that is not the bottleneck."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured; latencies in seconds."""

    p50_s: float
    p99_s: float
    requests_per_s: float


def drive(url: str, bodies: list[bytes], connections: int, duration_s: int) -> Load:
    """POST JSON bodies in turn over ``connections`` for ``duration_s`` seconds.

    Raises:
        RuntimeError: If any reply was not a 200.
    """
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; install it with: apt-get install wrk")
    rows = ",\n".join(f"[==[{body.decode()}]==]" for body in bodies)
    script = f"""
    local bodies = {{ {rows} }}
    local next = 0
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    init = function()
      for i = 1, #bodies do bodies[i] = wrk.format(nil, nil, nil, bodies[i]) end
    end
    request = function()
      next = next % #bodies + 1
      return bodies[next]
    end
    """
    with tempfile.TemporaryDirectory() as scratch:
        lua = Path(scratch) / "post.lua"
        lua.write_text(script)
        command = [
            *("wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", "--latency"),
            # Its own two seconds are little for a transformer on a busy machine.
            *("--timeout", "60s"),
            *("-s", str(lua), url),
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{url} did not answer every request:\n{out}")
    return Load(
        _seconds(out, r"50%\s+([\d.]+)(us|ms|s)"),
        _seconds(out, r"99%\s+([\d.]+)(us|ms|s)"),
        float(_find(out, r"Requests/sec:\s+([\d.]+)").group(1)),
    )


def _seconds(text: str, pattern: str) -> float:
    found = _find(text, pattern)
    return float(found.group(1)) * _UNITS[found.group(2)]


def _find(text: str, pattern: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"wrk printed nothing like {pattern!r}:\n{text}")
    return found
