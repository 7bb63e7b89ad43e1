"""The command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from skipserve import reports, router_cli
from skipserve.errors import ConfigError, LaunchError, SkipserveError
from skipserve.loadtest.command import loadtest

if TYPE_CHECKING:
    from skipserve.artifacts.certificates import Certificates
    from skipserve.serving.launcher import Server
    from skipserve.serving.logs import Log
    from skipserve.training.loop import Epoch

app = typer.Typer(
    help="Serve a residual network only as deep as each input needs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(router_cli.app, name="router")
console = Console(stderr=True, highlight=False)
logger = logging.getLogger("skipserve.cli")

BuildPath = Annotated[Path, typer.Argument(help="A build file, export/NAME.toml.")]
BuildPaths = Annotated[list[Path], typer.Argument(help="Build files, export/NAME.toml.")]


@app.command()
def build(paths: BuildPaths) -> None:
    """Train, export and package models, redoing only what changed."""
    from skipserve.build import run_steps
    from skipserve.buildfile import read_build_file

    for build_file in [read_build_file(path) for path in paths]:
        with _progress(build_file.training.epochs) as on_epoch:
            run_steps(build_file, on_epoch, console.print)


@app.command()
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

    A later `skipserve build` trains again unless the build file says the same.
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
    with _progress(build_file.training.epochs) as on_epoch:
        train_checkpoint(build_file, directory, on_epoch)
    typer.echo(directory)


@app.command()
def export(path: BuildPath) -> None:
    """Export a trained checkpoint to a checked artifact."""
    from skipserve.build import export as export_checkpoint
    from skipserve.buildfile import read_build_file

    build_file = read_build_file(path)
    export_checkpoint(build_file)
    typer.echo(build_file.artifact)


@app.command()
def calibrate(path: BuildPath) -> None:
    """Propose thresholds for an artifact's router and certify them on its files."""
    from skipserve.artifacts.certificates import read_certificates
    from skipserve.build import calibrate as calibrate_artifact
    from skipserve.buildfile import read_build_file

    build_file = read_build_file(path)
    calibrate_artifact(build_file, console.print)
    _print_certificates(read_certificates(build_file.artifact))


@app.command()
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


@app.command()
def package(path: BuildPath) -> None:
    """Package an artifact into model_store/NAME.mar."""
    from skipserve.build import make_archive
    from skipserve.buildfile import read_build_file

    typer.echo(make_archive(read_build_file(path)))


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Checkpoint directories.")],
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("training.png"),
) -> None:
    """Draw gradient norms by layer and losses of several runs."""
    from skipserve.plots import plot_runs

    plot_runs(runs, out)
    typer.echo(out)


app.command()(reports.inspect)
app.command()(reports.report)


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Names in the model store; all by default.")
    ] = None,
    model_store: Annotated[Path, typer.Option(help="Folder of .mar files.")] = Path("model_store"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SKIPSERVE_PORT", min=1, max=65533)] = 8080,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", min=1, max=65535)
    ] = 9464,
    backend: Annotated[str | None, typer.Option(help="onnxruntime or torchscript.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or fp16.")] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores per operation; 0 is all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes per model.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most requests in a batch.")] = None,
    max_batch_delay_ms: Annotated[
        int | None, typer.Option(help="Wait for a batch to fill; a lone client waits it too.")
    ] = None,
    access_log: Annotated[
        float | None, typer.Option(help="Share of the requests that leave a line in the log.")
    ] = None,
    log_format: Annotated[
        str, typer.Option(envvar="SKIPSERVE_LOG_FORMAT", help="text or json.")
    ] = "text",
    ready_timeout: Annotated[float, typer.Option(min=1, help="Seconds until ready.")] = 120.0,
) -> None:
    """Serve archives over HTTP until SIGTERM or Ctrl-C; options override each model's TOML."""
    from skipserve.serving.address import Address
    from skipserve.serving.launcher import Server, stop_on_signals
    from skipserve.serving.logs import Log

    log = Log(log_format)
    log.attach()
    asked: dict[str, Any] = {
        "backend": backend,
        "precision": precision,
        "provider": provider,
        "threads": threads,
        "workers": workers,
        "batch_size": batch_size,
        "max_batch_delay_ms": max_batch_delay_ms,
        "access_log": access_log,
    }
    overrides = {key: value for key, value in asked.items() if value is not None}
    address = Address(host, port, metrics_port)
    with _errors_to(log), stop_on_signals() as stop:
        archives = _archives(model_store, models or [])
        try:
            server = Server(archives, address, overrides, ready_timeout, stop, log)
        except LaunchError:
            if stop.is_set():
                return
            raise
        with server:
            _announce(server, host, metrics_port, log)
            server.wait(stop)


@app.command()
def top(
    url: Annotated[
        str | None, typer.Argument(help="Metrics port of a service; default: this machine's.")
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", min=1, max=65535)
    ] = 9464,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    only_once: Annotated[
        bool, typer.Option("--once", help="Print one frame; for scripts.")
    ] = False,
) -> None:
    """Watch a running service: latency, skip rate, agreement; Ctrl-C ends."""
    from skipserve.watching.screen import once, watch

    with suppress(KeyboardInterrupt):
        draw = once if only_once else watch
        draw(url or f"http://127.0.0.1:{metrics_port}", interval, Console(highlight=False))


app.command()(loadtest)


@contextmanager
def _errors_to(log: Log) -> Iterator[None]:
    try:
        yield
    except SkipserveError as error:
        if log.format == "text":
            raise
        logger.error("%s", error)
        raise typer.Exit(2) from None


def _announce(server: Server, host: str, metrics_port: int, log: Log) -> None:
    if log.format == "json":
        names = ", ".join(manifest.name for manifest in server.manifests)
        logger.info("ready: serving %s at %s", names, server.url(server.manifests[0]))
        return
    for manifest in server.manifests:
        console.print(f"serving {manifest.name} at {server.url(manifest)}")
    console.print(f"metrics at http://{host}:{metrics_port}/metrics; try:\n")
    console.print(server.curl(), soft_wrap=True)
    console.print("\nready; Ctrl-C stops")


def _print_certificates(made: Certificates) -> None:
    for one in made.certificates:
        typer.echo(
            f"{one.measure.replace('_', ' ')} {one.risk:g}: certified at {one.confidence:.0%} for "
            f"{one.precision} on {one.provider}; {one.disagreements} of {one.samples} disagree, "
            f"{one.run_rate:.1%} of the blocks run"
        )
    for no in made.refusals:
        typer.echo(f"{no.measure.replace('_', ' ')} {no.risk:g}: not certified; {no.reason}")


def _archives(model_store: Path, names: list[str]) -> list[Path]:
    found = {file.stem: file for file in sorted(model_store.glob("*.mar"))}
    if not found:
        raise ConfigError(f"{model_store} holds no .mar; make one with `skipserve build`")
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError(
            f"{model_store} holds no {missing[0]}.mar, only {', '.join(found)}; "
            f"make it with `skipserve build export/{missing[0]}.toml`"
        )
    return [found[name] for name in names] if names else list(found.values())


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=epochs, visible=False)

        def on_epoch(epoch: Epoch) -> None:
            progress.update(
                task,
                completed=epoch.epoch,
                visible=True,
                description=f"loss {epoch.loss:.4f}, test accuracy {epoch.accuracy:.1%}",
            )

        yield on_epoch


def main() -> None:
    """Run the command line; expected errors are one line and exit status 2."""
    # Rich measures the terminal; a pipe gets whole lines.
    os.environ.setdefault("COLUMNS", "100") if not sys.stderr.isatty() else None
    try:
        app()
    except SkipserveError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
