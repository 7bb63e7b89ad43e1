"""Which errors are the user's to mend, and the line that says how."""

from __future__ import annotations

from skipserve.errors import SkipserveError
from skipserve.extras import missing
from skipserve.files import machines_fault


def line_for(error: Exception) -> str | None:
    """The line for an error that was to be expected; ``None`` for a fault of ours."""
    if isinstance(error, SkipserveError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing(error.name.partition(".")[0])
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and machines_fault(error):
        return error.strerror or str(error)
    return None
