"""Opening the metrics of a model, or none where their files cannot be written."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence

from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.telemetry.counts import SPACE_BYTES
from skipserve.telemetry.metrics import AnsweredRequests, ModelMetrics, TurnTimes

logger = logging.getLogger(__name__)


class NoMetrics(ModelMetrics):
    """Counts nothing: where files cannot be written, and to measure the cost of counting."""

    def __init__(self) -> None:
        pass

    def default(self, of_slice: str, setting: Setting) -> None:
        """Nothing."""

    def requests(self, answered: Sequence[AnsweredRequests]) -> None:
        """Nothing."""

    def turned_away(self, reason: str, status: int | None = None) -> None:
        """Nothing."""

    def risk_in_force(self, of_slice: str, risk: float | None, moved: bool = False) -> None:
        """Nothing."""

    def waited(self, seconds: Sequence[float]) -> None:
        """Nothing."""

    def turns(self, turns: Sequence[TurnTimes]) -> None:
        """Nothing."""

    def rows(self, prediction: Prediction, settings: Sequence[Setting]) -> None:
        """Nothing."""

    def evidence(self, of_slice: str, risk: float, rows: int, disagreements: int) -> None:
        """Nothing."""

    def evidence_dropped(self, of_slice: str, rows: int) -> None:
        """Nothing."""


def open_metrics(
    engine: Engine, defaults: Mapping[str, Setting], evident: bool = True
) -> ModelMetrics:
    """The metrics of a model, or :class:`NoMetrics` where they cannot be written.

    A full directory would kill the worker with SIGBUS at the first write to a fresh page, so space
    is asked for first. Serving goes on without metrics, and the log says so.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    try:
        if directory is not None and shutil.disk_usage(directory).free < SPACE_BYTES:
            raise OSError(f"fewer than {SPACE_BYTES >> 20} MiB are free")
        return ModelMetrics(engine, defaults, evident)
    except OSError as error:
        logger.error(
            "%s serves without metrics: %s cannot be written (%s); make room and restart",
            engine.manifest.name,
            directory,
            error,
        )
        return NoMetrics()
