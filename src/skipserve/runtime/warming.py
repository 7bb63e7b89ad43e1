"""Warming up: a model runs its example before its first request."""

from __future__ import annotations

import numpy as np

from skipserve.runtime.engine import Engine
from skipserve.runtime.wave import Limits


def warm_up(engine: Engine, batch_size: int) -> None:
    """Run the example alone and in a full batch, so that no request pays for a first run.

    Each runs three times, because TorchScript compiles again in its second run.

    Args:
        engine: The open model.
        batch_size: Rows of a full batch.
    """
    values = engine.manifest.example.inputs
    row = engine.check({name: np.asarray([one]) for name, one in values.items()})
    for count in (1, batch_size) * 3:
        engine.run(row.repeat(count))
        if engine.manifest.router is not None:
            # Rows that never leave run every stage; rows that leave at once run the exits.
            for threshold in (np.finfo(np.float32).max, -np.inf):
                thresholds = np.full((count, *engine.off.thresholds.shape), threshold, np.float32)
                limits = Limits(thresholds, np.full(count, np.inf, np.float32))
                engine.run(row.repeat(count), limits)
