"""From build file to archive: build, train, export, calibrate, certify, package, plot."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipserve.commands import console
from skipserve.commands.progress import watching

if TYPE_CHECKING:
    from skipserve.artifacts.certificates import Certificates

BuildPath = Annotated[Path, typer.Argument(help="A build file, export/NAME.toml.")]
BuildPaths = Annotated[list[Path], typer.Argument(help="Build files, export/NAME.toml.")]


def build(paths: BuildPaths) -> None:
    """Train, export and package models, redoing only what changed."""
    with watching() as watch:  # the imports take seconds already
        from skipserve.building.buildfile import read_build_file
        from skipserve.building.steps import run_steps

        for build_file in [read_build_file(path) for path in paths]:
            run_steps(build_file, watch.epoch, watch.say, watch.progress)


def train(
    path: BuildPath,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and order.")] = None,
    no_clip: Annotated[
        bool, typer.Option("--no-clip", help="The seed's recipe as written, which diverges.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Default: checkpoints/NAME.")] = None,
) -> None:
    """Train a network; leaves the checkpoint, its curves and their figure.

    A later `skipserve build` makes the checkpoint again, of the weights in export/weights/ or by
    training, unless its own last one was the same.
    """
    from skipserve.building.buildfile import read_build_file
    from skipserve.building.products import train as train_checkpoint

    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "clip_norm": 0.0 if no_clip else None,
    }
    overrides = {key: value for key, value in asked.items() if value is not None}
    build_file = read_build_file(path, overrides)
    directory = out or build_file.checkpoint
    with watching() as watch:
        train_checkpoint(build_file, directory, watch.epoch, watch.progress)
    typer.echo(directory)


def export(path: BuildPath) -> None:
    """Export a trained checkpoint to a checked artifact."""
    from skipserve.building.buildfile import read_build_file
    from skipserve.building.products import export as export_checkpoint

    build_file = read_build_file(path)
    with watching(f"{build_file.name}: export"):
        export_checkpoint(build_file)
    typer.echo(build_file.artifact)


def calibrate(path: BuildPath) -> None:
    """Propose thresholds for an artifact's router and certify them on its files."""
    from skipserve.artifacts.certificates import read_certificates
    from skipserve.building.buildfile import read_build_file
    from skipserve.building.products import calibrate as calibrate_artifact

    build_file = read_build_file(path)
    with watching(f"{build_file.name}: calibrate") as watch:
        calibrate_artifact(build_file, watch.say)
    confidence = build_file.router.confidence if build_file.router else 0.0
    _print_certificates(read_certificates(build_file.artifact), confidence)


def certify(
    model: Annotated[
        Path, typer.Argument(help="An artifact directory, or an archive, model_store/NAME.mar.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="A file of rows; default: the certify split of its recipe."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Column of classes, or a .npy file: certifies accuracy lost too."),
    ] = None,
    risk: Annotated[
        list[float] | None, typer.Option(help="ε; may be repeated. Default: the model's own.")
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="1 − δ. Default: the model's own; with less it is not served."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="onnxruntime or torchscript.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16 or int8.")] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int, typer.Option(help="Cores to use; 0 is all.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that run together.")] = 64,
) -> None:
    """Certify a model's router where it will serve, on samples nothing else has touched.

    The file of an archive is the one that it serves with, unless options say otherwise.
    """
    from skipserve.artifacts.artifact import open_artifact
    from skipserve.artifacts.recertified import unpacked
    from skipserve.artifacts.serving import ServingConfig
    from skipserve.certification.calibrate import certify_artifact
    from skipserve.samples import read_samples
    from skipserve.schema import parse
    from skipserve.sources.data import values_of

    given = {"backend": backend, "precision": precision, "provider": provider, "threads": threads}
    asked = {key: value for key, value in given.items() if value is not None}
    with ExitStack() as stack:
        if model.suffix == ".mar":
            artifact, settings = stack.enter_context(unpacked(model, asked))
        else:
            artifact, settings = open_artifact(model), parse(ServingConfig, asked, "certify")
        samples = read_samples(data, labels, artifact.manifest, _say, values_of(artifact))
        made = certify_artifact(
            artifact.directory,
            samples.rows.tensors,
            risk,
            confidence,
            labels=samples.labels,
            backend=settings.backend,
            precision=settings.precision,
            provider=settings.provider,
            cores=settings.threads,
            batch_size=batch_size,
            say=_say,
        )
    spec = artifact.manifest.router
    assert spec is not None  # or it would not have been certified
    _print_certificates(made, spec.confidence)
    name = artifact.manifest.name
    if model.suffix == ".mar":
        _say(
            f"written into {model}; a running service opens it at `skipserve reload`. A build "
            f"makes the archive again from artifacts/{name}, where these are not"
        )
    else:
        _say(
            f"written into {model}, not served yet: `skipserve build export/{name}.toml` puts "
            "them into the archive; then `skipserve reload`"
        )


def package(path: BuildPath) -> None:
    """Package an artifact into model_store/NAME.mar."""
    from skipserve.building.buildfile import read_build_file
    from skipserve.building.products import make_archive

    typer.echo(make_archive(read_build_file(path)))


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Checkpoint directories.")],
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("training.png"),
) -> None:
    """Draw gradient norms by layer and losses of several runs."""
    from skipserve.plots import plot_runs

    plot_runs(runs, out)
    typer.echo(out)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _print_certificates(made: Certificates, confidence: float) -> None:
    for one in made.certificates:
        weak = "" if one.confidence >= confidence else f"; not served: below {confidence:g}"
        typer.echo(
            f"{one.measure.replace('_', ' ')} {one.risk:g}: certified at {one.confidence:.3g} for "
            f"{one.precision} on {one.provider}; {one.disagreements} of {one.samples} disagree, "
            f"{one.run_rate:.1%} of the blocks run{weak}"
        )
    for no in made.refusals:
        typer.echo(f"{no.measure.replace('_', ' ')} {no.risk:g}: not certified; {no.reason}")
