"""Checkpoint to artifact: every format and precision, checked before anybody sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from skipserve.artifacts.certificates import from_json
from skipserve.artifacts.formats import write_model
from skipserve.artifacts.manifest import (
    MANIFEST,
    Depths,
    Example,
    Format,
    Manifest,
    ModelFile,
    Parity,
    Precision,
    RouterSpec,
    TensorSpec,
    model_file_name,
    write_manifest,
)
from skipserve.artifacts.parity import Reference, RoutedReference, Run, check_parity
from skipserve.artifacts.pieces import OPSET
from skipserve.files import replacing_directory, sha256_of
from skipserve.networks import NetworkConfig, ResidualNetwork
from skipserve.routing.propose import first_and_last
from skipserve.routing.routed import Router
from skipserve.training.checkpoint import Checkpoint
from skipserve.versions import version_of

MADE_BY = ("skipserve", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class FittedRouter:
    """A fitted router and what the manifest says about it."""

    router: Router
    spec: RouterSpec


def export_artifact(
    name: str,
    checkpoint: Checkpoint,
    real: Tensor,
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    directory: Path,
    open_file: Callable[[Path, tuple[str, ...]], Run],
    fitted: FittedRouter | None = None,
) -> Manifest:
    """Write an artifact directory, replacing an older one as a whole.

    Args:
        name: The model's name.
        checkpoint: What to export.
        real: Real rows [N, *inputs] for the parity check and the example.
        formats: ``onnx``, ``torchscript``.
        precisions: ``fp32``, ``fp16``.
        directory: Where the artifact will be.
        open_file: Opens a model file, given its outputs, with the backend that will serve it.
        fitted: The router that goes into the files, if any.

    Raises:
        ParityError: If a file disagrees with the network or the router; nothing is written then.
    """
    network = checkpoint.network
    reference = Reference(network, real)
    inputs, outputs = _signature(network.config, fitted)
    names = tuple(output.name for output in outputs)
    with replacing_directory(directory, MANIFEST) as fresh:
        files = []
        for format, precision in itertools.product(formats, precisions):
            path = fresh / model_file_name(format, precision)
            write_model(network, format, precision, path, fitted.router if fitted else None)
            parity = _check(open_file(path, names), reference, real, precision, path.name, fitted)
            files.append(
                ModelFile(
                    path=path.name,
                    format=format,
                    precision=precision,
                    sha256=sha256_of(path),
                    size_bytes=path.stat().st_size,
                    parity=parity,
                )
            )
        manifest = Manifest(
            name=name,
            recipe=checkpoint.run.recipe,
            network=network.config.model_dump(mode="json"),
            accuracy=checkpoint.run.accuracy,
            checkpoint_sha256=checkpoint.sha256,
            opset=OPSET,
            inputs=inputs,
            outputs=outputs,
            files=tuple(files),
            largest_activation=reference.largest_activation,
            example=Example(
                inputs=tuple(real[0].tolist()),
                label=int(reference.probabilities[0].argmax()),
                probabilities=tuple(reference.probabilities[0].tolist()),
            ),
            versions={package: version_of(package) for package in MADE_BY},
            router=fitted.spec if fitted else None,
            depths=_depths(network, fitted, real) if fitted else None,
        )
        write_manifest(fresh, manifest)
    return manifest


def _depths(network: ResidualNetwork, fitted: FittedRouter, real: Tensor) -> Depths | None:
    # Rounded before they are tried: they are read and typed.
    rows = real.double().mul(100).round().div(100)
    limit = from_json(fitted.spec.guard_limit)
    found = first_and_last(network, fitted.router, rows.float(), limit)
    if found is None:
        return None
    shallow, deep = (tuple(rows[row].tolist()) for row in found)
    return Depths(shallow=shallow, deep=deep)


def _signature(
    config: NetworkConfig, fitted: FittedRouter | None
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs = [TensorSpec(name="inputs", dtype="float32", shape=(-1, *config.inputs))]
    outputs = [TensorSpec(name="probabilities", dtype="float32", shape=(-1, config.classes))]
    if fitted is not None:
        decisions = len(fitted.router.decisions)
        inputs.append(TensorSpec(name="thresholds", dtype="float32", shape=(-1, decisions)))
        inputs.append(TensorSpec(name="guard_limit", dtype="float32", shape=(-1,)))
        outputs.append(TensorSpec(name="depth_run", dtype="int64", shape=(-1,)))
        outputs.append(TensorSpec(name="held_back", dtype="bool", shape=(-1,)))
        outputs.append(TensorSpec(name="signals", dtype="float32", shape=(-1,)))
    return tuple(inputs), tuple(outputs)


def _check(
    run: Run,
    reference: Reference,
    real: Tensor,
    precision: Precision,
    file: str,
    fitted: FittedRouter | None,
) -> Parity:
    if fitted is None:
        return check_parity(run, reference, precision, file)
    parity = check_parity(run, reference, precision, file, len(fitted.router.decisions))
    limit = from_json(fitted.spec.guard_limit)
    routed = RoutedReference(reference.network, fitted.router, real, limit)
    return parity.model_copy(update={"decisions": routed.check(run, precision, file)})
