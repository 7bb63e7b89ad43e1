"""The engine: rows in, answers out. It knows artifacts and backends, and nothing of HTTP."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Format, Precision
from skipserve.errors import InputError
from skipserve.runtime.backends import Provider, has_gpu, open_backend, pick_provider

BackendName = Literal["onnxruntime", "torchscript"]
FORMATS: dict[BackendName, Format] = {"onnxruntime": "onnx", "torchscript": "torchscript"}
# FP16 on a CPU is emulated by casts and slower than FP32; on a GPU it is the point of it.
PRECISIONS: dict[Provider, Precision] = {"cpu": "fp32", "cuda": "fp16"}

LARGEST_FP32 = float(np.finfo(np.float32).max)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """Answers for a batch of B rows.

    Attributes:
        labels: Class of the largest probability [B], int64.
        probabilities: [B, classes], float32.
        depth_run: Blocks run for each row [B], int64.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    depth_run: NDArray[np.int64]

    def rows(self, first: int, last: int) -> Prediction:
        """The answers for rows ``first`` to ``last`` (exclusive)."""
        part = slice(first, last)
        return Prediction(self.labels[part], self.probabilities[part], self.depth_run[part])


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
        picked = pick_provider(backend, provider)
        self.precision = PRECISIONS[picked] if precision == "auto" else precision
        file = artifact.file(FORMATS[backend], self.precision)
        outputs = tuple(output.name for output in self.manifest.outputs)
        self._backend = open_backend(artifact.directory / file.path, outputs, picked, threads)
        self.backend = backend
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
        expected = self.manifest.row_shape
        if rows.shape[1:] != expected or rows.ndim == 0:
            raise InputError(
                "wrong_shape",
                f"a row of {self.manifest.name} has shape {list(expected)}, "
                f"got rows of shape {list(rows.shape[1:])}",
                row=0 if rows.ndim else None,
            )
        if len(rows) == 0:
            raise InputError("empty", "inputs holds no row; send at least one")
        if rows.dtype.kind not in "fiu":
            raise InputError("wrong_type", f"inputs must be numbers, got {rows.dtype}")
        if rows.dtype == np.float16:
            rows = rows.astype(np.float32)
        # One pass finds NaN, infinities and what float32 cannot hold.
        if not np.abs(rows).max() <= LARGEST_FP32:
            fits = np.abs(rows.reshape(len(rows), -1)).max(axis=1) <= LARGEST_FP32
            bad = int(np.argmin(fits))
            raise InputError(
                "not_finite",
                f"row {bad} holds NaN, an infinity or a number beyond float32; "
                "expected finite numbers",
                row=bad,
            )
        return np.ascontiguousarray(rows, dtype=np.float32)

    def run(self, rows: NDArray[np.float32]) -> Prediction:
        """Answer rows [B, *inputs] that :meth:`check` has passed."""
        probabilities = self._backend.run({"inputs": rows})["probabilities"]
        return Prediction(
            probabilities.argmax(axis=1),
            probabilities,
            np.full(len(rows), self.manifest.depth, dtype=np.int64),
        )

    def predict(self, inputs: object) -> Prediction:
        """Answer anything array-like of shape [B, *inputs].

        Raises:
            InputError: If it is not.
        """
        try:
            rows = np.asarray(inputs)
        except ValueError:
            raise InputError("ragged", "inputs must be rows of one length") from None
        return self.run(self.check(rows))

    def warm_up(self, batch_size: int) -> None:
        """Run the example alone and in a full batch, so that no request pays for a first run."""
        row = np.asarray([self.manifest.example.inputs], dtype=np.float32)
        for count in {1, batch_size}:
            self.run(np.repeat(row, count, axis=0))
