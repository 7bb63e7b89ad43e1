"""From build file to archive: build, train, export, calibrate, certify, package, plot."""

from __future__ import annotations

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
        from skipserve.build import run_steps
        from skipserve.buildfile import read_build_file

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
    from skipserve.build import train as train_checkpoint
    from skipserve.buildfile import read_build_file

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
    from skipserve.build import export as export_checkpoint
    from skipserve.buildfile import read_build_file

    build_file = read_build_file(path)
    with watching(f"{build_file.name}: export"):
        export_checkpoint(build_file)
    typer.echo(build_file.artifact)


def calibrate(path: BuildPath) -> None:
    """Propose thresholds for an artifact's router and certify them on its files."""
    from skipserve.artifacts.certificates import read_certificates
    from skipserve.build import calibrate as calibrate_artifact
    from skipserve.buildfile import read_build_file

    build_file = read_build_file(path)
    with watching(f"{build_file.name}: calibrate") as watch:
        calibrate_artifact(build_file, watch.say)
    _print_certificates(read_certificates(build_file.artifact))


def certify(
    artifact: Annotated[Path, typer.Argument(help="An artifact directory.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Rows as .npy; default: the certify split of its recipe."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Classes as .npy, beside --data: certifies accuracy lost too."),
    ] = None,
    risk: Annotated[list[float] | None, typer.Option(help="ε; may be repeated.")] = None,
    confidence: Annotated[float, typer.Option(help="1 − δ.")] = 0.95,
    backend: Annotated[str, typer.Option(help="onnxruntime or torchscript.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="auto, fp32 or fp16.")] = "auto",
    provider: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Cores per operation; 0 is all.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that run together.")] = 64,
) -> None:
    """Certify an artifact's router where it will serve, on samples nothing else has touched."""
    from skipserve.artifacts.artifact import open_artifact
    from skipserve.calibrate import certify_artifact
    from skipserve.routing.config import RouterConfig
    from skipserve.samples import read_samples
    from skipserve.schema import parse
    from skipserve.serving.config import ServingConfig

    settings = {"backend": backend, "precision": precision, "provider": provider}
    checked = parse(ServingConfig, {**settings, "threads": threads}, "certify")
    recipe = open_artifact(artifact).manifest.recipe
    rows, classes = read_samples(data, labels, recipe)
    made = certify_artifact(
        artifact,
        rows,
        risk or RouterConfig().risks,
        confidence,
        labels=classes,
        backend=checked.backend,
        precision=checked.precision,
        provider=checked.provider,
        threads=checked.threads,
        batch_size=batch_size,
        say=console.print,
    )
    _print_certificates(made)


def package(path: BuildPath) -> None:
    """Package an artifact into model_store/NAME.mar."""
    from skipserve.build import make_archive
    from skipserve.buildfile import read_build_file

    typer.echo(make_archive(read_build_file(path)))


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Checkpoint directories.")],
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("training.png"),
) -> None:
    """Draw gradient norms by layer and losses of several runs."""
    from skipserve.plots import plot_runs

    plot_runs(runs, out)
    typer.echo(out)


def _print_certificates(made: Certificates) -> None:
    for one in made.certificates:
        typer.echo(
            f"{one.measure.replace('_', ' ')} {one.risk:g}: certified at {one.confidence:.0%} for "
            f"{one.precision} on {one.provider}; {one.disagreements} of {one.samples} disagree, "
            f"{one.run_rate:.1%} of the blocks run"
        )
    for no in made.refusals:
        typer.echo(f"{no.measure.replace('_', ' ')} {no.risk:g}: not certified; {no.reason}")
