"""Checkpoint to artifact: every format and precision, checked before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from skipserve.artifacts.formats import OPSET, write_model
from skipserve.artifacts.manifest import (
    MANIFEST,
    Example,
    Format,
    Manifest,
    ModelFile,
    Precision,
    TensorSpec,
    model_file_name,
)
from skipserve.artifacts.parity import Reference, Run, check_parity
from skipserve.files import replacing_directory, sha256_of
from skipserve.training.checkpoint import Checkpoint

MADE_BY = ("skipserve", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def export_artifact(
    name: str,
    checkpoint: Checkpoint,
    real: torch.Tensor,
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    directory: Path,
    open_file: Callable[[Path], Run],
) -> Manifest:
    """Write an artifact directory, replacing an older one as a whole.

    Args:
        name: The model's name.
        checkpoint: What to export.
        real: Real rows [N, *inputs] for the parity check and the example.
        formats: ``onnx``, ``torchscript``.
        precisions: ``fp32``, ``fp16``.
        directory: Where the artifact will be.
        open_file: Opens a model file with the backend that will serve it.

    Raises:
        ParityError: If a file disagrees with the network; nothing is written then.
    """
    network = checkpoint.network
    reference = Reference(network, real)
    with replacing_directory(directory) as fresh:
        files = []
        for format in formats:
            for precision in precisions:
                path = fresh / model_file_name(format, precision)
                write_model(network, format, precision, path)
                parity = check_parity(open_file(path), reference, precision, path.name)
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
            inputs=(
                TensorSpec(name="inputs", dtype="float32", shape=(-1, *network.config.inputs)),
            ),
            outputs=(
                TensorSpec(
                    name="probabilities", dtype="float32", shape=(-1, network.config.classes)
                ),
            ),
            files=tuple(files),
            largest_activation=reference.largest_activation,
            example=Example(
                inputs=tuple(real[0].tolist()),
                label=int(reference.probabilities[0].argmax()),
                probabilities=tuple(reference.probabilities[0].tolist()),
            ),
            versions={package: version(package) for package in MADE_BY},
        )
        (fresh / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest
