"""The engine: rows in, answers out. It knows artifacts and runners, but not HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS, AskedPrecision, AskedProvider, BackendName, Provider
from skipserve.artifacts.certificates import Certificate, Measure
from skipserve.cores import usable_cores
from skipserve.errors import InputError, LaunchError
from skipserve.runtime.backends import TorchScript, has_gpu
from skipserve.runtime.flights import Flights
from skipserve.runtime.fp32_fallback import Fp32Fallback, fp32_fallback_of
from skipserve.runtime.inputs import Inputs
from skipserve.runtime.many import in_batches
from skipserve.runtime.planning import plan
from skipserve.runtime.prediction import Prediction, Rung, Setting, joined, overflow
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import open_runner
from skipserve.runtime.settings import Settings
from skipserve.runtime.stepper import ExitReadings
from skipserve.runtime.wave import Limits, RowResults

logger = logging.getLogger(__name__)


class Engine:
    """The files of an artifact, open and ready.

    Args:
        artifact: The artifact.
        backend: ``onnxruntime`` or ``torchscript``.
        precision: ``auto`` takes FP16 on CUDA and FP32 on a CPU, where there are such files.
        provider: ``auto`` takes CUDA where there is one.
        threads: Cores used inside one operation; 0 takes all.
        workers: Batches of :meth:`run_batches` and :meth:`read` that run side by side.

    Attributes:
        inputs: Makes rows of texts, pictures or arrays.

    Raises:
        ArtifactError: If the artifact has no such files, or they cannot be loaded.
        LaunchError: If ``cuda`` was asked for and is not there.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        backend: BackendName = "onnxruntime",
        precision: AskedPrecision = "auto",
        provider: AskedProvider = "auto",
        threads: int = 1,
        workers: int = 1,
    ) -> None:
        self.manifest = artifact.manifest
        self.inputs = Inputs(artifact)
        self._workers = workers
        picked, self.precision = plan(artifact, backend, precision, provider)
        self._runner = open_runner(artifact, backend, self.precision, picked, threads)
        if picked != self.provider:  # ONNX Runtime falls back by itself when CUDA fails to start
            if provider == "cuda":
                raise LaunchError(
                    f"{backend} could not start CUDA for {self.manifest.name}; check that the "
                    "driver and the package's CUDA version match, or set provider = 'auto'"
                )
            picked, self.precision = plan(artifact, backend, precision, "cpu")
            self._runner = open_runner(artifact, backend, self.precision, picked, threads)
        self.files = artifact.hashes(FORMATS[backend], self.precision)
        self.backend = backend
        self._fp32: Fp32Fallback | None = fp32_fallback_of(
            artifact, backend, self.precision, picked, threads
        )
        self._settings = Settings(artifact, self.files, self.precision, self.provider)
        self.fell_back = provider != "cpu" and self.provider == "cpu" and has_gpu()
        if self.fell_back:
            logger.warning(
                "%s runs on the CPU although this machine has a GPU: %s cannot use it",
                self.manifest.name,
                backend,
            )

    @classmethod
    def for_many(
        cls,
        artifact: Artifact,
        *,
        backend: BackendName = "onnxruntime",
        precision: AskedPrecision = "auto",
        provider: AskedProvider = "auto",
        cores: int = 0,
    ) -> Engine:
        """An engine for many rows at once.

        ONNX Runtime on a CPU runs batches side by side, a core each.

        Args:
            artifact: The artifact.
            backend: As in serving.
            precision: As in serving.
            provider: As in serving.
            cores: To use; 0 takes all.
        """
        picked, _ = plan(artifact, backend, precision, provider)
        beside = backend == "onnxruntime" and picked == "cpu"
        return cls(
            artifact,
            backend=backend,
            precision=precision,
            provider=provider,
            threads=1 if beside else cores,
            workers=(cores or usable_cores()) if beside else 1,
        )

    @property
    def provider(self) -> Provider:
        """The provider in use."""
        return self._runner.provider

    def check(self, rows: object) -> Rows:
        """Validate a batch: a mapping of input names to arrays, or one array for a single input.

        Raises:
            InputError: Naming the input and the first row that are wrong.
        """
        return self.inputs.check(rows)

    @property
    def off(self) -> Setting:
        """Full depth."""
        return self._settings.off

    def certified(self, measure: Measure = "disagreement") -> dict[float, Certificate]:
        """The certificates that hold for the file, precision and provider in use, by risk."""
        return self._settings.certified(measure)

    @property
    def candidates(self) -> NDArray[np.float32]:
        """Thresholds [candidates, decisions], from careful to bold; none without a router."""
        return self._settings.candidates

    @property
    def guard_limit(self) -> float:
        """Distance within which the guard lets rows leave; +inf where it is off."""
        return self._settings.guard_limit

    @property
    def shows_exits(self) -> bool:
        """Whether exits can be read for rows that run everything."""
        spec = self.manifest.router
        return spec is not None and spec.policy == "exit" and self._runner.steps is not None

    def setting(
        self,
        risk: float | None,
        measure: Measure = "disagreement",
        in_force: Sequence[Rung | None] | None = None,
        own: bool = False,
    ) -> Setting:
        """Thresholds for a risk; full depth for ``None``, or if nothing so careful is certified.

        Args:
            risk: ε asked for; the boldest certificate that does not exceed it is taken.
            measure: What ε shall bound.
            in_force: Candidates that traffic has earned, one for each risk of the model; ``None``:
                the artifact's own certificates hold.
            own: Whether these hold beside the candidates; see
                :meth:`skipserve.runtime.settings.Settings.earned`.

        Raises:
            InputError: If it is not between 0 and 1.
        """
        if risk is None or in_force is None:
            return self._settings.at(risk, measure)
        return self._settings.earned(risk, measure, in_force, own)

    def fixed(self, decision: int) -> Setting:
        """The setting at which every row stops at one decision."""
        return self._settings.fixed(decision)

    def run(self, rows: Rows, limits: Limits | None = None) -> Prediction:
        """Answer rows that :meth:`check` has passed.

        Rows that overflow FP16 are run again in FP32, at full depth, if the artifact can.

        Args:
            rows: B rows.
            limits: Of each; full depth if left out.
        """
        return self.to_prediction(rows, self.run_once(rows, limits))

    def run_once(self, rows: Rows, limits: Limits | None) -> RowResults:
        """Run a batch; :meth:`to_prediction` makes answers of its results."""
        if limits is not None and self.manifest.router is not None:
            return self._runner.run(rows, limits)
        count = len(rows)
        depth_run = np.full(count, self.manifest.depth, dtype=np.int64)
        held_back = np.zeros(count, dtype=bool)
        signals = np.empty((count, 0), dtype=np.float32)
        return RowResults(self._runner.full(rows), depth_run, held_back, signals)

    def to_prediction(self, rows: Rows, results: RowResults) -> Prediction:
        """Answers from results; rows that overflowed FP16 are run again in FP32."""
        prediction = Prediction(
            self.manifest.task.labels(results.answers),
            results.answers,
            results.depth_run,
            results.held_back,
            None if self.manifest.router is None else results.signals,
            results.left_out,
            trail=results.trail,
        )
        return prediction if self._fp32 is None else self._fp32.answer(rows, prediction)

    def flights(self, most: int) -> Flights:
        """Flights of this model: rows of many requests, stage by stage.

        Args:
            most: Most rows that are joined into one batch.
        """
        return Flights(self.run_once, self._runner.steps, most)

    def run_thresholds(
        self, rows: Rows, thresholds: NDArray[np.float32], guard_limit: float
    ) -> Prediction:
        """Answer rows, all with the same thresholds [decisions].

        Raises:
            InputError: If the thresholds are of the wrong length or NaN.
        """
        expected = self.off.thresholds.shape
        if thresholds.shape != expected or np.isnan(thresholds).any() or np.isnan(guard_limit):
            raise InputError(
                "wrong_thresholds",
                f"{self.manifest.name} takes {expected[0]} thresholds and a guard limit, none of "
                f"them NaN; got {thresholds.tolist()} and {guard_limit}",
            )
        count = len(rows)
        limits = np.full(count, guard_limit, dtype=np.float32)
        return self.run(rows, Limits(np.tile(thresholds, (count, 1)), limits))

    def run_batches(self, rows: Rows, setting: Setting, batch_size: int) -> Prediction:
        """Answer any number of rows with one setting, ``batch_size`` at a time."""

        def run(some: Rows) -> Prediction:
            return self.run_thresholds(some, setting.thresholds, setting.guard_limit)

        return joined(list(in_batches(run, rows, batch_size, self._workers)))

    def read(self, rows: Rows, batch_size: int = 32) -> ExitReadings:
        """Readings of every exit for rows that run everything.

        Raises:
            LaunchError: If the files are TorchScript, or the policy is ``skip``.
        """
        spec = self.manifest.router
        if isinstance(self._runner, TorchScript) or spec is None or spec.policy == "skip":
            raise LaunchError(
                f"{self.manifest.name} cannot be read exit by exit: that takes ONNX files and a "
                "router with policy = 'exit'"
            )
        parts = in_batches(self._runner.read, rows, batch_size, self._workers)
        return ExitReadings.joined(list(parts))

    def predict(
        self, inputs: object, risk: float | None = None, measure: Measure = "disagreement"
    ) -> Prediction:
        """Answer anything array-like of shape [B, *inputs], or a mapping of input names to such.

        Args:
            inputs: The rows; a list of texts or pictures where the model takes such.
            risk: ε of the router; full depth for ``None`` or where nothing is certified.
            measure: What ε bounds: ``disagreement`` with full depth, or ``accuracy_lost``.

        Raises:
            InputError: If the inputs are not such rows, or the risk is not between 0 and 1.
        """
        setting = self.setting(risk, measure)
        if setting.reason:
            logger.warning("%s runs at full depth: %s", self.manifest.name, setting.reason)
        rows = self.inputs.read(inputs)
        answers = self.run_thresholds(rows, setting.thresholds, setting.guard_limit)
        if not answers.finite.all():
            raise overflow(answers)
        return answers
