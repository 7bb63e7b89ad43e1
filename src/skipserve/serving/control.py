"""Finding the instance that runs on this machine, and throwing the switches of its models.

An instance's directory can be entered by its own user alone, so that user alone may command it, and
nothing on the network can.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from skipserve.errors import ConfigError, LaunchError
from skipserve.files import replace_text
from skipserve.serving.standing import STATE_VARIABLE, give_order, lift_order
from skipserve.serving.switch import Switch, SwitchState

PREFIX = "skipserve."
INSTANCE = "instance.json"


class _Instance(msgspec.Struct):
    pid: int
    metrics_port: int
    # Of each model with a router, the file that keeps it off; of one without, none.
    orders: dict[str, str | None] = {}


@dataclass(frozen=True)
class RouterControl:
    """The router of a model that is being served.

    Attributes:
        model: Its name.
        switch: The file that workers and launcher look at.
        order: The file that keeps it off over restarts; ``None`` for a model without a router.
    """

    model: str
    switch: Path
    order: Path | None

    def state(self) -> SwitchState:
        """How the switch stands."""
        switch = Switch(self.switch)
        try:
            return switch.state()
        finally:
            switch.close()

    def stays_off(self) -> bool:
        """Whether it is off after a restart."""
        return self.order is not None and self.order.exists()

    def throw(self, state: SwitchState) -> SwitchState:
        """Throw the switch by hand, and return what it was; ``disabled`` outlives restarts.

        Raises:
            ConfigError: If the model has no router.
            LaunchError: If it was thrown, but a restart will undo that.
        """
        if self.order is None:
            raise ConfigError(f"{self.model} has no router: it always runs at full depth")
        switch = Switch(self.switch)
        try:
            with switch.held():
                before = switch.state()
                switch.throw(state)
                self._keep(self.order, state)
        finally:
            switch.close()
        return before

    def _keep(self, order: Path, state: SwitchState) -> None:
        try:
            (give_order if state == "disabled" else lift_order)(order)
        except OSError as error:
            raise LaunchError(
                f"{self.model} is {state} now, but a restart of the service will forget it: "
                f"{order} cannot be {'written' if state == 'disabled' else 'removed'} "
                f"({error.strerror}); serve with {STATE_VARIABLE} naming a folder that stays and "
                "can be written to"
            ) from None


def announce(directory: Path, metrics_port: int, orders: Mapping[str, Path | None]) -> None:
    """Say in an instance's directory whose it is.

    Args:
        directory: Of the instance.
        metrics_port: It can be found by.
        orders: Of each model with a router, the file that keeps it off; of one without, ``None``.
    """
    files = {model: None if order is None else str(order) for model, order in orders.items()}
    content = msgspec.json.encode(_Instance(os.getpid(), metrics_port, files))
    replace_text(directory / INSTANCE, content.decode())


def find_routers(metrics_port: int) -> dict[str, RouterControl]:
    """The routers of the instance on a port, by model; models without one are named, too.

    Raises:
        LaunchError: If this user runs no such instance here.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = _running(directory, metrics_port)
        if found is not None:
            return {
                model: RouterControl(
                    model, directory / "switches" / model, None if order is None else Path(order)
                )
                for model, order in sorted(found.orders.items())
            }
    raise LaunchError(
        f"no service of this user has its metrics on port {metrics_port} here; run this as the "
        "user who runs it, with the same TMPDIR, and --metrics-port if it has another port"
    )


def find_router(metrics_port: int, model: str) -> RouterControl:
    """The router of one model of the instance on a port.

    Raises:
        LaunchError: If this user runs no such instance here.
        ConfigError: If it has no such model.
    """
    routers = find_routers(metrics_port)
    if model not in routers:
        raise ConfigError(f"this service has no model {model!r}, only {', '.join(routers)}")
    return routers[model]


def _running(directory: Path, metrics_port: int) -> _Instance | None:
    # Anybody may make a directory of this name in /tmp and wait for another user's command.
    try:
        if directory.stat(follow_symlinks=False).st_uid != os.geteuid():
            return None
        found = msgspec.json.decode((directory / INSTANCE).read_bytes(), type=_Instance)
    except (OSError, msgspec.MsgspecError):
        return None
    alive = found.metrics_port == metrics_port and psutil.pid_exists(found.pid)
    return found if alive else None
