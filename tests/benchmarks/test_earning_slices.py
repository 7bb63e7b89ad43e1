"""The simulation of slices that docs/guarantees.md quotes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from earning_slices import alike, hidden

STREAMS = 400


def test_each_slice_holds_at_its_level_and_not_all_of_them_at_once():
    said = alike(np.random.default_rng(0), 200_000, STREAMS)
    assert said["the slice that errs most"][1] <= 0.05  # the lower end of its interval
    assert said["any of 10"][0] > 0.1


def test_a_certificate_of_the_whole_hides_what_slices_show():
    whole, bad, good = (
        share for share, _, _ in hidden(np.random.default_rng(0), 200_000, STREAMS).values()
    )
    assert (whole, bad, good) == (1.0, 0.0, 1.0)
