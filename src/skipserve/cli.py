"""The command line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from skipserve import __version__
from skipserve.commands import console, lifecycle, models, reports, router
from skipserve.commands.attest import attest, sign
from skipserve.commands.bring import bring
from skipserve.commands.certificate import certificate
from skipserve.commands.examples import epilog_of
from skipserve.commands.exits import ExitCode, exit_codes
from skipserve.commands.failures import line_for
from skipserve.commands.loadtest import loadtest
from skipserve.commands.predict import predict
from skipserve.commands.serve import serve
from skipserve.commands.top import top
from skipserve.commands.verify import verify

NAME = "skipserve"
# What a person wants, and the commands for it.
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Bring a network": (bring,),
    "Build a model": (
        *(models.build, models.train, models.export, models.calibrate),
        *(models.package, models.plot),
    ),
    "Inspect a model": (reports.inspect, reports.report),
    "Serve a model": (
        *(serve, predict),
        *(lifecycle.reload, lifecycle.versions, lifecycle.rollback),
    ),
    "Watch a service": (top,),
    "Certify a model": (models.certify, certificate, attest, sign, verify),
    "Load test": (loadtest,),
}


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


app = typer.Typer(
    help="Serve a residual network only as deep as each input needs.",
    epilog=exit_codes(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Options of the command line as a whole."""


switches = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
for panel, commands in PANELS.items():
    for command in commands:
        name = command.__name__
        app.command(rich_help_panel=panel, epilog=epilog_of(name))(command)
    if top in commands:
        app.add_typer(
            switches,
            name="router",
            rich_help_panel=panel,
            help="Switch the router of a served model on or off, or show its state.",
        )
for command in (router.on, router.off, router.status):
    switches.command(epilog=epilog_of(f"router {command.__name__}"))(command)


def main() -> None:
    """Run the command line; an expected error is one line on stderr, and exit code 2."""
    # Rich measures the terminal; a pipe gets whole lines.
    os.environ.setdefault("COLUMNS", "100") if not sys.stderr.isatty() else None
    try:
        code = app(prog_name=NAME, standalone_mode=False)
    except typer.Abort:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        line = line_for(error)
        if line is None:
            traceback.print_exc()
            console.print("error: this is a fault of skipserve; please report it with the above")
            raise SystemExit(ExitCode.FAULT) from None
        if line:  # a bare `skipserve` has printed its help
            console.print(f"error: {line}", markup=False, soft_wrap=True)
        raise SystemExit(ExitCode.NO_RESULT) from None
    raise SystemExit(code or ExitCode.OK)


if __name__ == "__main__":
    main()
