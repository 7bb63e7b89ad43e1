"""Errors that a user can mend, and the line that says how."""

from __future__ import annotations

import typer

from skipserve.errors import SkipserveError
from skipserve.extras import missing
from skipserve.files import machines_fault


def line_for(error: Exception) -> str | None:
    """The line for an error that was to be expected; ``None`` for a fault of ours."""
    if isinstance(error, SkipserveError):
        return str(error)
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing(error.name.partition(".")[0])
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and machines_fault(error):
        return error.strerror or str(error)
    return None


def _usage(error: typer.TyperException) -> str:
    """The fault of a command line, and the help that explains it; empty for a bare group."""
    context = getattr(error, "ctx", None)
    path = "skipserve" if context is None else context.command_path
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace("Value error, ", "")
    return text and f"{text}{'' if text.endswith('?') else '.'} See `{path} --help`"
