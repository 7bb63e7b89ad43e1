"""Faults of a certificate, each with a sentence and an exit status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from skipserve.errors import SkipserveError


class Fault(IntEnum):
    """A kind of fault; its value is the exit status of `skipserve verify`."""

    SCHEMA = 10
    VERSION = 11
    SEAL = 12
    FILES = 13
    ORDER = 14
    NUMBER = 15
    COUNTS = 16
    SIGNATURE = 17


@dataclass(frozen=True)
class Finding:
    """One fault that was found.

    Attributes:
        fault: Its kind.
        sentence: What was found, and what it means.
    """

    fault: Fault
    sentence: str


class NotCertified(SkipserveError):
    """The file is not a certificate that this version can check."""

    def __init__(self, fault: Fault, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault
