"""The exit codes of the command line, the same for every command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; `skipserve verify` adds 10 to 17, one for each kind of finding."""

    OK = 0
    FAILED = 1
    NO_RESULT = 2
    FAULT = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells count


MEANINGS = {
    "0": "The command did what was asked.",
    "1": "A verdict is no: FAIL, nothing certified, or a `--risk` refused.",
    "2": "There is no result: wrong usage or input, or this machine cannot do it.",
    "10–17": "A certificate does not hold; `skipserve verify --help` lists the kinds.",
    "70": "A fault of skipserve; please report it with the traceback.",
    "130": "Ctrl-C ended the command.",
}


def exit_codes() -> str:
    """The table for the help, a line for each code."""
    lines = [f"  {code:<6} {meaning}" for code, meaning in MEANINGS.items()]
    return "\n".join(["Exit codes:", *lines])
