"""Finding the instance that runs on this machine, and throwing the switches of its models.

An instance's directory can be entered by its own user alone, so that user alone may command it, and
nothing on the network can.
"""

from __future__ import annotations

from pathlib import Path

from skipserve.errors import ConfigError, LaunchError
from skipserve.serving.directory import find, is_held
from skipserve.serving.switch import Switch, SwitchState


def find_switches(metrics_port: int) -> dict[str, Path]:
    """The switch files of the service on a port, by model.

    Raises:
        LaunchError: If this user runs no such service here.
    """
    directory = find(metrics_port)
    switches = directory / "switches" if directory else None
    if switches is None or not switches.is_dir():  # it is made before the service is ready
        raise LaunchError(
            f"no service of this user has its metrics on port {metrics_port} here; run this as the "
            "user who runs it, with the same TMPDIR, and --metrics-port if it has another port"
        )
    return {file.name: file for file in sorted(switches.iterdir())}


def throw(switches: dict[str, Path], model: str, state: SwitchState) -> SwitchState:
    """Throw a model's switch, and return what it was.

    Raises:
        ConfigError: If the service has no such model.
        LaunchError: If it ended meanwhile.
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
    if not is_held(switches[model].parent.parent):
        raise LaunchError(f"the service that served {model} has ended; nothing was switched")
    return before


def state_of(file: Path) -> SwitchState:
    """What a switch is now."""
    switch = Switch(file)
    try:
        return switch.state()
    finally:
        switch.close()
