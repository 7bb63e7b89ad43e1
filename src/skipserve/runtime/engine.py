"""The engine: rows in, answers out. It knows artifacts and backends, and nothing of HTTP."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.certificates import Certificate, Certificates, Measure, from_json
from skipserve.artifacts.manifest import Format, ModelFile, Precision
from skipserve.artifacts.trail import Trail
from skipserve.errors import InputError, LaunchError
from skipserve.runtime.backends import Provider, has_gpu, open_backend, pick_provider
from skipserve.runtime.prediction import Prediction, Setting, joined, overflow
from skipserve.runtime.rows import check_rows

BackendName = Literal["onnxruntime", "torchscript"]
FORMATS: dict[BackendName, Format] = {"onnxruntime": "onnx", "torchscript": "torchscript"}
# FP16 on a CPU is emulated by casts and slower than FP32; on a GPU it is the point of it.
PRECISIONS: dict[Provider, Precision] = {"cpu": "fp32", "cuda": "fp16"}

ByRisk = dict[tuple[Measure, float], Certificate]

logger = logging.getLogger(__name__)


def plan(
    artifact: Artifact,
    backend: BackendName,
    precision: Literal["auto", "fp32", "fp16"],
    provider: Literal["auto", "cpu", "cuda"],
) -> tuple[Provider, Precision, ModelFile]:
    """What an engine with these settings would run, without opening it.

    Raises:
        ArtifactError: If the artifact has no such file.
        LaunchError: If ``cuda`` was asked for and is not there.
    """
    picked = pick_provider(backend, provider)
    chosen = PRECISIONS[picked] if precision == "auto" else precision
    return picked, chosen, artifact.file(FORMATS[backend], chosen)


class Engine:
    """One model file of an artifact, open and ready.

    Args:
        artifact: The artifact.
        backend: ``onnxruntime`` or ``torchscript``.
        precision: ``auto`` takes FP16 on CUDA and FP32 on a CPU.
        provider: ``auto`` takes CUDA where there is one.
        threads: Cores used inside one operation; 0 takes all.

    Raises:
        ArtifactError: If the artifact has no such file, or it cannot be loaded.
        LaunchError: If ``cuda`` was asked for and is not there.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        backend: BackendName = "onnxruntime",
        precision: Literal["auto", "fp32", "fp16"] = "auto",
        provider: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 1,
    ) -> None:
        self.manifest = artifact.manifest
        outputs = tuple(output.name for output in self.manifest.outputs)
        picked, self.precision, file = plan(artifact, backend, precision, provider)
        self._backend = open_backend(artifact.directory / file.path, outputs, picked, threads)
        if picked != self.provider:  # ONNX Runtime falls back by itself when CUDA fails to start
            if provider == "cuda":
                raise LaunchError(
                    f"{backend} could not start CUDA for {file.path}; check that the driver and "
                    "the package's CUDA version match, or set provider = 'auto'"
                )
            picked, self.precision, file = plan(artifact, backend, precision, "cpu")
            self._backend = open_backend(artifact.directory / file.path, outputs, picked, threads)
        self.file_sha256 = file.sha256
        self.backend = backend
        spec = self.manifest.router
        decisions = len(spec.decisions) if spec else 0
        self.off = Setting(np.full(decisions, np.inf, dtype=np.float32), np.inf)
        self._certified, self._weak = self._usable(artifact.certificates)
        self.fell_back = provider != "cpu" and self.provider == "cpu" and has_gpu()
        if self.fell_back:
            logger.warning(
                "%s runs on the CPU although this machine has a GPU: %s cannot use it",
                self.manifest.name,
                backend,
            )

    @property
    def provider(self) -> Provider:
        """Where the model really runs."""
        return self._backend.provider

    def check(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Validate a batch and return it as contiguous FP32.

        Raises:
            InputError: Naming the first row that is wrong.
        """
        return check_rows(rows, self.manifest.row_shape, self.manifest.name)

    def certified(self, measure: Measure = "disagreement") -> dict[float, Certificate]:
        """The certificates that hold for the file, precision and provider in use, by risk."""
        return {
            risk: certificate
            for (of, risk), certificate in self._certified.items()
            if of == measure
        }

    def setting(self, risk: float | None, measure: Measure = "disagreement") -> Setting:
        """Thresholds for a risk; full depth for ``None``, or if nothing so careful is certified.

        Args:
            risk: ε asked for; the boldest certificate that does not exceed it is taken.
            measure: What ε shall bound.

        Raises:
            InputError: If it is not between 0 and 1.
        """
        if risk is None:
            return self.off
        if not 0 < risk < 1:
            raise InputError("invalid_risk", f"risk must lie between 0 and 1, got {risk:g}")
        held = self.certified(measure)
        allowed = [certified for certified in held if certified <= risk]
        if not allowed:
            return replace(self.off, reason=self._why_off(risk, measure), measure=measure)
        certificate = held[max(allowed)]
        return Setting(
            np.array([from_json(one) for one in certificate.thresholds], dtype=np.float32),
            from_json(certificate.guard_limit),
            certificate.risk,
            measure=measure,
        )

    def run(
        self,
        rows: NDArray[np.float32],
        thresholds: NDArray[np.float32] | None = None,
        guard_limit: NDArray[np.float32] | None = None,
    ) -> Prediction:
        """Answer rows [B, *inputs] that :meth:`check` has passed.

        Args:
            rows: [B, *inputs], float32.
            thresholds: [B, decisions], float32; full depth if left out.
            guard_limit: [B], float32; holds nothing back if left out.
        """
        count = len(rows)
        if self.manifest.router is None:
            probabilities = self._backend.run({"inputs": rows})["probabilities"]
            depth = np.full(count, self.manifest.depth, dtype=np.int64)
            held = np.zeros(count, dtype=bool)
            trail = None
        else:
            if thresholds is None:
                thresholds = np.tile(self.off.thresholds, (count, 1))
            if guard_limit is None:
                guard_limit = np.full(count, np.inf, dtype=np.float32)
            out = self._backend.run(
                {"inputs": rows, "thresholds": thresholds, "guard_limit": guard_limit}
            )
            probabilities, depth = out["probabilities"], out["depth_run"]
            held = out["held_back"]
            spec = self.manifest.router
            trail = Trail(out["signals"], depth, spec.decisions, spec.policy)
        return Prediction(probabilities.argmax(axis=1), probabilities, depth, held, trail)

    def run_thresholds(
        self, rows: NDArray[np.float32], thresholds: NDArray[np.float32], guard_limit: float
    ) -> Prediction:
        """Answer rows [B, *inputs], all with the same thresholds [decisions].

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
        return self.run(rows, np.tile(thresholds, (count, 1)), limits)

    def run_batches(
        self, rows: NDArray[np.float32], setting: Setting, batch_size: int
    ) -> Prediction:
        """Answer any number of rows [N, *inputs] with one setting, ``batch_size`` at a time."""
        return joined(
            [
                self.run_thresholds(
                    rows[start : start + batch_size], setting.thresholds, setting.guard_limit
                )
                for start in range(0, len(rows), batch_size)
            ]
        )

    def predict(
        self, inputs: object, risk: float | None = None, measure: Measure = "disagreement"
    ) -> Prediction:
        """Answer anything array-like of shape [B, *inputs].

        Args:
            inputs: The rows.
            risk: ε of the router; full depth for ``None`` or where nothing is certified.
            measure: What ε bounds: ``disagreement`` with full depth, or ``accuracy_lost``.

        Raises:
            InputError: If the inputs are not such rows, or the risk is not between 0 and 1.
        """
        try:
            rows = np.asarray(inputs)
        except ValueError:
            raise InputError("ragged", "inputs must be rows of one length") from None
        setting = self.setting(risk, measure)
        if setting.reason:
            logger.warning("%s runs at full depth: %s", self.manifest.name, setting.reason)
        answers = self.run_thresholds(self.check(rows), setting.thresholds, setting.guard_limit)
        if not np.isfinite(answers.probabilities).all():
            raise overflow(answers)
        return answers

    def _usable(self, made: Certificates) -> tuple[ByRisk, ByRisk]:
        """Certificates that hold here: with the confidence the model asks for, and with less."""
        decisions = len(self.off.thresholds)
        asked = self._asked_confidence()
        held: ByRisk = {}
        weak: ByRisk = {}
        for one in made.certificates:
            if (
                one.file_sha256 == self.file_sha256
                and one.precision == self.precision
                and one.provider == self.provider
                and len(one.thresholds) == decisions
            ):
                where = held if one.confidence >= asked else weak
                where[one.measure, one.risk] = one
        for (measure, risk), one in weak.items():
            if (measure, risk) not in held:
                logger.warning(
                    "%s: the certificate of %s %g is not used: its confidence is %g, the model "
                    "asks for %g",
                    *(self.manifest.name, measure, risk, one.confidence, asked),
                )
        return held, weak

    def _asked_confidence(self) -> float:
        spec = self.manifest.router
        return spec.confidence if spec is not None else 1.0

    def _why_off(self, risk: float, measure: Measure) -> str:
        if self.manifest.router is None:
            return "the model has no router"
        weak = [one for (of, at), one in self._weak.items() if of == measure and at <= risk]
        if weak:
            best = max(weak, key=lambda one: (one.confidence, one.risk))
            return (
                f"risk {best.risk:g} is certified with a confidence of {best.confidence:g}, the "
                f"model asks for {self._asked_confidence():g}; run `skipserve certify` where it "
                "serves"
            )
        held = self.certified(measure)
        if held:
            have = ", ".join(f"{one:g}" for one in sorted(held))
            return f"risk {risk:g} is not certified, only {have}"
        what = "" if measure == "disagreement" else f" of {measure}"
        return (
            f"no certificate{what} for this file in {self.precision} on {self.provider}; "
            "run `skipserve certify` where it serves"
        )

    def warm_up(self, batch_size: int) -> None:
        """Run the example alone and in a full batch, so that no request pays for a first run.

        Three times each: TorchScript compiles again in its second run.
        """
        row = np.asarray([self.manifest.example.inputs], dtype=np.float32)
        for count in (1, batch_size) * 3:
            self.run(np.repeat(row, count, axis=0))
