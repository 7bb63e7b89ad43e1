"""The PID of this process, cached, because prometheus_client reads it at every count."""

from __future__ import annotations

import os

from prometheus_client import values

_number = os.getpid()


def number() -> int:
    """The PID, without a system call."""
    return _number


def count_by_number() -> None:
    """Make new series use :func:`number`; no effect without multiprocess files."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        values.ValueClass = values.MultiProcessValue(number)  # type: ignore[no-untyped-call]


def _forked() -> None:
    global _number
    _number = os.getpid()


os.register_at_fork(after_in_child=_forked)
