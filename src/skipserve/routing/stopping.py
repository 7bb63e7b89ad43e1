"""When a row stops: one rule, for the engine and for everything that predicts the engine.

The ONNX graphs (graph/policy.py) and PyTorch (routing/eager.py) implement the same rule.
"""

from __future__ import annotations

from math import inf
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@overload
def stops(signal: float, thresholds: float) -> bool: ...


@overload
def stops(signal: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.bool_]: ...


def stops(signal: Any, thresholds: Any) -> Any:
    """Whether rows stop at a decision.

    A row with a signal of NaN or infinity goes on. So does every row whose threshold is +inf (the
    router is off) or NaN.

    Args:
        signal: [..., decisions], or one number.
        thresholds: Of a shape that broadcasts with it, or one number.
    """
    return (signal >= thresholds) & (abs(signal) < inf)


def within(distance: NDArray[np.floating[Any]], limit: NDArray[np.floating[Any]] | float) -> Any:
    """Whether rows are inside a guard [...], bool.

    A distance of NaN is outside every finite limit. A limit of +inf holds nothing back.

    Args:
        distance: Of rows from calibration [...], or one number.
        limit: Of a shape that broadcasts with it, or one number.
    """
    return (distance <= limit) | (limit == inf)


def inside_so_far(
    distances: NDArray[np.floating[Any]], limits: NDArray[np.floating[Any]] | float
) -> NDArray[np.bool_]:
    """Whether rows were inside every guard up to each cut [N, cuts].

    Args:
        distances: From calibration, at every cut [N, cuts].
        limits: One for each cut, or one for all.
    """
    inside: NDArray[np.bool_] = np.logical_and.accumulate(within(distances, limits), axis=1)
    return inside


def first_stop(
    signal: NDArray[np.float32], thresholds: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The first decision at which each row stops [...]; the number of decisions if at none.

    Args:
        signal: [..., decisions].
        thresholds: Of a shape that broadcasts with it.
        inside: Whether a row was inside every guard up to the decision; broadcasts likewise.
    """
    stopped = stops(signal, thresholds) & inside
    first: NDArray[np.int64] = stopped.argmax(axis=-1)
    first[~stopped.any(axis=-1)] = stopped.shape[-1]
    return first


def disagreements(agrees: NDArray[np.bool_], where: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether rows that stop at these decisions are answered otherwise than at full depth.

    Args:
        agrees: Whether the answer at each decision is that of full depth [N, decisions].
        where: Decisions as :func:`first_stop` gives them [N] or [N, candidates].
    """
    whole = np.append(agrees, np.ones((len(agrees), 1), dtype=bool), axis=1)
    found = np.take_along_axis(whole, where.reshape(len(where), -1), axis=1)
    return ~found.reshape(where.shape)
