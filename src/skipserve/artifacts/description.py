"""Making a manifest: the network, the router, an example, and two rows of unequal depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.manifest import Depths, Example, Manifest, ModelFile
from skipserve.artifacts.origin import Origin, Routing
from skipserve.artifacts.router_spec import ExitSpec, RouterSpec, StressSpec
from skipserve.routing.network import Network
from skipserve.runtime.lengths import trim
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles, open_runner
from skipserve.tasks import KINDS
from skipserve.versions import version_of

# In the rows for parity, real rows come first.
DEPTHS_FROM = 256
MADE_BY = ("skipserve", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def describe(
    name: str, origin: Origin, files: Sequence[ModelFile], routing: Routing | None
) -> Manifest:
    """The manifest of files whose parity has not been checked yet."""
    network, expected = origin.network, origin.expected
    task = network.task
    assert isinstance(task, KINDS)
    opset = next(one.version for one in network.model.opset_import if one.domain in ("", "ai.onnx"))
    shown = _shown(origin)
    answer = expected.answers[shown]
    row = trim(expected.rows[shown : shown + 1], network.signature)
    return Manifest(
        name=name,
        source=origin.source,
        signature=network.signature,
        task=task,
        depth=network.depth,
        residual=network.found.residual,
        opset=opset,
        files=tuple(files),
        parity=(),
        largest_activation=expected.largest_activation,
        example=Example(
            inputs={name: tensor[0].tolist() for name, tensor in row.tensors.items()},
            answer=tuple(answer.tolist()),
            value=origin.values[shown] if origin.values else None,
        ),
        versions={package: version_of(package) for package in MADE_BY},
        router=_router_spec(network, routing) if routing else None,
        query=origin.query,
        columns=origin.columns,
        preprocessing=None if origin.prepared is None else origin.prepared.config,
    )


def _shown(origin: Origin) -> int:
    """The example of a manifest: the first row, or the shortest text."""
    if not all(isinstance(one, str) for one in origin.values) or not origin.values:
        return 0
    return min(range(len(origin.values)), key=lambda row: len(str(origin.values[row])))


def _router_spec(network: Network, routing: Routing) -> RouterSpec:
    fitted = next(iter(routing.fitted.values()))
    config = routing.router
    return RouterSpec(
        signal=config.signal,
        policy=config.policy,
        exits=tuple(
            ExitSpec(
                blocks=one.blocks,
                stream=network.cuts[one.blocks],
                features=one.layout.features,
                hidden=one.head.hidden if one.head else None,
                leaves=one.leaves,
            )
            for one in fitted.exits
        ),
        guard_quantile=routing.exits.guard,
        guard_limit=1.0 if routing.exits.guard < 1 else None,
        chosen=fitted.chosen,
        first=fitted.first,
        stress=tuple(
            StressSpec(
                kind=one.kind,
                hard=one.hard,
                disagreement=one.disagreement,
                run_rate=one.run_rate,
                held_back=one.held_back,
            )
            for one in fitted.stress
        ),
        risks=config.risks,
        confidence=config.confidence,
        per_class=config.per_class,
        certificate=config.certificate,
        epoch_rows=config.epoch_rows,
        eager_rows=config.eager_rows,
        greatest_age_rows=config.greatest_age_rows,
        greatest_age_s=config.greatest_age_s,
        slices=config.slices,
        propose_rows=config.propose_rows,
    )


def depths_of(artifact: Artifact, origin: Origin) -> Depths | None:
    """The row that leaves first and the row that leaves last, at almost all thresholds."""
    spec = artifact.manifest.router
    rows = origin.expected.rows[slice(DEPTHS_FROM)]
    if spec is None or spec.policy == "skip" or not artifact.hashes("onnx", "fp32"):
        return None
    # Rounded first, because people read and type them.
    rounded = {
        name: rows.round(2) if rows.dtype.kind == "f" else rows
        for name, rows in rows.tensors.items()
    }
    runner = open_runner(artifact, "onnxruntime", "fp32", "cpu", 1)
    assert isinstance(runner, OnnxFiles)
    readings = runner.read(Rows(rounded))
    limit = np.inf if spec.guard_limit is None else spec.guard_limit
    familiar = np.flatnonzero((readings.distances <= limit).all(axis=1))
    if len(familiar) < 2:
        return None
    signals = readings.signals[familiar]
    # Thresholds let shares of the rows leave; a row that ranks last at every exit stays longest.
    places = signals.argsort(axis=0, kind="stable").argsort(axis=0)
    chosen = [familiar[row] for row in (signals[:, 0].argmax(), places.max(axis=1).argmin())]
    shallow, deep = (
        {
            name: _typed(tensor[0])
            for name, tensor in trim(
                Rows({name: rows[row : row + 1] for name, rows in rounded.items()}),
                artifact.manifest.signature,
            ).tensors.items()
        }
        for row in chosen
    )
    values = (origin.values[chosen[0]], origin.values[chosen[1]]) if origin.values else None
    return Depths(shallow=shallow, deep=deep, values=values)


def _typed(row: NDArray[Any]) -> Any:
    """A rounded row in short decimals: 0.1, not the nearest FP32 number."""
    return (row.astype(np.float64).round(2) if row.dtype.kind == "f" else row).tolist()
