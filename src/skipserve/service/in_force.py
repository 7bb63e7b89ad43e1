"""What is in force for a model: the thresholds that requests get, and which rows give evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.ladder import OWN, Ladder
from skipserve.protocols.messages import Asked
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Rung, Setting
from skipserve.safety.switch import REASONS, Standing
from skipserve.service.pressure import Pressure

# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01


class InForce:
    """Follows what the launcher says of a model.

    Args:
        engine: The open model.
        serving: Its serving settings.
        ladder: Knows by name what traffic has proposed.
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
        self._evident = len(engine.candidates) > 0 and serving.evidence > 0
        self._random = np.random.default_rng()
        self._standing: Standing | None = None
        self._missing = False  # a ladder that something is in force of
        self.follow(Standing())

    def follow(self, standing: Standing) -> bool:
        """Take in what is in force from now on; whether that is news."""
        if standing is self._standing and not self._missing:
            return False
        self._standing = standing
        self._rungs = self._found(standing)
        self.default = self._at(self._risk)
        self._on = self._at(self._risk or RISK_IF_ON)
        self._bolder = self._steps()
        level = min(self._pressure.level, len(self._bolder))
        self._pressure = Pressure(len(self._bolder), level)
        # Fixed by earlier rows alone: what is in force, and nothing that is known of a row.
        on, in_force = standing.state != "disabled", standing.in_force
        nothing = in_force is not None and all(place is None for place in in_force)
        self._chance = 1.0 if on and (standing.eager or nothing) else self._share
        return True

    @property
    def standing(self) -> Standing:
        """What was followed last."""
        assert self._standing is not None
        return self._standing

    @property
    def now(self) -> Setting:
        """What a request gets now that asks for nothing: the default, or bolder."""
        level = self._pressure.level
        return self._bolder[level - 1] if level else self.default

    def waited(self, now_s: float, longest_s: float) -> bool:
        """Take in how long the oldest request of a batch waited; whether what is in force changed.

        Args:
            now_s: Seconds on a clock that never jumps.
            longest_s: Seconds.
        """
        # What a batch waits for on purpose says nothing of a queue.
        return bool(self._bolder) and self._pressure.see(
            now_s, max(0.0, longest_s - self._gather_s)
        )

    def resolve(self, asked: Asked) -> Setting:
        """The setting of a request.

        Raises:
            InputError: If the risk is not between 0 and 1.
        """
        if asked is None:
            return self.now
        if isinstance(asked, str):
            if asked == "off":
                return self._engine.off
            # At rest its own, which may be bolder than that of who asks for nothing: full depth.
            return max(self._on, self.now, key=lambda one: one.risk or 0.0)
        return self._at(asked.risk, asked.measure)

    def draw(self, setting: Setting, rows: int) -> NDArray[np.bool_] | None:
        """Which rows of a request give evidence [rows], bool; ``None``: none.

        Rows count whose request left the router on, whether or not anything is in force.

        Args:
            setting: Of the request.
            rows: How many it has.
        """
        if not self._evident or (setting.risk is None and not setting.reason):
            return None
        if setting.candidate is None and not self._engine.shows_exits:
            return None  # nothing could be learnt of it
        if self._chance == 1.0:
            return np.ones(rows, dtype=bool)
        drawn = self._random.random(rows) < self._chance
        return drawn if drawn.any() else None

    def _steps(self) -> list[Setting]:
        """The settings beyond the default that an overloaded service may use, from careful on."""
        if self._most is None or self._risk is None:
            return []  # rows of requests that ask for nothing have shown nothing
        spec = self._engine.manifest.router
        risks = {*self._engine.certified(), *(spec.risks if spec else ())}
        found: dict[float, Setting] = {}
        for risk in sorted(risk for risk in risks if risk <= self._most):
            setting = self._at(risk)
            if setting.risk is not None and setting.risk > (self.default.risk or 0.0):
                found[setting.risk] = setting
        return list(found.values())

    def _found(self, standing: Standing) -> list[Rung | None] | None:
        """What is in force for each risk; of a ladder that nobody knows, nothing is."""
        places = standing.places
        self._missing = False
        return None if places is None else [one and self._rung(*one) for one in places]

    def _rung(self, candidate: int, proposal: str) -> Rung | None:
        ladder: Ladder | None = self._own
        if proposal != OWN:
            ladder = self._ladder(proposal) if self._ladder else None
            self._missing |= ladder is None
        if ladder is None or not 0 <= candidate < len(ladder):
            return None
        return Rung(ladder.thresholds[candidate], ladder.guard_limit, candidate, proposal != OWN)

    def _at(self, risk: float | None, measure: Measure = "disagreement") -> Setting:
        standing = self.standing
        setting = self._engine.setting(risk, measure, self._rungs)
        asked_on = setting.risk is not None or setting.reason
        if standing.state == "on" or not asked_on or self._engine.manifest.router is None:
            return setting
        return replace(self._engine.off, reason=REASONS[standing.state])
