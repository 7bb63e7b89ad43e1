"""A running service: serve, and top to watch it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console

from skipserve.commands import console
from skipserve.commands.failures import line_for
from skipserve.commands.progress import watching
from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.config import KEYS_VARIABLE, ServerName, Tls

if TYPE_CHECKING:
    from skipserve.hosts.launcher import Server
    from skipserve.telemetry.logs import Log

logger = logging.getLogger("skipserve.cli")


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names in the model store, all by default; NAME@VERSION for one of its versions. "
            "Of several versions of a model the first answers for its name."
        ),
    ] = None,
    model_store: Annotated[Path, typer.Option(help="Folder of .mar files.")] = Path("model_store"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; IPv6 with or without brackets.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SKIPSERVE_PORT", min=1, max=65533)] = 8080,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", min=1, max=65535)
    ] = 9464,
    backend: Annotated[str | None, typer.Option(help="onnxruntime or torchscript.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or fp16.")] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores per operation; 0 is all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most requests in a batch.")] = None,
    max_batch_delay_ms: Annotated[
        float | None, typer.Option(help="A batch's wait for more requests, such as 0.3.")
    ] = None,
    join_ms: Annotated[
        float | None,
        typer.Option(help="Requests overtake the deep rows of a batch so long after it begins."),
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(help="Who would wait longer for a batch is refused at once, such as 250."),
    ] = None,
    overload_risk: Annotated[
        float | None,
        typer.Option(help="Largest certified risk that requests may get while others wait."),
    ] = None,
    access_log: Annotated[
        float | None, typer.Option(help="Share of the requests that leave a line in the log.")
    ] = None,
    log_format: Annotated[
        str, typer.Option(envvar="SKIPSERVE_LOG_FORMAT", help="text or json.")
    ] = "text",
    ready_timeout: Annotated[float, typer.Option(min=1, help="Seconds until ready.")] = 120.0,
    server: Annotated[str, typer.Option(help="granian or torchserve.")] = "granian",
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that hold the models.")
    ] = 1,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Chain in PEM, for https; with --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key in PEM.")] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web page that may ask from a browser; * for all. Repeat for more."),
    ] = None,
    drain_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds for requests on their way when it ends.")
    ] = 10.0,
    body_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the body of a request may take.")
    ] = 30.0,
    keys: Annotated[
        Path | None,
        typer.Option(
            envvar=KEYS_VARIABLE,
            help="File of the keys that clients must show, one a line; read again when it changes.",
        ),
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests a second that each key may make.")
    ] = None,
) -> None:
    """Serve archives over HTTP until SIGTERM or Ctrl-C; options override each model's TOML.

    SIGHUP, or `skipserve reload`, has it open the archives that are there then.
    """
    from skipserve.address import Address
    from skipserve.artifacts.versions import archives_in
    from skipserve.hosts.config import HostConfig
    from skipserve.hosts.launcher import Server
    from skipserve.hosts.processes import listen_to_signals
    from skipserve.telemetry.logs import Log

    log = Log(log_format)
    log.attach()
    asked: dict[str, Any] = {
        "backend": backend,
        "precision": precision,
        "provider": provider,
        "threads": threads,
        "batch_size": batch_size,
        "max_batch_delay_ms": max_batch_delay_ms,
        "join_ms": join_ms,
        "max_wait_ms": max_wait_ms,
        "overload_risk": overload_risk,
        "access_log": access_log,
    }
    overrides = {key: value for key, value in asked.items() if value is not None}
    with _errors_to(log), listen_to_signals() as signals:
        config = HostConfig(
            Address(host, port, metrics_port),
            workers,
            _tls(tls_certificate, tls_key),
            tuple(allow_origin or ()),
            ready_timeout,
            drain_timeout,
            body_timeout,
            keys,
            rate_limit,
        )
        try:
            with _waiting(log):
                running = Server(
                    lambda: archives_in(model_store, models or []),
                    config,
                    _known(server),
                    overrides,
                    signals.stop,
                    log,
                )
        except LaunchError:
            if signals.stop.is_set():
                return
            raise
        with running:
            _announce(running, log)
            running.wait(signals.stop, signals.reload)


def top(
    url: Annotated[
        str | None, typer.Argument(help="Metrics port of a service; default: this machine's.")
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", min=1, max=65535)
    ] = 9464,
    host: Annotated[
        str, typer.Option(help="Address of the service, where no URL is named.")
    ] = "127.0.0.1",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    only_once: Annotated[
        bool, typer.Option("--once", help="Print one frame; for scripts.")
    ] = False,
) -> None:
    """Watch a running service: latency, skip rate, agreement; Ctrl-C ends."""
    from skipserve.address import url_of
    from skipserve.watching.screen import once, watch

    with suppress(KeyboardInterrupt):
        draw = once if only_once else watch
        draw(url or url_of(host, metrics_port), interval, Console(highlight=False))


def _known(server: str) -> ServerName:
    if server not in get_args(ServerName):
        raise ConfigError(f"--server {server!r}; expected {' or '.join(get_args(ServerName))}")
    return cast(ServerName, server)


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("https takes both --tls-certificate and --tls-key")
    return Tls(certificate, key)


@contextmanager
def _errors_to(log: Log) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        line = line_for(error)
        if line is None or log.format == "text":
            raise
        logger.error("%s", line)
        raise typer.Exit(2) from None


@contextmanager
def _waiting(log: Log) -> Iterator[None]:
    if log.format == "json" or console.is_terminal:  # a bar would mix with what the service says
        yield
        return
    with watching("serve: starting the models"):
        yield


def _announce(server: Server, log: Log) -> None:
    if log.format == "json":
        names = ", ".join(manifest.name for manifest in server.manifests)
        logger.info("ready: serving %s at %s", names, server.url(server.manifests[0]))
        return
    for manifest in server.manifests:
        console.print(f"serving {manifest.name} at {server.url(manifest)}", markup=False)
    console.print(f"metrics at {server.address.metrics_url}/metrics; try:\n", markup=False)
    console.print(server.curl(), markup=False, soft_wrap=True)
    console.print("\nready; Ctrl-C stops")
