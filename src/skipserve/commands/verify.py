"""`skipserve verify`: check a certificate that somebody wrote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from skipserve.commands import console
from skipserve.commands.output import print_json
from skipserve.commands.parameters import ROWS, CertificatePath, Json, Packed, Queries, Texts
from skipserve.commands.progress import watching
from skipserve.intervals import spelled

if TYPE_CHECKING:
    from skipserve.certification.certificate_file import CertificateFile, Offline
    from skipserve.certification.certificate_file import Earned as EarnedBound
    from skipserve.certification.findings import Finding
    from skipserve.tasks import Task


def _print_schema(asked: bool) -> None:
    from skipserve.certification.certificate_file import json_schema

    if asked:
        typer.echo(json_schema(), nl=False)
        raise typer.Exit


def verify(
    certificate: CertificatePath,
    model: Packed,
    data: Annotated[
        Path | None,
        typer.Option(
            help=f"The rows it was certified on, {ROWS}: runs the files on them and counts again."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="The column of true classes, or a .npy file; checks accuracy lost."),
    ] = None,
    text: Texts = None,
    query: Queries = None,
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
        Path | None, typer.Option(help="The public key (PEM) of the person who must have signed.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a certificate: every number that follows from others is computed again.

    Exit codes: 0 the certificate holds; 10 it does not follow the schema; 11 another version of
    the format; 12 changed after it was written; 13 of other files; 14 the order of candidates or
    epochs is broken; 15 a number does not follow from the others; 16 the files give other counts;
    17 the signature is wrong; 2 something cannot be read or run. Without --key the check detects
    accidents, not forgery.
    """
    from skipserve.artifacts.named import find_model, open_model
    from skipserve.certification.certificate_reading import read_certificate
    from skipserve.certification.findings import Finding, NotCertified
    from skipserve.certification.recount import check_counts
    from skipserve.certification.signing import check_signature
    from skipserve.certification.verification import check_certificate
    from skipserve.samples import check_named, read_samples
    from skipserve.sources.values import values_of

    files = find_model(model)
    check_named(data, labels, text or (), query)
    try:
        made, values = read_certificate(certificate)
    except NotCertified as error:
        _end_with([Finding(error.fault, str(error))], json)
    with (
        tempfile.TemporaryDirectory(prefix="skipserve-verify.") as scratch,
        watching(f"{made.model}: opening") as watch,
    ):
        artifact = open_model(files, Path(scratch))
        found = []
        if key is not None:
            found += [one for one in [check_signature(made, values, key)] if one]
        found += check_certificate(made, values, artifact)
        if data is not None and not found:
            watch.progress(f"{made.model}: running the files", None)
            prepared = values_of(artifact, text or ())
            samples = read_samples(data, labels, artifact, watch.say, prepared, query)
            rows, truth = samples.rows.tensors, samples.labels
            found += check_counts(made, artifact, rows, truth, watch.say, samples.queries)
    if found:
        _end_with(found, json)
    if json:
        print_json(_verified(made, data is not None, labels is not None, key))
    else:
        task = artifact.manifest.task
        _print_verified(made, task, data is not None, labels is not None, key)


def _end_with(found: Sequence[Finding], json: bool) -> NoReturn:
    """Say what is wrong, a line for each kind, and exit with the first kind's code."""
    if json:
        faults = [
            {"code": int(one.fault), "kind": one.fault.name.lower(), "message": one.sentence}
            for one in found
        ]
        print_json({"verified": False, "findings": faults})
    for fault in dict.fromkeys(one.fault for one in found):
        first, *more = [one.sentence for one in found if one.fault == fault]
        also = f" (and {len(more)} more such)" if more else ""
        console.print(f"not verified: {first}{also}", markup=False, soft_wrap=True)
    raise typer.Exit(int(found[0].fault))


def _recounted(bound: Offline | EarnedBound, recounted: bool, with_labels: bool) -> bool:
    """Whether the counts of a bound were counted again."""
    measured = with_labels or bound.measure == "disagreement"
    return bound.kind == "offline" and recounted and measured


def _verified(
    made: CertificateFile, recounted: bool, with_labels: bool, key: Path | None
) -> dict[str, Any]:
    return {
        "verified": True,
        "model": made.model,
        "precision": made.precision,
        "provider": made.provider,
        "signature_checked": key is not None,
        "bounds": [
            {
                "kind": bound.kind,
                "measure": bound.measure,
                "risk": bound.risk,
                "confidence": bound.confidence,
                "candidate": len(bound.candidates),
                "counted_again": _recounted(bound, recounted, with_labels),
            }
            for bound in made.bounds
        ],
    }


def _print_verified(
    made: CertificateFile, task: Task, recounted: bool, with_labels: bool, key: Path | None
) -> None:
    from skipserve.tasks import counted, too_short_note

    typer.echo(f"{made.model}: {len(made.files)} files in {made.precision} on {made.provider}")
    for bound in made.bounds:
        about = f"{bound.measure.replace('_', ' ')} at most {spelled(bound.risk)}"
        if bound.kind == "earned" and bound.slice:
            about = f"{bound.slice.parameter} {bound.slice.value}: {about}"
        about += (
            f" with confidence {spelled(bound.confidence)}: candidate {len(bound.candidates)}, "
        )
        if bound.kind == "earned":
            last = bound.crossings[-1]
            about += (
                f"earned in epoch {bound.epoch}, {last.disagreements} of {last.rows:,} rows "
                "disagree; counts from traffic are attested by whoever wrote them, and cannot be "
                "computed anew"
            )
        else:
            tried = bound.tried[-1]
            units = f"{counted(task)}{too_short_note(bound.too_short)}"
            about += f"{tried.disagreements} of {bound.samples:,} {units} disagree; "
            done = _recounted(bound, recounted, with_labels)
            about += "counted anew" if done else "counts attested"
            if bound.measure == "accuracy_lost" and not done:
                about += ", and the p-value with them: it needs --data and --labels"
        typer.echo(about)
    typer.echo(
        "signed: nobody but the holder of the key wrote it"
        if key is not None
        else "no key was named: this detects accidents, and no forgery"
    )
