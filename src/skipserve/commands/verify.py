"""Certificates that others can check: write one, sign one, check one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipserve.commands import console

if TYPE_CHECKING:
    from skipserve.artifacts.artifact import Artifact
    from skipserve.certification.certificate_file import CertificateFile
    from skipserve.safety.earned import Earned

File = Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="A certificate, a JSON file.")]


def _print_schema(asked: bool) -> None:
    from skipserve.certification.certificate_file import json_schema

    if asked:
        typer.echo(json_schema(), nl=False)
        raise typer.Exit


def verify(
    certificate: File,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="An artifact directory, or an archive, model_store/NAME.mar."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The rows it was certified on: runs the files and counts anew."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Column of classes, or a .npy file: for accuracy lost.")
    ] = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            is_eager=True,
            callback=_print_schema,
            help="Print the JSON Schema of certificates and end.",
        ),
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="Public key, PEM, of whoever shall have signed it.")
    ] = None,
) -> None:
    """Check a certificate: every number that follows from others is computed anew.

    Exit status 0: it holds. 10: not as the schema says. 11: of another version. 12: changed after
    it was written. 13: of other files. 14: the order of candidates or epochs is broken. 15: a
    number does not follow. 16: the files count otherwise. 17: the signature. 2: something cannot be
    read or run. Without --key accidents are detected, and no forgery.
    """
    from skipserve.certification.certificate_reading import read_certificate
    from skipserve.certification.findings import NotCertified
    from skipserve.certification.recount import check_counts
    from skipserve.certification.signing import check_signature
    from skipserve.certification.verification import check_certificate
    from skipserve.samples import read_samples

    try:
        made, values = read_certificate(certificate)
    except NotCertified as error:
        console.print(f"not verified: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(int(error.fault)) from None
    with tempfile.TemporaryDirectory(prefix="skipserve-verify.") as scratch:
        artifact = _opened(model, Path(scratch))
        found = []
        if key is not None:
            found += [one for one in [check_signature(made, values, key)] if one]
        found += check_certificate(made, values, artifact)
        if data is not None and not found:
            samples = read_samples(data, labels, artifact.manifest, _say)
            found += check_counts(made, artifact, samples.rows.tensors, samples.labels, _say)
    for fault in dict.fromkeys(one.fault for one in found):
        first, *more = [one.sentence for one in found if one.fault == fault]
        also = f" (and {len(more)} more such)" if more else ""
        console.print(f"not verified: {first}{also}", markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(int(found[0].fault))
    _print_verified(made, data is not None, labels is not None, key)


def attest(
    model: Annotated[
        str,
        typer.Argument(
            help="An artifact directory, an archive, or the name of a model that is being served."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The certificate.")] = Path("certificate.json"),
    precision: Annotated[
        str | None, typer.Option(help="Of the files, where several are certified.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="The same: cpu or cuda.")] = None,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", help="Of the running service.")
    ] = 9464,
) -> None:
    """Write all that is certified of a model as one file, which `skipserve verify` checks.

    Of a model that is being served, what its traffic has earned is in it too.
    """
    from skipserve.certification.attesting import artifact_file
    from skipserve.certification.certificate_file import write_certificate
    from skipserve.commands.certificate import find_earned

    if Path(model).is_dir() or model.endswith(".mar"):
        with tempfile.TemporaryDirectory(prefix="skipserve-attest.") as scratch:
            artifact = _opened(Path(model), Path(scratch))
            made = artifact_file(artifact, precision, provider)
    else:
        made = served_file(find_earned(metrics_port, model))
    write_certificate(out, made)
    typer.echo(out)


def sign(
    certificate: File,
    key: Annotated[Path, typer.Option(help="Private key, PEM, Ed25519.")],
) -> None:
    """Sign a certificate, in its place; whoever signs counts from traffic attests them."""
    from skipserve.certification.certificate_file import seal, write_certificate
    from skipserve.certification.certificate_reading import read_certificate
    from skipserve.certification.signing import signed
    from skipserve.errors import ConfigError

    made, values = read_certificate(certificate)
    if seal(values) != made.sha256:
        raise ConfigError(f"{certificate} was changed after it was written: it is not signed")
    write_certificate(certificate, signed(made, key))
    typer.echo(certificate)


def served_file(earned: Earned) -> CertificateFile:
    """What is certified of a model and what it has earned, for the files that it serves with."""
    from skipserve.certification.attesting import certificate_file
    from skipserve.certification.from_traffic import earned_bound
    from skipserve.runtime.runners import FORMATS

    found, artifact, kind = earned.read(), earned.artifact, earned.kind
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
        )
        for risk, place in found.places.items()
        if place is not None
    ]
    return certificate_file(
        artifact,
        bounds,
        files=artifact.hashes(FORMATS[kind.backend], kind.precision),
        precision=kind.precision,
        provider=kind.provider,
        withdrawn=found.withdrawn,
    )


def _opened(model: Path, scratch: Path) -> Artifact:
    from skipserve.artifacts import archive
    from skipserve.artifacts.archive_names import model_of
    from skipserve.artifacts.artifact import open_artifact

    if model.suffix != ".mar":
        return open_artifact(model)
    archive.verify(model, scratch)
    return open_artifact(scratch / model_of(model))


def _print_verified(
    made: CertificateFile, counted: bool, with_labels: bool, key: Path | None
) -> None:
    typer.echo(f"{made.model}: {len(made.files)} files in {made.precision} on {made.provider}")
    for bound in made.bounds:
        about = f"{bound.measure.replace('_', ' ')} at most {bound.risk:g}"
        about += f" with confidence {bound.confidence:g}: candidate {len(bound.candidates)}, "
        if bound.kind == "earned":
            last = bound.crossings[-1]
            about += (
                f"earned in epoch {bound.epoch}, {last.disagreements} of {last.rows:,} rows "
                "disagree; counts from traffic are attested by whoever wrote them, and cannot be "
                "computed anew"
            )
        else:
            tried = bound.tried[-1]
            about += f"{tried.disagreements} of {bound.samples:,} samples disagree; "
            done = counted and (with_labels or bound.measure == "disagreement")
            about += "counted anew" if done else "counts attested"
            if bound.measure == "accuracy_lost" and not done:
                about += ", and the p-value with them: it needs --data and --labels"
        typer.echo(about)
    typer.echo(
        "signed: nobody but the holder of the key wrote it"
        if key is not None
        else "no key was named: this detects accidents, and no forgery"
    )


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)
