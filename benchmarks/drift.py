"""Drift that passes the guard, sent to the real server: how many rows until skipping is off.

mnist1d_resnet, every routed row gives evidence; a fresh server for each kind of traffic. Rows go in
steps, with time in between for the monitor to look. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from urllib.request import Request

import numpy as np
from numpy.typing import NDArray

from skipserve.address import Address
from skipserve.direct import open_directly
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.training.recipes import open_recipe

ROOT = Path(__file__).parent.parent
STEP = 200
REQUEST = 20  # rows
PORT = 18340
Rows = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6_000, help="to send at most")
    parser.add_argument("--evidence", type=float, default=1.0, help="share of the rows")
    options = parser.parse_args()
    archive = ROOT / "model_store" / "mnist1d_resnet.mar"
    inputs = open_recipe("mnist1d").draw("test").inputs.numpy()
    rows = [
        {"traffic": name} | measure(archive, traffic[: options.rows], options.evidence)
        for name, traffic in drifted(inputs).items()
    ]
    print("| traffic | rows until full depth | evidence rows | disagree | held back | dropped |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        fell = f"{row['rows']:,}" if row["fell_back"] else f"not in {row['rows']:,}"
        print(
            f"| {row['traffic']} | {fell} | {row['evidence']:,} | {row['disagree']:.1%} "
            f"| {row['held']:.1%} | {row['dropped']:,} |"
        )
    print(json.dumps({"benchmark": "drift", "rows": rows}))


def drifted(inputs: Rows) -> dict[str, Rows]:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2 * inputs.std(), inputs.shape)
    return {
        "as calibrated": inputs,
        "two signals averaged": (inputs + inputs[rng.permutation(len(inputs))]) / 2,
        "noise of 0.2": (inputs + noise).astype(np.float32),
    }


def measure(archive: Path, inputs: Rows, share: float) -> dict[str, Any]:
    overrides = {"evidence": share}
    with Server(
        [archive], HostConfig(Address("127.0.0.1", PORT, PORT + 1)), overrides=overrides
    ) as server:
        url = server.url(server.manifests[0])
        sent, off = 0, False
        while sent < len(inputs) and not off:
            for first in range(sent, sent + STEP, REQUEST):
                off = off or ask(url, inputs[first : first + REQUEST])["router"] == "off"
            sent += STEP
            time.sleep(1.5)
        counts = metrics(f"http://127.0.0.1:{PORT + 1}/metrics")
    evidence = counts["skipserve_evidence_rows_total"]
    return {
        "fell_back": counts["skipserve_router_fallbacks_total"] > 0,
        "rows": sent,
        "evidence": int(evidence),
        "disagree": counts["skipserve_evidence_disagreements_total"] / max(evidence, 1),
        "held": counts["skipserve_guard_held_back_rows_total"] / sent,
        "dropped": int(counts["skipserve_evidence_dropped_rows_total"]),
    }


def ask(url: str, rows: Rows) -> dict[str, Any]:
    body = json.dumps({"inputs": rows.tolist()}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    with open_directly(request, 30) as reply:
        answer: dict[str, Any] = json.loads(reply.read())
    return answer


def metrics(url: str) -> dict[str, float]:
    """Sums over all labels."""
    found: dict[str, float] = {}
    with open_directly(url, 30) as reply:
        for line in reply.read().decode().splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
    return found


if __name__ == "__main__":
    main()
