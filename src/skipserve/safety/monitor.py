"""The launcher's watch over the routers: evidence from the shadow runs, drift, the switch.

The guard stops the unfamiliar row by row; this is for drift too mild for it. Each second the counts
of all workers are read. When they say that a certificate no longer holds, the model's switch is
thrown and its workers serve at full depth. It is thrown back by `skipserve router on MODEL`, or
once as much evidence has come in that the rate is below ε again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import Manifest
from skipserve.artifacts.serving import ServingConfig
from skipserve.safety.alarm import AGAINST, FOR, Evidence
from skipserve.safety.drift import BINS, ROWS_AT_LEAST, Window, stability_index
from skipserve.safety.switch import Switch, SwitchState
from skipserve.telemetry.exposition import Exposition, Samples

Seen = dict[float, tuple[int, int]]  # rows and disagreements by ε

logger = logging.getLogger(__name__)


class Monitor:
    """Watches every model of one instance; :meth:`tick` is called once a second.

    Args:
        metrics: Where the outcome is shown, and the workers' counts are found.
        models: Manifest, settings and switch of each.
    """

    def __init__(
        self, metrics: Exposition, models: Sequence[tuple[Manifest, ServingConfig, Switch]]
    ) -> None:
        self._metrics = metrics
        self._models = {model[0].name: _Model(metrics, *model) for model in models}
        self._held: Collection[str] = ()

    def hold(self, names: Collection[str]) -> None:
        """Draw no conclusions on these models: two artifacts of one name count together."""
        self._held = names

    def follow(
        self,
        now_s: float,
        models: Sequence[tuple[Manifest, ServingConfig, Switch]],
        fresh: Collection[str],
    ) -> None:
        """Watch these models from now on, and none else.

        Args:
            now_s: Seconds on the clock of :meth:`tick`.
            models: As at the start.
            fresh: Those whose artifact or settings are others than before. What was counted until
                now says nothing of them; one that fell back skips again.

        Raises:
            OSError: As :meth:`tick`.
        """
        counts = self._metrics.samples("counter_*.db")
        before, self._models = self._models, {}
        for manifest, serving, switch in models:
            name = manifest.name
            if name in before and name not in fresh:
                self._models[name] = before[name]
                before[name].take(switch)
                continue
            if name in before:
                before.pop(name).forget()
            self._models[name] = _Model(self._metrics, manifest, serving, switch)
            self._models[name].begin(now_s, counts)
        for name, model in before.items():
            if name not in self._models:
                model.forget()
        self._held = ()

    def tick(self, now_s: float) -> None:
        """Look at what was counted until now.

        Args:
            now_s: Seconds on a clock that never jumps.

        Raises:
            OSError: If the workers' files cannot be read, or a switch cannot be thrown.
        """
        counts = self._metrics.samples("counter_*.db")
        gauges = self._metrics.samples("gauge_livemax_*.db")
        for name, model in self._models.items():
            if name not in self._held:
                model.tick(now_s, counts, gauges)


class _Model:
    def __init__(
        self, metrics: Exposition, manifest: Manifest, serving: ServingConfig, switch: Switch
    ) -> None:
        self._metrics = metrics
        self._name = manifest.name
        self._asked = manifest.router is not None and serving.risk is not None
        self._decisions = len(manifest.router.decisions) if manifest.router else 0
        self._level = 1 / serving.alarm_alpha
        self._clean_window_s = serving.clean_window_s
        self._switch = switch
        self._state: SwitchState = "on"
        self._certified = False
        self._counted: Seen = {}
        self._against, self._for = Evidence(()), Evidence(())
        self._fell_back_s = 0.0
        self._window = Window()
        metrics.fallbacks.labels(self._name)
        if manifest.router is not None:
            metrics.alarm_level.labels(self._name).set(self._level)

    def forget(self) -> None:
        """Show nothing of it any more."""
        self._metrics.forget(self._name, self._decisions)

    def take(self, switch: Switch) -> None:
        """Go on with another handle of the same switch."""
        self._switch = switch

    def begin(self, now_s: float, counts: Samples) -> None:
        """Leave out what was counted until now, of another artifact of this name."""
        self._counted = self._shadow_counts(counts)
        self._against = Evidence(sorted(self._counted), AGAINST)
        self._for = Evidence(sorted(self._counted), FOR)
        self._window.begin(now_s, self._seen(counts))
        with self._switch.held():
            if self._switch.state() == "fell_back":
                self._switch.throw("on")
            self._state = self._switch.state()

    def tick(self, now_s: float, counts: Samples, gauges: Samples) -> None:
        news = self._news(counts)
        # Held, so that no command of the operator gets lost between looking and throwing.
        with self._switch.held():
            state = self._switch.state()
            if state != self._state:
                logger.warning("the router of %s was switched by command: %s", self._name, state)
                self._enter(state, now_s)
            self._against.update(news)
            self._for.update(news)
            if state == "on" and self._against.wealth >= self._level:
                self._fall_back(now_s)
            elif state == "fell_back" and self._is_clean(now_s):
                self._come_back(now_s)
        self._show(gauges)
        if self._decisions:
            self._show_drift(now_s, counts)

    def _news(self, counts: Samples) -> Seen:
        now = self._shadow_counts(counts)
        if now.keys() != self._counted.keys():
            self._counted = dict.fromkeys(now, (0, 0)) | self._counted
            self._against = Evidence(sorted(now), AGAINST)
            self._for = Evidence(sorted(now), FOR)
        news = {
            risk: (rows - self._counted[risk][0], differ - self._counted[risk][1])
            for risk, (rows, differ) in now.items()
        }
        self._counted |= now
        return news

    def _shadow_counts(self, counts: Samples) -> Seen:
        rows = self._by_risk(counts, "skipserve_shadow_rows_total")
        differ = self._by_risk(counts, "skipserve_shadow_disagreements_total")
        return {risk: (count, differ.get(risk, 0)) for risk, count in rows.items()}

    def _by_risk(self, counts: Samples, name: str) -> dict[float, int]:
        return {
            float(labels["risk"]): int(value)
            for labels, value in counts.get(name, ())
            if labels["model"] == self._name
        }

    def _enter(self, state: SwitchState, now_s: float) -> None:
        self._state = state
        self._fell_back_s = now_s
        if state == "on":
            self._against = Evidence(sorted(self._counted), AGAINST)
        self._for = Evidence(sorted(self._counted), FOR)

    def _is_clean(self, now_s: float) -> bool:
        long_enough = now_s - self._fell_back_s >= self._clean_window_s
        return long_enough and self._for.wealth >= self._level

    def _fall_back(self, now_s: float) -> None:
        self._switch.throw("fell_back")
        seen = self._against
        self._enter("fell_back", now_s)
        self._metrics.fallbacks.labels(self._name).inc()
        logger.error(
            "%s fell back to full depth: %d of %d shadow rows disagree, evidence %.3g of %.3g; "
            "it comes back by itself when fresh rows agree, or by `skipserve router on %s`",
            self._name,
            seen.disagreements,
            seen.rows,
            seen.wealth,
            self._level,
            self._name,
        )

    def _come_back(self, now_s: float) -> None:
        self._switch.throw("on")
        seen = self._for
        self._enter("on", now_s)
        logger.warning(
            "%s skips again: %d of %d shadow rows disagreed since it fell back",
            self._name,
            seen.disagreements,
            seen.rows,
        )

    def _show(self, gauges: Samples) -> None:
        opened = {labels["model"] for labels, _ in gauges.get("skipserve_model_info", ())}
        if self._name in opened:  # else its workers are just starting again
            risks = gauges.get("skipserve_certified_risk_ratio", ())
            self._certified = any(labels["model"] == self._name for labels, _ in risks)
        state: str = self._state
        if state == "on" and not (self._asked and self._certified):
            state = "uncertified" if self._asked else "off"
        self._metrics.set_state(self._name, state)
        if self._counted:
            self._metrics.evidence.labels(self._name).set(self._against.wealth)
            clean = self._for.wealth if self._state == "fell_back" else None
            self._metrics.show(self._metrics.clean_evidence, clean, self._name)

    def _show_drift(self, now_s: float, counts: Samples) -> None:
        recent = self._window.growth(now_s, self._seen(counts))
        for stage, row in enumerate(recent, 1):
            drift = float(stability_index(row)) if row.sum() >= ROWS_AT_LEAST else None
            self._metrics.show(self._metrics.drift, drift, self._name, str(stage))

    def _seen(self, counts: Samples) -> NDArray[np.float64]:
        seen = np.zeros((self._decisions, BINS))
        for labels, value in counts.get("skipserve_signal_rows_total", ()):
            stage = int(labels["stage"])
            # Another artifact of this name may have had more.
            if labels["model"] == self._name and stage <= self._decisions:
                seen[stage - 1, int(labels["bin"])] = value
        return seen
