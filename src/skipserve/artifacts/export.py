"""A network to an artifact: every format and precision, checked before anybody sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.graphs import in_precision, write_graphs
from skipserve.artifacts.manifest import (
    MANIFEST,
    Depths,
    Example,
    ExitSpec,
    Format,
    Manifest,
    ModelFile,
    Parity,
    Precision,
    Role,
    RouterSpec,
    Source,
    StressSpec,
    write_manifest,
)
from skipserve.artifacts.parity import Decisions, Expected, check_parity
from skipserve.errors import ConfigError
from skipserve.files import replacing_directory, sha256_of
from skipserve.graph.one_file import GUARD_LIMIT, THRESHOLDS
from skipserve.routing.config import ExitsConfig, RouterConfig
from skipserve.routing.network import Network
from skipserve.routing.placing import FittedRouter
from skipserve.runtime.backends import open_onnx
from skipserve.runtime.rows import Rows
from skipserve.runtime.runners import OnnxFiles, Runner, open_runner
from skipserve.runtime.wave import Limits, Stepped
from skipserve.tasks import Classify
from skipserve.versions import version_of

if TYPE_CHECKING:
    from skipserve.networks import ResidualNetwork

# The real rows among those that files are compared on come first.
DEPTHS_FROM = 256
MADE_BY = ("skipserve", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
BACKENDS = {"onnx": "onnxruntime", "torchscript": "torchscript"}


@dataclass(frozen=True)
class Origin:
    """What an artifact is made from.

    Attributes:
        source: Where it comes from.
        network: Its plain graph in FP32, its blocks found.
        expected: Answers of the source, to compare files with.
        torch: The network in PyTorch, where it was trained here: TorchScript takes it.
    """

    source: Source
    network: Network
    expected: Expected
    torch: ResidualNetwork | None = None


@dataclass(frozen=True)
class Routing:
    """A router, fitted to each precision that needs numbers of its own.

    Attributes:
        exits: What was asked for.
        router: What was asked for.
        fitted: By precision; FP16 takes those of FP32.
    """

    exits: ExitsConfig
    router: RouterConfig
    fitted: dict[Precision, FittedRouter] = field(default_factory=dict)

    def of(self, precision: Precision) -> FittedRouter:
        """The router of files in a precision."""
        return self.fitted["int8" if precision == "int8" else "fp32"]


def export_artifact(
    name: str,
    origin: Origin,
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    directory: Path,
    routing: Routing | None = None,
) -> Manifest:
    """Write an artifact directory, replacing an older one as a whole.

    Args:
        name: The model's name.
        origin: What to export.
        formats: ``onnx``, ``torchscript``.
        precisions: ``fp32``, ``fp16``, ``int8``.
        directory: Where the artifact will be.
        routing: The router, if there is one.

    Raises:
        ConfigError: If a format and precision do not go together.
        CutError: If the graph cannot be cut.
        ParityError: If a file disagrees with the source, or decides otherwise than another form of
            it; nothing is written then.
    """
    if "torchscript" in formats and origin.torch is None:
        raise ConfigError(
            f"{name} was not trained here: TorchScript is made of networks that were; "
            "set [export] formats = ['onnx']"
        )
    with replacing_directory(directory, MANIFEST) as fresh:
        files = [
            _file(fresh, role, path, format, precision)
            for format in formats
            for precision in precisions
            if not (format == "torchscript" and precision == "int8")
            for role, path in _write(origin, format, precision, fresh, routing)
        ]
        manifest = _manifest(name, origin, files, routing)
        artifact = Artifact(fresh, manifest, Certificates())
        pairs = dict.fromkeys((one.format, one.precision) for one in files)
        parity = _check_all(artifact, origin, list(pairs), routing)
        depths = _depths(artifact, origin) if routing else None
        manifest = manifest.model_copy(update={"parity": tuple(parity), "depths": depths})
        write_manifest(fresh, manifest)
    return manifest


def _write(
    origin: Origin, format: Format, precision: Precision, folder: Path, routing: Routing | None
) -> list[tuple[Role, str]]:
    exits = routing.of(precision).exits if routing else ()
    policy = routing.router.policy if routing else "exit"
    if format == "onnx":
        rows = origin.expected.rows
        network = in_precision(origin.network, precision, rows)
        return write_graphs(network, precision, rows, folder, exits, policy)
    from skipserve.artifacts.torch_files import write_torchscript

    assert origin.torch is not None
    role: Role = "routed" if exits else "plain"
    file = f"{role}.{precision}.pt"
    write_torchscript(origin.torch, precision, folder / file, exits, policy)
    return [(role, file)]


def _file(folder: Path, role: Role, path: str, format: Format, precision: Precision) -> ModelFile:
    file = folder / path
    return ModelFile(
        path=path,
        role=role,
        format=format,
        precision=precision,
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
    )


def _manifest(
    name: str, origin: Origin, files: Sequence[ModelFile], routing: Routing | None
) -> Manifest:
    network, expected = origin.network, origin.expected
    assert isinstance(network.task, Classify)
    opset = next(one.version for one in network.model.opset_import if one.domain in ("", "ai.onnx"))
    answer = expected.answers[0]
    return Manifest(
        name=name,
        source=origin.source,
        signature=network.signature,
        task=network.task,
        depth=network.depth,
        residual=network.found.residual,
        opset=opset,
        files=tuple(files),
        parity=(),
        largest_activation=expected.largest_activation,
        example=Example(
            inputs={name: rows[0].tolist() for name, rows in expected.rows.tensors.items()},
            label=int(network.task.labels(answer)),
            probabilities=tuple(answer.tolist()),
        ),
        versions={package: version_of(package) for package in MADE_BY},
        router=_router_spec(network, routing) if routing else None,
    )


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
    )


def _depths(artifact: Artifact, origin: Origin) -> Depths | None:
    """The row that leaves first and the one that leaves last, almost whatever the thresholds."""
    spec = artifact.manifest.router
    rows = origin.expected.rows[slice(DEPTHS_FROM)]
    if spec is None or spec.policy == "skip" or not artifact.hashes("onnx", "fp32"):
        return None
    # Rounded before they are tried: they are read and typed.
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
    shallow, deep = (
        {name: _typed(rows[familiar[row]]) for name, rows in rounded.items()}
        for row in (signals[:, 0].argmax(), signals.max(axis=1).argmin())
    )
    return Depths(shallow=shallow, deep=deep)


def _typed(row: NDArray[Any]) -> Any:
    """A rounded row as a person types it: 0.1, and not what FP32 makes of it."""
    return (row.astype(np.float64).round(2) if row.dtype.kind == "f" else row).tolist()


def _check_all(
    artifact: Artifact,
    origin: Origin,
    pairs: Sequence[tuple[Format, Precision]],
    routing: Routing | None,
) -> list[Parity]:
    """Check every format and precision; decisions of all forms against those of the stages."""
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
                    expected.check(_one_file(file), precision, f"{name}, {file.name}")
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
        runner.read(rows),
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
    """Under ``skip`` the one-file form is compared with the stages, which have no readings."""
    from skipserve.errors import ParityError

    spec = artifact.manifest.router
    assert spec is not None
    rows = origin.expected.rows
    thresholds = np.zeros((len(rows), len(spec.decisions)), np.float32)
    thresholds[::2] = np.inf
    limits = Limits(thresholds, np.full(len(rows), np.inf, np.float32))
    expected = runner.run(rows, limits)
    for file in artifact.files("onnx", precision, "routed") if format == "onnx" else ():
        got = _one_file(file)(rows, limits)
        if not (got.depth_run == expected.depth_run).all():
            raise ParityError(f"{name}: {file.name} runs other blocks than the stages do")


def _one_file(file: Path) -> _OneFile:
    return _OneFile(file)


class _OneFile:
    """The one-file form, run as any ONNX Runtime runs it."""

    def __init__(self, file: Path) -> None:
        self._piece, _ = open_onnx(file)

    def __call__(self, rows: Rows, limits: Limits) -> Stepped:
        feeds = {**rows.tensors, THRESHOLDS: limits.thresholds, GUARD_LIMIT: limits.guard}
        answers, depth, held = self._piece.run(feeds)
        empty: NDArray[np.float32] = np.empty((len(rows), 0), np.float32)
        return Stepped(answers, depth, held, empty)
