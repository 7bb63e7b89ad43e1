"""The command line."""

from __future__ import annotations

import os
import sys

import typer

from skipserve.commands import console, lifecycle, models, reports, router, service
from skipserve.commands.bring import bring
from skipserve.commands.certificate import certificate
from skipserve.commands.failures import line_for
from skipserve.commands.loadtest import loadtest
from skipserve.commands.predict import predict
from skipserve.commands.verify import attest, sign, verify

COMMANDS = (
    *(bring, predict),
    *(models.build, models.train, models.export, models.calibrate, models.certify),
    *(models.package, models.plot, reports.inspect, reports.report),
    *(service.serve, service.top, certificate, loadtest),
    *(lifecycle.versions, lifecycle.rollback, lifecycle.reload),
    *(attest, sign, verify),
)

app = typer.Typer(
    help="Serve a residual network only as deep as each input needs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(router.app, name="router")


def main() -> None:
    """Run the command line; expected errors are one line and exit status 2."""
    # Rich measures the terminal; a pipe gets whole lines.
    os.environ.setdefault("COLUMNS", "100") if not sys.stderr.isatty() else None
    try:
        app()
    except Exception as error:
        line = line_for(error)
        if line is None:
            raise
        console.print(f"error: {line}", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
