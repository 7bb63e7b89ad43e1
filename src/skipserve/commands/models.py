"""From build file to archive: build, train, export, calibrate, certify, package, plot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipserve.artifacts.asked import AskedPrecision, AskedProvider, BackendName
from skipserve.commands import completion, console
from skipserve.commands.exits import ExitCode
from skipserve.commands.output import print_json
from skipserve.commands.parameters import (
    ROWS,
    BatchSize,
    BuildPath,
    Json,
    Packed,
    Queries,
    Texts,
    Threads,
    parse_confidence,
    parse_risk,
    positive,
)
from skipserve.commands.progress import watching
from skipserve.intervals import spelled

if TYPE_CHECKING:
    from skipserve.artifacts.certificates import Certificates


def build(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUILD_FILE",
            help="Build files, export/NAME.toml.",
            autocompletion=completion.build_files,
        ),
    ],
) -> None:
    """Train or import models, export, certify and package them; only what changed is redone."""
    with watching() as watch:
        from skipserve.building.buildfile import read_build_file

        build_files = [read_build_file(path) for path in paths]
        from skipserve.building.steps import run_steps  # takes seconds

        for build_file in build_files:
            run_steps(build_file, watch.epoch, watch.say, watch.progress)


def train(
    path: BuildPath,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Passes over the training data.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a training step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(callback=positive, help="The learning rate.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed of weights and row order.")
    ] = None,
    no_clip: Annotated[
        bool,
        typer.Option("--no-clip", help="Do not clip gradients; deep plain networks diverge then."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The checkpoint folder. Default: checkpoints/NAME.")
    ] = None,
) -> None:
    """Train a network, and keep its checkpoint, its curves and their figure.

    A later `skipserve build` makes the checkpoint again from export/weights/ or by training,
    unless its own last one was the same.
    """
    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "clip_norm": 0.0 if no_clip else None,
    }
    overrides = {key: value for key, value in asked.items() if value is not None}
    with watching() as watch:
        from skipserve.building.buildfile import read_build_file

        build_file = read_build_file(path, overrides)
        from skipserve.building.products import train as train_checkpoint

        directory = out or build_file.checkpoint
        train_checkpoint(build_file, directory, watch.epoch, watch.progress)
    typer.echo(directory)


def export(path: BuildPath) -> None:
    """Export a trained checkpoint to an artifact, and compare the files with the network."""
    with watching() as watch:
        from skipserve.building.buildfile import read_build_file

        build_file = read_build_file(path)
        watch.progress(f"{build_file.name}: export", None)
        from skipserve.building.products import export as export_checkpoint

        export_checkpoint(build_file)
    typer.echo(build_file.artifact)


def calibrate(path: BuildPath, json: Json = False) -> None:
    """Propose thresholds for the router of an artifact, and certify them on its files."""
    with watching() as watch:
        from skipserve.building.buildfile import read_build_file

        build_file = read_build_file(path)
        watch.progress(f"{build_file.name}: calibrate", None)
        from skipserve.artifacts.certificates_file import read_certificates
        from skipserve.building.products import calibrate as calibrate_artifact

        calibrate_artifact(build_file, watch.say, None, watch.progress)
    confidence = build_file.router.confidence if build_file.router else 0.0
    _end_with(build_file.name, read_certificates(build_file.artifact), confidence, json)


def certify(
    model: Packed,
    data: Annotated[
        Path | None,
        typer.Option(help=f"Rows of inputs: {ROWS}. Default: the certify split of its recipe."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="The column of true classes, or a .npy file; certifies accuracy lost too."
        ),
    ] = None,
    text: Texts = None,
    query: Queries = None,
    risk: Annotated[
        list[float] | None,
        typer.Option(
            parser=parse_risk,
            metavar="RISK",
            help="A risk to certify; repeat for more. Default: the risks of the model.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            parser=parse_confidence,
            metavar="CONFIDENCE",
            help="The confidence of each certificate. Default: the model's; less is not served.",
        ),
    ] = None,
    backend: Annotated[BackendName | None, typer.Option(help="What runs the files.")] = None,
    precision: Annotated[
        AskedPrecision | None,
        typer.Option(help="The precision of the files."),
    ] = None,
    provider: Annotated[AskedProvider | None, typer.Option(help="Where the files run.")] = None,
    threads: Threads = 0,
    batch_size: BatchSize = 64,
    json: Json = False,
) -> None:
    """Certify a router where it will serve, on samples nothing else has touched.

    An archive is certified on the file that it serves with, unless options say otherwise.
    """
    given = {"backend": backend, "precision": precision, "provider": provider, "threads": threads}
    asked = {key: value for key, value in given.items() if value is not None}
    with ExitStack() as stack:
        watch = stack.enter_context(watching(f"{model}: opening"))
        from skipserve.artifacts.named import find_model
        from skipserve.samples import check_named

        files = find_model(model)
        check_named(data, labels, text or (), query)  # before what takes seconds to import
        from skipserve.artifacts.artifact import open_artifact
        from skipserve.artifacts.recertified import unpacked
        from skipserve.artifacts.serving import ServingConfig
        from skipserve.certification.certifying import certify_artifact
        from skipserve.samples import read_samples
        from skipserve.schema import parse
        from skipserve.sources.values import values_of

        if files.suffix == ".mar":
            artifact, settings = stack.enter_context(unpacked(files, asked))
        else:
            artifact, settings = open_artifact(files), parse(ServingConfig, asked, "certify")
        name = artifact.manifest.name
        watch.progress(f"{name}: reading rows", None)
        values = values_of(artifact, text or ())
        samples = read_samples(data, labels, artifact, watch.say, values, query)
        watch.progress(f"{name}: testing candidates", None)
        made = certify_artifact(
            artifact.directory,
            samples.rows.tensors,
            risk,
            confidence,
            labels=samples.labels,
            queries=samples.queries,
            backend=settings.backend,
            precision=settings.precision,
            provider=settings.provider,
            cores=settings.threads,
            batch_size=batch_size,
            say=watch.say,
            on_progress=watch.progress,
        )
    spec = artifact.manifest.router
    assert spec is not None  # or it would not have been certified
    if files.suffix == ".mar":
        next_step = (
            f"written into {files}; a running service opens it at `skipserve reload`. A build "
            f"makes the archive again from artifacts/{name}, where these are not"
        )
    else:
        next_step = (
            f"written into {files}, not served yet: `skipserve build export/{name}.toml` puts "
            "them into the archive; then `skipserve reload`"
        )
    console.print(next_step, soft_wrap=True, markup=False)
    _end_with(name, made, spec.confidence, json, risk or ())


def package(path: BuildPath) -> None:
    """Package an artifact as an archive, model_store/NAME.mar."""
    from skipserve.building.buildfile import read_build_file

    build_file = read_build_file(path)
    with watching(f"{build_file.name}: package"):
        from skipserve.building.products import make_archive

        archive = make_archive(build_file)
    typer.echo(archive)


def plot(
    runs: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT", help="Checkpoint directories.")
    ],
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("training.png"),
) -> None:
    """Draw the gradient norms by layer and the losses of several training runs."""
    from skipserve.plots import plot_runs

    plot_runs(runs, out)
    typer.echo(out)


def _end_with(
    model: str, made: Certificates, confidence: float, json: bool, asked: Sequence[float] = ()
) -> None:
    if json:
        print_json(_values(model, made, confidence))
    else:
        _print_certificates(made, confidence)
    refused = {one.risk for one in made.refusals}
    if refused and (not made.certificates or refused & set(asked)):
        raise typer.Exit(ExitCode.FAILED)


def _print_certificates(made: Certificates, confidence: float) -> None:
    from skipserve.tasks import too_short_note

    for one in made.certificates:
        weak = "" if one.confidence >= confidence else f"; not served: below {spelled(confidence)}"
        typer.echo(
            f"{one.measure.replace('_', ' ')} {spelled(one.risk)}: certified at "
            f"{spelled(one.confidence)} for {one.precision} on {one.provider}; "
            f"{one.disagreements} of {one.samples} disagree{too_short_note(one.too_short)}, "
            f"{one.run_rate:.1%} of the blocks run{weak}"
        )
    for no in made.refusals:
        typer.echo(f"{no.measure.replace('_', ' ')} {spelled(no.risk)}: not certified; {no.reason}")


def _values(model: str, made: Certificates, confidence: float) -> dict[str, Any]:
    kept = (
        *("measure", "risk", "confidence", "precision", "provider", "samples", "too_short"),
        *("disagreements", "run_rate", "held_back", "p_value"),
    )
    return {
        "model": model,
        "certified": [
            {
                **{key: getattr(one, key) for key in kept},
                "served": one.confidence >= confidence,
            }
            for one in made.certificates
        ],
        "refused": [
            {"measure": one.measure, "risk": one.risk, "reason": one.reason}
            for one in made.refusals
        ],
    }
