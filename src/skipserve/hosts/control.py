"""Finding the instance that runs on this machine, and setting the switches of its models.

An instance's directory can be entered by its own user alone, so that user alone may command it, and
nothing on the network can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skipserve.artifacts.manifest import Manifest
from skipserve.errors import ConfigError, LaunchError, listed
from skipserve.files import replace_text
from skipserve.hosts.directory import is_held, no_service, require
from skipserve.safety.standing import (
    STATE_VARIABLE,
    StandingOrderWatch,
    give_order,
    is_given,
    lift_order,
    standing_order,
)
from skipserve.safety.switch import ControlState, Switch, SwitchState

ROUTERS = "routers.json"
# Of each model with a router, the file that keeps it off; of one without, none.
Orders = dict[str, str | None]


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
        """The state of the switch."""
        switch = Switch(self.switch)
        try:
            return switch.state()
        finally:
            switch.close()

    def fell_back(self) -> Sequence[str]:
        """Names of the slices of its traffic for which the alarm was raised."""
        switch = Switch(self.switch)
        try:
            controls = switch.controls()
        finally:
            switch.close()
        return [of for of, one in controls.items() if of and one.state == "fell_back"]

    def stays_off(self) -> bool:
        """Whether the router stays off after a restart."""
        return self.order is not None and is_given(self.order)

    def set(self, state: SwitchState) -> SwitchState:
        """Set the switch by hand; returns its state before. ``disabled`` outlives restarts.

        Raises:
            ConfigError: If the model has no router.
            LaunchError: If a restart will undo the change, or if the service has ended.
        """
        if self.order is None:
            raise ConfigError(f"{self.model} has no router: it always runs at full depth")
        switch = Switch(self.switch)
        try:
            with switch.held():
                before = switch.state()
                switch.set(state)
                if not is_held(self.switch.parent.parent):
                    raise LaunchError(
                        f"the service that served {self.model} has ended; nothing was switched"
                    )
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


def announce(directory: Path, orders: Mapping[str, Path | None]) -> None:
    """Write to the directory of an instance which routers it has.

    Args:
        directory: Of the instance.
        orders: Of each model with a router, the file that keeps it off; of one without, ``None``.
    """
    files: Orders = {
        model: None if order is None else str(order) for model, order in orders.items()
    }
    replace_text(directory / ROUTERS, msgspec.json.encode(files).decode())


def open_switches(
    directory: Path, archives: Sequence[Path], manifests: Sequence[Manifest]
) -> tuple[list[Switch], dict[str, StandingOrderWatch | None]]:
    """Open the switch of each model; off where an operator switched it off before.

    Returns:
        The switches, and of each model with a router the watch over its standing order; of one
        without, ``None``.
    """
    watches: dict[str, StandingOrderWatch | None] = {}
    switches = []
    for archive, manifest in zip(archives, manifests, strict=True):
        model = manifest.name
        file = directory / "switches" / model
        fresh = not file.exists()
        switch = Switch(file)
        switches.append(switch)
        watches[model] = None
        if manifest.router is None:
            continue
        if fresh:
            # Nothing is in force until the monitor has looked, because the alarm may be recorded.
            switch.write(ControlState(switch.state(), in_force=()))
        watch = StandingOrderWatch(model, standing_order(archive, model), switch)
        watch.look()
        watches[model] = watch
    return switches, watches


def find_routers(metrics_port: int) -> dict[str, RouterControl]:
    """The routers of the instance on a port, by model; models without a router included.

    Raises:
        LaunchError: If this user runs no such instance here.
    """
    directory = require(metrics_port)
    try:
        orders = msgspec.json.decode((directory / ROUTERS).read_bytes(), type=Orders)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise no_service(metrics_port) from None
    return {
        model: RouterControl(
            model, directory / "switches" / model, None if order is None else Path(order)
        )
        for model, order in sorted(orders.items())
    }


def find_router(metrics_port: int, model: str) -> RouterControl:
    """The router of one model of the instance on a port.

    Raises:
        LaunchError: If this user runs no such instance here.
        ConfigError: If it has no such model.
    """
    routers = find_routers(metrics_port)
    if model not in routers:
        raise ConfigError(f"this service has no model {model!r}, only {listed([*routers])}")
    return routers[model]
