"""Finding the instance that runs on this machine, and throwing the switches of its models.

An instance's directory can be entered by its own user alone, so that user alone may command it, and
nothing on the network can.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import psutil

from skipserve.errors import ConfigError, LaunchError
from skipserve.serving.switch import Switch, SwitchState

PREFIX = "skipserve."
INSTANCE = "instance.json"


class _Instance(msgspec.Struct):
    pid: int
    metrics_port: int


def announce(directory: Path, metrics_port: int) -> None:
    """Say in an instance's directory whose it is."""
    content = msgspec.json.encode(_Instance(os.getpid(), metrics_port))
    (directory / INSTANCE).write_bytes(content)


def find_switches(metrics_port: int) -> dict[str, Path]:
    """The switch files of the instance on a port, by model.

    Raises:
        LaunchError: If this user runs no such instance here.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _runs(directory, metrics_port):
            switches = directory / "switches"
            return {file.name: file for file in sorted(switches.iterdir())}
    raise LaunchError(
        f"no service of this user has its metrics on port {metrics_port} here; run this as the "
        "user who runs it, with the same TMPDIR, and --metrics-port if it has another port"
    )


def throw(switches: dict[str, Path], model: str, state: SwitchState) -> SwitchState:
    """Throw a model's switch, and return what it was.

    Raises:
        ConfigError: If the instance has no such model.
    """
    if model not in switches:
        raise ConfigError(f"this service has no model {model!r}, only {', '.join(switches)}")
    switch = Switch(switches[model])
    try:
        with switch.held():
            before = switch.state()
            switch.throw(state)
    finally:
        switch.close()
    return before


def state_of(file: Path) -> SwitchState:
    """What a switch is now."""
    switch = Switch(file)
    try:
        return switch.state()
    finally:
        switch.close()


def _runs(directory: Path, metrics_port: int) -> bool:
    # Anybody may make a directory of this name in /tmp and wait for another user's command.
    try:
        if directory.stat(follow_symlinks=False).st_uid != os.geteuid():
            return False
        found = msgspec.json.decode((directory / INSTANCE).read_bytes(), type=_Instance)
    except (OSError, msgspec.MsgspecError):
        return False
    return found.metrics_port == metrics_port and psutil.pid_exists(found.pid)
