"""What is in force for a model: the thresholds that requests get, and which rows give evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import Asked
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting
from skipserve.safety.switch import REASONS, Standing

# What "router": "on" means for a model whose TOML names no risk.
RISK_IF_ON = 0.01


class InForce:
    """Follows what the launcher says of a model.

    Args:
        engine: The open model.
        serving: Its serving settings.
    """

    def __init__(self, engine: Engine, serving: ServingConfig) -> None:
        self._engine = engine
        self._risk = serving.risk
        self._share = serving.evidence
        self._evident = len(engine.candidates) > 0 and serving.evidence > 0
        self._random = np.random.default_rng()
        self._standing: Standing | None = None
        self.follow(Standing())

    def follow(self, standing: Standing) -> None:
        """Take in what is in force from now on."""
        if standing is self._standing:
            return
        self._standing = standing
        self.default = self._at(self._risk)
        self._on = self._at(self._risk or RISK_IF_ON)
        # Fixed by earlier rows alone: what is in force, and nothing that is known of a row.
        on = standing.state != "disabled"
        everything = on and (standing.eager or self._on.risk is None)
        self._chance = 1.0 if everything else self._share

    @property
    def standing(self) -> Standing:
        """What was followed last."""
        assert self._standing is not None
        return self._standing

    def resolve(self, asked: Asked) -> Setting:
        """The setting of a request.

        Raises:
            InputError: If the risk is not between 0 and 1.
        """
        if asked is None:
            return self.default
        if isinstance(asked, str):
            return self._on if asked == "on" else self._engine.off
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

    def _at(self, risk: float | None, measure: Measure = "disagreement") -> Setting:
        standing = self.standing
        setting = self._engine.setting(risk, measure, standing.in_force)
        asked_on = setting.risk is not None or setting.reason
        if standing.state == "on" or not asked_on or self._engine.manifest.router is None:
            return setting
        return replace(self._engine.off, reason=REASONS[standing.state])
