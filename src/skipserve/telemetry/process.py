"""The number of this process, remembered: prometheus_client wants it at every count."""

from __future__ import annotations

import os

from prometheus_client import values

_number = os.getpid()


def number() -> int:
    """As ``os.getpid``, which asks the kernel each time: a tenth of what a busy worker did."""
    return _number


def count_by_number() -> None:
    """Let series that are made from now on ask here; without effect where no files are written."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        values.ValueClass = values.MultiProcessValue(number)  # type: ignore[no-untyped-call]


def _forked() -> None:
    global _number
    _number = os.getpid()


os.register_at_fork(after_in_child=_forked)
