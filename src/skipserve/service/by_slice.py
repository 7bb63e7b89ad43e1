"""What is in force for each slice of a model's traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.ladder import Ladder
from skipserve.runtime.engine import Engine
from skipserve.safety.switch import ControlState, control_of
from skipserve.service.in_force import InForce


class BySlice:
    """Follows what the launcher says of a model, slice by slice; traffic may be one whole.

    Args:
        engine: The open model.
        serving: Its serving settings.
        ladders: Know by name what traffic has proposed, by slice.
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServingConfig,
        ladders: Mapping[str, Callable[[str], Ladder | None]],
    ) -> None:
        self._slices = {
            name: InForce(engine, serving, ladders.get(name))
            for name in engine.manifest.slices.names
        }
        self._controls: Mapping[str, ControlState] | None = None

    def of(self, name: str) -> InForce:
        """The settings in force for one slice."""
        return self._slices[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all slices."""
        return tuple(self._slices)

    @property
    def evident(self) -> bool:
        """Whether rows may be drawn as evidence."""
        return any(one.evident for one in self._slices.values())

    def follow(self, controls: Mapping[str, ControlState]) -> list[str]:
        """Take in what is in force from now on; the slices for which that is news."""
        if controls is self._controls and not any(one.incomplete for one in self._slices.values()):
            return []
        self._controls = controls
        pairs = self._slices.items()
        return [name for name, one in pairs if one.follow(control_of(controls, name))]

    def waited(self, now_s: float, longest_s: float) -> list[str]:
        """Take in how long the oldest request of a batch waited.

        Args:
            now_s: Seconds on a clock that never jumps.
            longest_s: Seconds.

        Returns:
            The slices for which what is in force has changed by it.
        """
        return [name for name, one in self._slices.items() if one.waited(now_s, longest_s)]
