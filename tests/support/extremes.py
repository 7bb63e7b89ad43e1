"""Rows from all of float32, for tests of what must never be skipped."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# What sensors and files are full of: fill values, limits, and what squares to infinity or to 0.
FILLS = (LARGEST, -LARGEST, 9.96921e36, 1e20, 2e19, 1e10, 1e-23, 1e-40)


def ordinary(features, seed, count=None):
    """A standard normal row [features], or so many of them."""
    shape = features if count is None else (count, features)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def rows(features):
    """One row: any floats; one value among zeros or ordinary ones; an ordinary row, scaled."""
    place, seed = st.integers(0, features - 1), st.integers(0, 99)

    def spiked(place, value, seed, among):
        row = ordinary(features, seed) * np.float32(among)
        row[place] = value
        return row

    def scaled(seed, exponent):
        row = ordinary(features, seed).astype(np.float64) * 10.0**exponent
        return row.clip(-LARGEST, LARGEST).astype(np.float32)

    return (
        arrays(np.float32, features, elements=finite)
        | st.builds(spiked, place, st.sampled_from(FILLS) | finite, seed, st.booleans())
        | st.builds(scaled, seed, st.integers(-45, 38))
    )


def batches(count, features):
    """So many of them [count, features]."""
    return st.lists(rows(features), min_size=count, max_size=count).map(np.stack)
