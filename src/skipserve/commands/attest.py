"""`skipserve attest` and `skipserve sign`: certificates that others can check."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipserve.artifacts.asked import FORMATS, Precision, Provider
from skipserve.commands import completion
from skipserve.commands.parameters import METRICS_PORT, CertificatePath, MetricsPort

if TYPE_CHECKING:
    from skipserve.certification.certificate_file import CertificateFile
    from skipserve.safety.earned import EarnedRecord


def attest(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An artifact directory, an archive, or the name of a model that is served.",
            autocompletion=completion.artifacts,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The certificate file.")] = Path("certificate.json"),
    precision: Annotated[
        Precision | None,
        typer.Option(help="The precision of the files, where several are certified."),
    ] = None,
    provider: Annotated[
        Provider | None,
        typer.Option(help="Where the files run, where several are certified."),
    ] = None,
    metrics_port: MetricsPort = METRICS_PORT,
) -> None:
    """Write everything certified of a model to one file, which `skipserve verify` checks.

    For a model that is served, the file also has what its traffic has earned.
    """
    from skipserve.artifacts.named import find_model, open_model
    from skipserve.certification.attesting import artifact_file
    from skipserve.certification.certificate_file import write_certificate

    if "/" in model or model.endswith(".mar") or Path(model).exists():
        with tempfile.TemporaryDirectory(prefix="skipserve-attest.") as scratch:
            artifact = open_model(find_model(model), Path(scratch))
            made = artifact_file(artifact, precision, provider)
    else:
        made = served_file(_served(metrics_port, model))
    write_certificate(out, made.model_dump(mode="json"))
    typer.echo(out)


def sign(
    certificate: CertificatePath,
    key: Annotated[Path, typer.Option(help="The private key (PEM, Ed25519).")],
) -> None:
    """Sign a certificate in place; the signer vouches for counts that came from traffic."""
    from skipserve.certification.certificate_file import seal, write_certificate
    from skipserve.certification.certificate_reading import read_certificate
    from skipserve.certification.signing import signed
    from skipserve.errors import ConfigError

    made, values = read_certificate(certificate)
    if seal(values) != made.sha256:
        raise ConfigError(
            f"{certificate} was changed after it was written and is not signed; write it again "
            "with `skipserve attest`"
        )
    write_certificate(certificate, signed(values, key))
    typer.echo(certificate)


def served_file(slices: Sequence[EarnedRecord]) -> CertificateFile:
    """The certificates of a model, offline and earned, for the files that it serves with.

    Args:
        slices: Of its traffic, at least one.
    """
    from skipserve.certification.attesting import certificate_file
    from skipserve.certification.from_traffic import earned_bound

    whole = slices[0]
    artifact, kind = whole.artifact, whole.kind
    read = [(earned, earned.read()) for earned in slices]
    bounds = [
        earned_bound(
            earned.rules,
            earned.events,
            risk,
            place,
            found.rows,
            candidates=artifact.certificates.candidates,
            guard_limit=earned.spec.guard_limit,
            confidence=earned.spec.confidence,
            of_slice=artifact.manifest.slices.named(earned.of_slice),
        )
        for earned, found in read
        for risk, place in found.places.items()
        if place is not None
    ]
    return certificate_file(
        artifact,
        bounds,
        files=artifact.hashes(FORMATS[kind.backend], kind.precision),
        precision=kind.precision,
        provider=kind.provider,
        withdrawn=any(found.withdrawn for _, found in read),
    )


def _served(metrics_port: int, model: str) -> list[EarnedRecord]:
    """What a service has earned for a model; if none serves it, the error names its files."""
    from skipserve.artifacts.named import find_model
    from skipserve.commands.certificate import find_earned
    from skipserve.errors import ConfigError, LaunchError

    try:
        return find_earned(metrics_port, model)
    except (ConfigError, LaunchError) as error:
        try:
            files = find_model(model)
        except ConfigError:
            raise error from None
        raise type(error)(f"{error}; or did you mean {str(files)!r}?") from None
