"""The command `skipserve serve`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skipserve.artifacts.asked import AskedPrecision, AskedProvider, BackendName
from skipserve.commands import completion
from skipserve.commands.announcing import announce, while_starting
from skipserve.commands.exits import ExitCode
from skipserve.commands.failures import line_for
from skipserve.commands.parameters import (
    HOST,
    METRICS_PORT,
    PORT,
    SERVICE,
    STORE,
    Host,
    MetricsPort,
    ModelStore,
    Port,
    finite,
    parse_risk,
    positive,
)
from skipserve.errors import ConfigError, LaunchError
from skipserve.hosts.client import BODY_S
from skipserve.hosts.config import KEYS_VARIABLE, ServerName, Tls

if TYPE_CHECKING:
    from skipserve.telemetry.logs import Log

logger = logging.getLogger("skipserve.cli")
RUN, CLIENTS, LIFE = "Running models", "Clients", "Start, end and logs"


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models of the model store; NAME@VERSION names one version. Default: all models. "
            "The first named version of a model answers for its name.",
            autocompletion=completion.archived_names,
        ),
    ] = None,
    model_store: ModelStore = STORE,
    host: Host = HOST,
    port: Port = PORT,
    metrics_port: MetricsPort = METRICS_PORT,
    server: Annotated[
        ServerName, typer.Option(help="The HTTP server.", rich_help_panel=SERVICE)
    ] = "granian",
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes that hold the models.", rich_help_panel=SERVICE
        ),
    ] = 1,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            help="The certificate chain (PEM) for https; needs --tls-key.", rich_help_panel=SERVICE
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(help="The private key (PEM) of the certificate.", rich_help_panel=SERVICE),
    ] = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="What runs the files.", rich_help_panel=RUN),
    ] = None,
    precision: Annotated[
        AskedPrecision | None,
        typer.Option(help="The precision of the files.", rich_help_panel=RUN),
    ] = None,
    provider: Annotated[
        AskedProvider | None,
        typer.Option(help="Where the files run.", rich_help_panel=RUN),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=0, help="CPU cores for each operation; 0 uses all.", rich_help_panel=RUN),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="The largest number of requests in a batch.", rich_help_panel=RUN
        ),
    ] = None,
    max_batch_delay_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10_000,
            callback=finite,
            help="Milliseconds that a batch waits for more requests, such as 0.3.",
            rich_help_panel=RUN,
        ),
    ] = None,
    join_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10_000,
            callback=finite,
            help="Milliseconds after which new requests may overtake the deep rows of a batch.",
            rich_help_panel=RUN,
        ),
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(
            max=86_400_000,
            callback=positive,
            help="Milliseconds: a request that would wait longer for a batch is refused at once.",
            rich_help_panel=RUN,
        ),
    ] = None,
    overload_risk: Annotated[
        float | None,
        typer.Option(
            parser=parse_risk,
            metavar="RISK",
            help="The largest certified risk to use while other requests wait.",
            rich_help_panel=RUN,
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A web origin whose pages may send requests; repeat for more, * allows all.",
            rich_help_panel=CLIENTS,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            envvar=KEYS_VARIABLE,
            help="The file of API keys, one a line; it is read again when it changes.",
            rich_help_panel=CLIENTS,
        ),
    ] = None,
    rate_limit: Annotated[
        float | None,
        typer.Option(
            callback=positive,
            help="Requests a second that each key may send.",
            rich_help_panel=CLIENTS,
        ),
    ] = None,
    body_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Seconds that the body of a request may take. Default: 30.",
            rich_help_panel=CLIENTS,
        ),
    ] = None,
    ready_timeout: Annotated[
        float,
        typer.Option(min=1, help="Seconds the start may take.", rich_help_panel=LIFE),
    ] = 120.0,
    drain_timeout: Annotated[
        float,
        typer.Option(
            min=1,
            help="Seconds that open requests get when the service ends.",
            rich_help_panel=LIFE,
        ),
    ] = 10.0,
    access_log: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="The share of requests that get a log line.",
            rich_help_panel=LIFE,
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(
            envvar="SKIPSERVE_LOG_FORMAT", help="The format of log lines.", rich_help_panel=LIFE
        ),
    ] = "text",
) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C.

    Options override the TOML of each model. SIGHUP, or `skipserve reload`, opens the archives as
    they are then.
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
    if server == "torchserve":
        _refuse_unheeded({**asked, "body_timeout": body_timeout})
    with _errors_to(log), listen_to_signals() as signals:
        config = HostConfig(
            Address(host, port, metrics_port),
            workers,
            _tls(tls_certificate, tls_key),
            tuple(allow_origin or ()),
            ready_timeout,
            drain_timeout,
            BODY_S if body_timeout is None else body_timeout,
            keys,
            rate_limit,
        )
        try:
            with while_starting(log):
                running = Server(
                    lambda: archives_in(model_store, models or []),
                    config,
                    server,
                    overrides,
                    signals.stop,
                    log,
                )
        except LaunchError:
            if signals.stop.is_set():
                return
            raise
        with running:
            announce(running, log)
            running.wait(signals.stop, signals.reload)


def _refuse_unheeded(asked: Mapping[str, Any]) -> None:
    """Refuse options that have no effect behind TorchServe."""
    for key in ("max_wait_ms", "overload_risk", "join_ms", "body_timeout"):
        if asked[key] is not None:
            raise ConfigError(
                f"--{key.replace('_', '-')} has no effect behind TorchServe; leave it out, or use "
                "--server granian"
            )


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
        raise typer.Exit(ExitCode.NO_RESULT) from None
