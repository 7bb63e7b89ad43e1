"""Signals by tenth of what calibration saw: the counts that show a drift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skipserve.artifacts.certificates import MEASURES, Measure
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.safety.drift import BINS, bins_of
from skipserve.telemetry.series import SIGNAL_ROWS


class SignalRows:
    """Counts rows by decision and by the tenth of the calibration in which their signal lies.

    Args:
        engine: The open model; it has a router.
    """

    def __init__(self, engine: Engine) -> None:
        certified = [(of, risk) for of in MEASURES for risk in engine.certified(of)]
        self._places: dict[tuple[Measure, float | None, int | None], int] = {
            (of, risk, engine.certified(of)[risk].candidate): place
            for place, (of, risk) in enumerate(certified)
        }
        decisions = len(engine.off.thresholds)
        self._random = np.random.default_rng()
        # NaN where calibration saw too few rows; the last is for rows whose router was off.
        self._deciles = np.full((len(certified) + 1, decisions, BINS - 1), np.nan, np.float32)
        for place, (measure, risk) in enumerate(certified):
            for stage, deciles in enumerate(engine.certified(measure)[risk].deciles):
                self._deciles[place, stage] = deciles or np.nan
        known = [not np.isnan(self._deciles[:, stage, 0]).all() for stage in range(decisions)]
        model = engine.manifest.name
        self._series = [
            [SIGNAL_ROWS.labels(model, str(stage), str(bin_)) for bin_ in range(BINS)]
            if seen
            else []
            for stage, seen in enumerate(known, 1)
        ]

    def count(self, prediction: Prediction, settings: Sequence[Setting]) -> None:
        """Count the rows of one batch.

        Args:
            prediction: For B rows, with signals.
            settings: In force for each of them [B].
        """
        # Calibration has not seen a candidate at this risk that was earned on traffic.
        keys = [
            (one.measure, one.risk, None if one.proposed else one.candidate) for one in settings
        ]
        places = np.array([self._places.get(key, -1) for key in keys])
        if prediction.trail is not None:
            # Evidence rows reach every decision; in calibration, only rows that had not left.
            places[prediction.trail.drawn] = -1
        deciles, signals = self._deciles[places], prediction.signals
        assert signals is not None
        row, stage = np.nonzero(~np.isnan(signals) & ~np.isnan(deciles[:, :, 0]))
        bins = bins_of(signals[row, stage], deciles[row, stage], self._random)
        counts = np.bincount(stage * BINS + bins)
        for place in np.flatnonzero(counts).tolist():
            self._series[place // BINS][place % BINS].inc(int(counts[place]))
