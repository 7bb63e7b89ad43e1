"""When a row stops: only on proof. One rule, for the engine and for whoever foresees it.

The graphs (graph/policy.py) and PyTorch (routing/eager.py) say the same in their own words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stops(signal: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether rows leave out what follows a decision.

    A signal of NaN or an infinity says nothing, so such a row goes on; so does every row where the
    threshold is +inf (the router is off) or NaN.

    Args:
        signal: [..., decisions].
        thresholds: Of a shape that broadcasts with it.
    """
    proven: NDArray[np.bool_] = (signal >= thresholds) & np.isfinite(signal)
    return proven


def within(distance: NDArray[np.floating[Any]], limit: NDArray[np.floating[Any]] | float) -> Any:
    """Whether rows are inside a guard [...], bool.

    A distance that is no number is not within a limit; a limit of +inf holds nothing back.

    Args:
        distance: Of rows from calibration [...].
        limit: Of a shape that broadcasts with it.
    """
    return (distance <= limit) | (limit == np.inf)
