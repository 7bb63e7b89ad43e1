"""Settings in force for a slice of traffic: thresholds, and which rows give evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.ladder import OWN, Ladder
from skipserve.protocols.messages import RouterRequest
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Rung, Setting
from skipserve.safety.switch import REASONS, ControlState
from skipserve.service.pressure import Pressure

# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01


class InForce:
    """Follows the control state of a slice of a model's traffic.

    Args:
        engine: The open model.
        serving: Its serving settings.
        ladder: Knows by name what traffic has proposed.

    Attributes:
        incomplete: Whether something is in force of a ladder that is not known yet.
        evident: Whether rows may be drawn as evidence.
    """

    def __init__(
        self,
        engine: Engine,
        serving: ServingConfig,
        ladder: Callable[[str], Ladder | None] | None = None,
    ) -> None:
        self._engine = engine
        self._own = Ladder(engine.candidates, engine.guard_limit)
        self._ladder = ladder
        self._risk = serving.risk
        self._most = serving.overload_risk
        self._pressure = Pressure(0)
        self._share = serving.evidence
        self._gather_s = serving.max_batch_delay_ms / 1e3
        # Otherwise none: see skipserve.tasks.NO_EVIDENCE.
        shows = engine.manifest.task.top is None
        self.evident = shows and len(engine.candidates) > 0 and serving.evidence > 0
        self._random = np.random.default_rng()
        self._control: ControlState | None = None
        self.incomplete = False
        self._rungs: list[Rung | None] | None = None
        self.follow(ControlState())

    def follow(self, control: ControlState) -> bool:
        """Follow a control state; whether it changed."""
        if control == self._control:
            if not self.incomplete:
                return False
            before, self._rungs = self._rungs, self._found(control)
            if _known(before) == _known(self._rungs):
                return False
        else:
            self._control = control
            self._rungs = self._found(control)
        self.default = self._at(self._risk)
        self._on = self._at(self._risk or RISK_IF_ON)
        self._bolder = self._steps()
        level = min(self._pressure.level, len(self._bolder))
        self._pressure = Pressure(len(self._bolder), level)
        # Depends on earlier rows only, and on nothing about the row itself.
        on, in_force = control.state != "disabled", control.in_force
        nothing = in_force is not None and all(place is None for place in in_force)
        self._chance = 1.0 if on and (control.eager or nothing) else self._share
        return True

    @property
    def control(self) -> ControlState:
        """The control state followed last."""
        assert self._control is not None
        return self._control

    @property
    def now(self) -> Setting:
        """The setting of requests without a router request: the default, or bolder under load."""
        level = self._pressure.level
        return self._bolder[level - 1] if level else self.default

    def waited(self, now_s: float, longest_s: float) -> bool:
        """Record the wait of the oldest request of a batch; whether the setting changed.

        Args:
            now_s: Seconds on a clock that never jumps.
            longest_s: Seconds.
        """
        # Deliberate waiting for a batch is not pressure.
        return bool(self._bolder) and self._pressure.see(
            now_s, max(0.0, longest_s - self._gather_s)
        )

    def resolve(self, requested: RouterRequest) -> Setting:
        """The setting of a request.

        Raises:
            InputError: If the risk is not between 0 and 1.
        """
        if requested is None:
            return self.now
        if isinstance(requested, str):
            if requested == "off":
                return self._engine.off
            # "on" means the risk of the model. The default may be full depth, or bolder under load.
            return max(self._on, self.now, key=lambda one: one.risk or 0.0)
        return self._at(requested.risk, requested.measure)

    def draw(self, setting: Setting, rows: int) -> NDArray[np.bool_] | None:
        """Which rows of a request give evidence [rows], bool; ``None``: none.

        Rows count whose request left the router on, whether or not anything is in force.

        Args:
            setting: Of the request.
            rows: How many it has.
        """
        if not self.evident or (setting.risk is None and not setting.reason):
            return None
        if setting.candidate is None and not self._engine.shows_exits:
            return None  # its exits cannot be read
        if self._chance == 1.0:
            return np.ones(rows, dtype=bool)
        drawn = self._random.random(rows) < self._chance
        return drawn if drawn.any() else None

    def _steps(self) -> list[Setting]:
        """Settings bolder than the default that an overloaded service may use."""
        if self._most is None or self._risk is None:
            return []  # requests without a router request are not routed
        spec = self._engine.manifest.router
        risks = {*self._engine.certified(), *(spec.risks if spec else ())}
        found: dict[float, Setting] = {}
        for risk in sorted(risk for risk in risks if risk <= self._most):
            setting = self._at(risk)
            if setting.risk is not None and setting.risk > (self.default.risk or 0.0):
                found[setting.risk] = setting
        return list(found.values())

    def _found(self, control: ControlState) -> list[Rung | None] | None:
        """The candidate in force for each risk; none for a ladder that is not known here."""
        places = control.places
        self.incomplete = False
        return None if places is None else [one and self._rung(*one) for one in places]

    def _rung(self, candidate: int, proposal: str) -> Rung | None:
        ladder: Ladder | None = self._own
        if proposal != OWN:
            ladder = self._ladder(proposal) if self._ladder else None
            self.incomplete |= ladder is None
        if ladder is None or not 0 <= candidate < len(ladder):
            return None
        return Rung(ladder.thresholds[candidate], ladder.guard_limit, candidate, proposal != OWN)

    def _at(self, risk: float | None, measure: Measure = "disagreement") -> Setting:
        control = self.control
        setting = self._engine.setting(risk, measure, self._rungs, control.own)
        asked_on = setting.risk is not None or setting.reason
        if control.state == "on" or not asked_on or self._engine.manifest.router is None:
            return setting
        return replace(self._engine.off, reason=REASONS[control.state])


def _known(rungs: list[Rung | None] | None) -> list[bool]:
    return [rung is not None for rung in rungs or ()]
