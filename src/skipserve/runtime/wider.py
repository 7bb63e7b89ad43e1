"""The FP32 file beside an FP16 one: it answers the rows that FP16 is too narrow for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.backends import Backend
from skipserve.runtime.prediction import Prediction

logger = logging.getLogger(__name__)


class Wider:
    """Opened when the first row overflows; most services never need it.

    Args:
        name: Of the model.
        depth: Its blocks.
        decisions: Thresholds a row has; 0 without a router.
        open_file: Opens the FP32 file.
    """

    def __init__(
        self, name: str, depth: int, decisions: int, open_file: Callable[[], Backend]
    ) -> None:
        self._name = name
        self._depth = depth
        self._decisions = decisions
        self._open_file = open_file
        self._backend: Backend | None = None
        self._broken = False

    def answer(self, rows: NDArray[np.float32], prediction: Prediction) -> Prediction:
        """Run again what has no finite answer, at full depth: nothing certifies it to do less.

        Never raises: a row that cannot be run again stays as it is, and its neighbours always do.

        Args:
            rows: [B, *inputs], float32.
            prediction: Of the FP16 file for them.
        """
        overflowed: NDArray[np.bool_] = ~_finite(prediction.probabilities)
        if not overflowed.any():
            return prediction
        backend = self._open()
        if backend is None:
            return prediction
        try:
            again = self._run(backend, rows[overflowed])
        except Exception:  # each backend raises classes of its own
            logger.exception("%s could not run rows again that overflow FP16", self._name)
            return prediction
        probabilities, depth_run = prediction.probabilities.copy(), prediction.depth_run.copy()
        probabilities[overflowed] = again
        depth_run[overflowed] = self._depth
        overflowed[overflowed] = _finite(again)
        return replace(
            prediction,
            labels=probabilities.argmax(axis=1),
            probabilities=probabilities,
            depth_run=depth_run,
            reran=overflowed,
        )

    def _open(self) -> Backend | None:
        if self._backend is None and not self._broken:
            try:
                self._backend = self._open_file()
            except Exception as error:  # each backend raises classes of its own
                self._broken = True
                logger.error("%s refuses rows that overflow FP16: %s", self._name, error)
        return self._backend

    def _run(self, backend: Backend, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        feeds = {"inputs": rows}
        if self._decisions:
            feeds["thresholds"] = np.full((len(rows), self._decisions), np.inf, dtype=np.float32)
            feeds["guard_limit"] = np.full(len(rows), np.inf, dtype=np.float32)
        probabilities: NDArray[np.float32] = backend.run(feeds)["probabilities"]
        return probabilities


def _finite(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(probabilities).all(axis=1))
