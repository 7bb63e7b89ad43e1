"""Runners: all files of one format and precision, open and ready to run rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import FORMATS, BackendName, Format, Precision, Provider
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.router_spec import RouterSpec
from skipserve.errors import ArtifactError
from skipserve.runtime.backends import TorchScript, open_onnx
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Cut, ExitReadings, Piece, Stepper
from skipserve.runtime.wave import Limits, RowResults


class Runner(Protocol):
    """Runs rows at full depth, or as deep as their limits ask."""

    provider: Provider

    @property
    def steps(self) -> Stepper | None:
        """The stages for stepping, if it has any."""
        ...

    def full(self, rows: Rows) -> NDArray[np.float32]:
        """Answers at full depth [B, width]."""
        ...

    def run(self, rows: Rows, limits: Limits) -> RowResults:
        """Run each row as deep as its limits ask."""
        ...


class OnnxFiles:
    """The plain graph, and the stages of the stepping engine.

    Rows at full depth run the plain graph: a router that is off costs nothing.

    Args:
        plain: The whole network.
        stepper: Its stages, or ``None`` without a router.
        provider: Where they run.
        depth: Blocks of the network.
    """

    def __init__(
        self, plain: Piece, stepper: Stepper | None, provider: Provider, depth: int
    ) -> None:
        self.provider = provider
        self._plain = plain
        self.steps = stepper
        self._depth = depth

    def full(self, rows: Rows) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = self._plain.run(rows.tensors)[0]
        return answers

    def run(self, rows: Rows, limits: Limits) -> RowResults:
        routed = limits.routed
        if self.steps is None or not routed.any():
            return self._at_full_depth(rows, limits)
        if routed.all():
            return self.steps.run(rows, limits)
        some = self.steps.run(rows[routed], limits[routed])
        return _merged(routed, some, self._at_full_depth(rows[~routed], limits[~routed]))

    def read(self, rows: Rows) -> ExitReadings:
        """Readings of every exit for rows that run everything; needs a router under ``exit``."""
        assert self.steps is not None
        return self.steps.read(rows)

    def _at_full_depth(self, rows: Rows, limits: Limits) -> RowResults:
        count = len(rows)
        return RowResults(
            self.full(rows),
            np.full(count, self._depth, dtype=np.int64),
            np.zeros(count, dtype=bool),
            np.full(limits.thresholds.shape, np.nan, dtype=np.float32),
        )


def _merged(routed: NDArray[np.bool_], some: RowResults, others: RowResults) -> RowResults:
    """Merge the results of the routed rows and of the others."""

    def put(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
        whole = np.empty((len(routed), *ours.shape[1:]), ours.dtype)
        whole[routed], whole[~routed] = ours, theirs
        return whole

    left_out = None
    if some.left_out is not None:
        left_out = put(some.left_out, np.zeros(1, dtype=bool))
    trail = None
    if some.trail is not None:
        trail = some.trail.blank(len(routed))
        trail.put(np.flatnonzero(routed), some.trail)
    return RowResults(
        put(some.answers, others.answers),
        put(some.depth_run, others.depth_run),
        put(some.held_back, others.held_back),
        put(some.signals, others.signals),
        left_out,
        trail,
    )


def open_runner(
    artifact: Artifact,
    backend: BackendName,
    precision: Precision,
    provider: Provider,
    threads: int,
) -> OnnxFiles | TorchScript:
    """Open the files of an artifact.

    Raises:
        ArtifactError: If a file cannot be loaded.
    """
    manifest = artifact.manifest
    spec, format = manifest.router, FORMATS[backend]
    if backend == "torchscript":
        role: Literal["routed", "plain"] = "routed" if spec else "plain"
        file = _only(artifact, format, precision, role)
        return TorchScript(
            file, len(spec.decisions) if spec else 0, manifest.depth, provider, threads
        )
    file = _only(artifact, format, precision, "plain")
    plain, runs_on = open_onnx(file, provider, threads)
    stepper = None
    if spec is not None:
        stages, exits = (
            [
                open_onnx(one, provider, threads)[0]
                for one in artifact.files(format, precision, role)
            ]
            for role in ("stage", "exit")
        )
        stepper = Stepper(stages, cuts_of(spec), manifest.depth, spec.policy, exits)
    return OnnxFiles(plain, stepper, runs_on, manifest.depth)


def _only(
    artifact: Artifact, format: Format, precision: Precision, role: Literal["routed", "plain"]
) -> Path:
    """The file of a role that an artifact has one of."""
    files = artifact.files(format, precision, role)
    if len(files) != 1:
        raise ArtifactError(
            f"{artifact.directory / MANIFEST} names {len(files)} files for {role} in {format}, "
            f"{precision}, expected one; build the artifact again"
        )
    return files[0]


def cuts_of(spec: RouterSpec) -> list[Cut]:
    """The cuts of a router; cuts where rows may leave are numbered."""
    found, decision = [], 0
    for one in spec.exits:
        found.append(Cut(one.blocks, decision if one.leaves else None))
        decision += one.leaves
    return found
