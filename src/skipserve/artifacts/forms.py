"""Parity of all forms of a network: equal answers, equal decisions of the router."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.manifest import Manifest, Parity
from skipserve.artifacts.origin import Origin, Routing
from skipserve.artifacts.parity import Decisions, check_parity
from skipserve.errors import ParityError
from skipserve.graph.policy import GUARD_LIMIT, THRESHOLDS
from skipserve.routing.reading import read_all
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles, Runner, open_runner
from skipserve.runtime.wave import Limits, RowResults

BACKENDS = {"onnx": "onnxruntime", "torchscript": "torchscript"}


def check_forms(
    artifact: Artifact,
    origin: Origin,
    pairs: Sequence[tuple[Format, Precision]],
    routing: Routing | None,
) -> list[Parity]:
    """Check every format and precision against the source, and decisions against the stages."""
    decisions: dict[bool, Decisions] = {}
    made = []
    for format, precision in pairs:
        name = f"{artifact.manifest.name} ({format} {precision})"
        backend = BACKENDS[format]
        runner = open_runner(artifact, backend, precision, "cpu", 1)  # type: ignore[arg-type]
        parity = check_parity(runner.full, origin.expected, format, precision, name)
        if routing is not None and routing.router.policy == "exit":
            quantised = precision == "int8"
            if isinstance(runner, OnnxFiles) and quantised not in decisions:
                decisions[quantised] = _decisions(runner, artifact.manifest, origin)
            if quantised in decisions:
                expected = decisions[quantised]
                found = expected.check(runner.run, precision, name)
                parity = parity.model_copy(update={"decisions": found})
                for file in artifact.files("onnx", precision, "routed") if format == "onnx" else ():
                    expected.check(_OneFile(file), precision, f"{name}, {file.name}")
        elif routing is not None:
            _check_skips(artifact, runner, origin, format, precision, name)
        made.append(parity)
    return made


def _decisions(runner: OnnxFiles, manifest: Manifest, origin: Origin) -> Decisions:
    spec = manifest.router
    assert spec is not None
    rows = origin.expected.rows
    return Decisions(
        rows,
        read_all(runner, rows),
        np.array([*spec.decisions, manifest.depth]),
        np.array([one.leaves for one in spec.exits]),
        spec.guard_limit is not None,
    )


def _check_skips(
    artifact: Artifact,
    runner: Runner,
    origin: Origin,
    format: Format,
    precision: Precision,
    name: str,
) -> None:
    """Compare the one-file form with the stages under ``skip``, where no readings exist."""
    spec = artifact.manifest.router
    assert spec is not None
    rows = origin.expected.rows
    thresholds = np.zeros((len(rows), len(spec.decisions)), np.float32)
    thresholds[::2] = np.inf
    limits = Limits(thresholds, np.full(len(rows), np.inf, np.float32))
    expected = runner.run(rows, limits)
    for file in artifact.files("onnx", precision, "routed") if format == "onnx" else ():
        got = _OneFile(file)(rows, limits)
        if not (got.depth_run == expected.depth_run).all():
            raise ParityError(f"{name}: {file.name} runs other blocks than the stages do")


class _OneFile:
    """The one-file form in a plain ONNX Runtime session."""

    def __init__(self, file: Path) -> None:
        self._piece, _ = open_onnx(file)

    def __call__(self, rows: Rows, limits: Limits) -> RowResults:
        feeds = {**rows.tensors, THRESHOLDS: limits.thresholds, GUARD_LIMIT: limits.guard}
        answers, depth, held = self._piece.run(feeds)
        empty: NDArray[np.float32] = np.empty((len(rows), 0), np.float32)
        return RowResults(answers, depth, held, empty)
