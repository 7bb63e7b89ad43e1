"""Exporting a network to an artifact, which is checked before it is put in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.certificates import Certificates
from skipserve.artifacts.description import depths_of, describe
from skipserve.artifacts.forms import check_forms
from skipserve.artifacts.graphs import Precisions, write_graphs
from skipserve.artifacts.manifest import MANIFEST, Manifest, ModelFile, Role, write_manifest
from skipserve.artifacts.origin import Origin, Routing
from skipserve.errors import ConfigError
from skipserve.files import replacing_directory, sha256_of


def export_artifact(
    name: str,
    origin: Origin,
    networks: Precisions,
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    directory: Path,
    routing: Routing | None = None,
) -> Manifest:
    """Write an artifact directory, replacing an older one as a whole.

    Args:
        name: The model's name.
        origin: What to export.
        networks: Its network in every precision; routers were fitted on these.
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
            for role, path in _write(origin, networks, format, precision, fresh, routing)
        ]
        if origin.prepared is not None:
            for needed, content in origin.prepared.files.items():
                (fresh / needed).write_bytes(content)
        manifest = describe(name, origin, files, routing)
        artifact = Artifact(fresh, manifest, Certificates())
        pairs = dict.fromkeys((one.format, one.precision) for one in files)
        parity = check_forms(artifact, origin, list(pairs), routing)
        depths = depths_of(artifact, origin) if routing else None
        manifest = manifest.model_copy(update={"parity": tuple(parity), "depths": depths})
        write_manifest(fresh, manifest)
    return manifest


def _write(
    origin: Origin,
    networks: Precisions,
    format: Format,
    precision: Precision,
    folder: Path,
    routing: Routing | None,
) -> list[tuple[Role, str]]:
    exits = routing.of(precision).exits if routing else ()
    policy = routing.router.policy if routing else "exit"
    if format == "onnx":
        rows = origin.expected.rows
        return write_graphs(networks[precision], precision, rows, folder, exits, policy)
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
