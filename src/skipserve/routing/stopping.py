"""When a row stops: only on proof. What eager PyTorch and the exported graphs decide, in NumPy."""

from __future__ import annotations

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
