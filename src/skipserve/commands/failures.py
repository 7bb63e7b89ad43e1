"""Errors that a user can mend, and the line that says how."""

from __future__ import annotations

import typer
from pydantic import ValidationError

from skipserve.errors import SkipserveError
from skipserve.extras import missing
from skipserve.files import machines_fault
from skipserve.schema import expected, shown


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
    _in_words(error)
    path = "skipserve" if context is None else context.command_path
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace("Value error, ", "")
    return text and f"{text}{'' if text.endswith('?') else '.'} See `{path} --help`"


def _in_words(error: typer.TyperException) -> None:
    """Put what pydantic says of an option's value in the words that errors of files have."""
    cause = error.__cause__
    if not isinstance(error, typer.BadParameter) or not isinstance(cause, ValidationError):
        return
    problem = cause.errors()[0]
    if problem["type"] == "value_error":  # of our own parsers
        return
    told = expected(problem)
    text = getattr(error.param, "help", None) or ""
    unit = next((one for one in ("Seconds", "Milliseconds") if text.startswith(one)), "")
    if told == "a number":
        told = f"{unit.lower() or told}, such as 30"
    error.message = f"{shown(problem['input'])}: expected {told}"
