"""What certificates of slices are worth: how often one errs, how often any of them does, and what a
certificate of the whole hides. A simulation; prints a line for each and one of JSON.

- ``alike``: ten slices whose candidate stands at exactly ε. How often is it ever earned in one
  slice, and in any of the ten?
- ``hidden``: a tenth of the traffic is at 3 ε, the rest at 0.3 ε. What does a certificate of all
  traffic together put in force for that tenth, and what do slices?
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from earning_streams import ever_crosses
from numpy.typing import NDArray

from skipserve import intervals

RISK, DELTA, EPOCH_ROWS = 0.01, 0.05, 10_000
SLICES = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="evidence rows of all slices")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    said = {
        "benchmark": "earning_slices",
        "streams": options.streams,
        "alike": alike(rng, options.rows, options.streams),
        "hidden": hidden(rng, options.rows, options.streams),
    }
    for part in ("alike", "hidden"):
        for name, (share, low, high) in said[part].items():
            print(f"{part}, {name}: {share:.2%} ({low:.2%} to {high:.2%})")
    print(json.dumps(said))


def alike(rng: np.random.Generator, rows: int, streams: int) -> dict[str, Any]:
    """Ten slices of equal size, each with a candidate at exactly ε."""
    each = np.array([crossed(rng, RISK, rows // SLICES, streams) for _ in range(SLICES)])
    worst = int(each.sum(axis=1).argmax())
    return {
        "the slice that errs most": interval(each[worst]),
        f"any of {SLICES}": interval(each.any(axis=0)),
    }


def hidden(rng: np.random.Generator, rows: int, streams: int) -> dict[str, Any]:
    """One slice of ten at 3 ε, nine at 0.3 ε; and the same traffic as one whole."""
    bad, good = 3 * RISK, 0.3 * RISK
    together = (bad + (SLICES - 1) * good) / SLICES
    return {
        "one whole: in force for the tenth at 3 ε": interval(crossed(rng, together, rows, streams)),
        "slices: in force for it": interval(crossed(rng, bad, rows // SLICES, streams)),
        "slices: in force for one at 0.3 ε": interval(crossed(rng, good, rows // SLICES, streams)),
    }


def crossed(rng: np.random.Generator, rate: float, rows: int, streams: int) -> NDArray[np.bool_]:
    """Whether the candidate is ever earned [streams]."""
    return ever_crosses(rng, rate, RISK, DELTA, rows, EPOCH_ROWS, streams)


def interval(of: NDArray[np.bool_]) -> tuple[float, float, float]:
    """A share with its 95 % interval (Clopper and Pearson)."""
    found = intervals.rate(int(of.sum()), of.size)
    return float(of.mean()), float(found.low), float(found.high)


if __name__ == "__main__":
    main()
