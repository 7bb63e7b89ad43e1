"""The FP32 fallback: answers rows that overflow FP16."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS, BackendName, Precision, Provider
from skipserve.errors import ArtifactError
from skipserve.runtime.prediction import Prediction
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import Runner, open_runner
from skipserve.tasks import Task

logger = logging.getLogger(__name__)


class Fp32Fallback:
    """FP32 files, opened when the first row overflows.

    Args:
        name: Of the model.
        depth: Its blocks.
        task: What its answers are.
        open_files: Opens the FP32 files.
    """

    def __init__(self, name: str, depth: int, task: Task, open_files: Callable[[], Runner]) -> None:
        self._name = name
        self._depth = depth
        self._task = task
        self._open_files = open_files
        self._runner: Runner | None = None
        self._broken = False

    def answer(self, rows: Rows, prediction: Prediction) -> Prediction:
        """Run rows without a finite answer again, at full depth.

        Never raises: a row that cannot be run again stays as it is, and its neighbours always do.

        Args:
            rows: B rows.
            prediction: Of the FP16 files for them.
        """
        overflowed: NDArray[np.bool_] = ~prediction.finite
        if not overflowed.any():
            return prediction
        runner = self._open()
        if runner is None:
            return prediction
        try:
            again = runner.full(rows[overflowed])
        except Exception:  # each backend raises its own exception types
            logger.exception("%s could not run rows again that overflow FP16", self._name)
            return prediction
        answers, depth_run = prediction.answers.copy(), prediction.depth_run.copy()
        answers[overflowed] = again
        depth_run[overflowed] = self._depth
        overflowed[overflowed] = np.isfinite(again).all(axis=1)
        return replace(
            prediction,
            labels=self._task.labels(answers),
            answers=answers,
            depth_run=depth_run,
            reran=overflowed,
        )

    def _open(self) -> Runner | None:
        if self._runner is None and not self._broken:
            try:
                self._runner = self._open_files()
            except ArtifactError as error:
                self._broken = True
                logger.error("%s refuses rows that overflow FP16: %s", self._name, error)
        return self._runner


def fp32_fallback_of(
    artifact: Artifact, backend: BackendName, precision: Precision, provider: Provider, threads: int
) -> Fp32Fallback | None:
    """The fallback of FP16 files, if the artifact has FP32 files."""
    manifest = artifact.manifest
    if precision != "fp16" or not artifact.hashes(FORMATS[backend], "fp32"):
        return None
    return Fp32Fallback(
        manifest.name,
        manifest.depth,
        manifest.task,
        lambda: open_runner(artifact, backend, "fp32", provider, threads),
    )
