"""The launcher's watch over one router: what is in force, the alarm, and what is told of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.earning.ladder import OWN
from skipserve.earning.progress import Pace, Progress, progress
from skipserve.safety.alarm import Evidence
from skipserve.safety.drift_watch import DriftWatch
from skipserve.safety.keeper import InForce, Keeper
from skipserve.safety.kind import Kind
from skipserve.safety.switch import Standing, Switch
from skipserve.telemetry.exposition import Exposition, Samples

Seen = dict[float, tuple[int, int]]  # rows and disagreements by ε

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """A model that is watched.

    Attributes:
        artifact: Of the model.
        serving: Its settings.
        switch: Of its router.
        folder: Of its state.
    """

    artifact: Artifact
    serving: ServingConfig
    switch: Switch
    folder: Path

    @property
    def name(self) -> str:
        """What it is served as."""
        return self.artifact.manifest.name


class ModelWatch:
    """Watches one model; see :class:`skipserve.safety.monitor.Monitor`.

    Args:
        metrics: Where the outcome is shown.
        model: To watch.
        since_1970_s: What the clock of :meth:`tick` lacks of the time since 1970, in seconds.
    """

    def __init__(self, metrics: Exposition, model: Watched, since_1970_s: float) -> None:
        manifest = model.artifact.manifest
        self._metrics = metrics
        self._name = manifest.name
        self._risk = model.serving.risk if manifest.router is not None else None
        self._decisions = len(manifest.router.decisions) if manifest.router else 0
        self._level = 1 / model.serving.alarm_alpha
        self._switch = model.switch
        self._since_1970_s = since_1970_s
        self._keeper = Keeper(model.artifact, model.folder) if manifest.router else None
        self._told = model.switch.standing()
        self._said: InForce | None = None
        self._certified = False
        self._counted: Seen = {}
        self._against = Evidence(())
        self._pace = Pace()
        self._drift = DriftWatch(metrics, self._name, self._decisions)
        metrics.fallbacks.labels(self._name)
        metrics.bolder.labels(self._name)
        if manifest.router is not None:
            metrics.alarm_level.labels(self._name).set(self._level)

    def forget(self) -> None:
        """Show nothing of it any more."""
        self._metrics.forget(self._name, self._decisions)

    def take(self, switch: Switch) -> None:
        """Go on with another handle of the same switch."""
        self._switch = switch

    def hold(self) -> None:
        """Let nobody count, nor use what was earned, while two artifacts answer for this name."""
        in_force = None if self._told.in_force is None else ()
        with self._switch.held():
            self._tell(Standing(self._switch.state(), 0, in_force))

    def begin(self, now_s: float, counts: Samples) -> None:
        """Leave out what was counted until now, of another artifact of this name."""
        self._counted = self._evidence_counts(counts)
        self._against = Evidence(sorted(self._counted))
        self._drift.begin(now_s, counts)
        with self._switch.held():
            if self._switch.state() == "fell_back":
                self._switch.throw("on")
            self._told = self._switch.standing()

    def tick(self, now_s: float, counts: Samples, gauges: Samples) -> None:
        """Look at what was counted until now."""
        news = self._news(counts)
        # Held, so that no command of the operator gets lost between looking and throwing.
        with self._switch.held():
            standing = self._switch.standing()
            if standing.state != self._told.state:
                self._commanded(standing)
            self._against.update(news)  # of what was in force until now
            if self._keeper is not None:
                self._keep(self._keeper, now_s, gauges)
            if self._told.state == "on" and self._against.wealth >= self._level:
                self._fall_back()
        self._show(gauges)
        if self._keeper is not None:
            self._show_earning(self._keeper, now_s)
        self._drift.show(now_s, counts)

    def _commanded(self, standing: Standing) -> None:
        logger.warning("the router of %s was switched by command: %s", self._name, standing.state)
        fell_back = self._told.state == "fell_back"
        if fell_back and standing.state == "on" and self._keeper is not None:
            self._keeper.reset()
        self._told = standing
        self._restart_alarm()

    def _keep(self, keeper: Keeper, now_s: float, gauges: Samples) -> None:
        keeper.look(self._kinds(gauges), now_s + self._since_1970_s)
        self._tell_what_is_kept(keeper)

    def _tell_what_is_kept(self, keeper: Keeper) -> None:
        in_force = keeper.in_force
        state = self._told.state
        if state != "disabled":
            nothing = in_force is not None and not any(one is not None for one in in_force)
            state = "fell_back" if keeper.withdrawn and nothing else "on"
        if in_force != self._said:
            self._say(keeper, in_force)
            # What was seen under other candidates says nothing of these.
            self._restart_alarm()
        places: tuple[int | None, ...] | None = None
        ladders: tuple[str, ...] = ()
        if in_force is not None:
            places = tuple(one and one.candidate for one in in_force)
            ladders = tuple(one.proposal if one else OWN for one in in_force)
        self._tell(
            Standing(
                *(state, keeper.epoch, places, keeper.eager),
                *(ladders if any(ladders) else (), keeper.state.proposal, keeper.proposing),
            )
        )

    def _tell(self, standing: Standing) -> None:
        if standing != self._told or standing != self._switch.standing():
            self._switch.tell(standing)
        self._told = standing

    def _say(self, keeper: Keeper, now: InForce | None) -> None:
        """Say where something bolder, or more careful, is in force by what was earned."""
        before, self._said = self._said, now
        if now is None:
            logger.warning("%s goes by its artifact's own certificates", self._name)
            return
        pairs = zip(keeper.rules.risks, before or keeper.offline, now, strict=True)
        for risk, old, new in pairs:
            if new == old:
                continue
            if new is None:
                logger.warning("%s has no earned certificate of risk %g now", self._name, risk)
                continue
            proof = "as an earlier epoch earned"
            if (keeper.state.earned(risk), keeper.state.proposal) == new:
                differ = int(keeper.counts.disagreements[new.candidate])
                rows = f"{keeper.counts.rows:,} evidence rows of epoch {keeper.epoch}"
                proof = f"earned on {rows}, of which {differ} disagree"
            logger.warning(
                "%s has candidate %d of %d in force at risk %g, %s",
                *(self._name, new.candidate + 1, keeper.size(new), risk, proof),
            )
            if keeper.state.bolder(old, new) == new:
                self._metrics.bolder.labels(self._name).inc()

    def _kinds(self, gauges: Samples) -> set[Kind]:
        return {
            Kind(labels["backend"], labels["provider"], labels["precision"])  # type: ignore[arg-type]
            for labels, _ in gauges.get("skipserve_model_info", ())
            if labels["model"] == self._name
        }

    def _news(self, counts: Samples) -> Seen:
        now = self._evidence_counts(counts)
        if now.keys() != self._counted.keys():
            self._counted = dict.fromkeys(now, (0, 0)) | self._counted
            self._against = Evidence(sorted(now))
        news = {
            risk: (rows - self._counted[risk][0], differ - self._counted[risk][1])
            for risk, (rows, differ) in now.items()
        }
        self._counted |= now
        return news

    def _evidence_counts(self, counts: Samples) -> Seen:
        rows = self._by_risk(counts, "skipserve_evidence_rows_total")
        differ = self._by_risk(counts, "skipserve_evidence_disagreements_total")
        return {risk: (count, differ.get(risk, 0)) for risk, count in rows.items()}

    def _by_risk(self, counts: Samples, name: str) -> dict[float, int]:
        return {
            float(labels["risk"]): int(value)
            for labels, value in counts.get(name, ())
            if labels["model"] == self._name
        }

    def _restart_alarm(self) -> None:
        self._against = Evidence(sorted(self._counted))

    def _fall_back(self) -> None:
        seen = self._against
        self._metrics.fallbacks.labels(self._name).inc()
        logger.error(
            "%s fell back to full depth: %d of %d evidence rows disagree, wealth %.3g of %.3g; it "
            "skips again once that is earned anew, or by `skipserve router on %s`",
            *(self._name, seen.disagreements, seen.rows, seen.wealth, self._level, self._name),
        )
        if self._keeper is not None:
            self._keeper.withdraw(seen.rows, seen.disagreements)
        self._tell(Standing("fell_back", self._keeper.epoch if self._keeper else 0, ()))

    def _show(self, gauges: Samples) -> None:
        opened = {labels["model"] for labels, _ in gauges.get("skipserve_model_info", ())}
        if self._name in opened:  # else its workers are just starting again
            risks = gauges.get("skipserve_certified_risk_ratio", ())
            self._certified = any(labels["model"] == self._name for labels, _ in risks)
        state: str = self._told.state
        if state == "on" and not self._is_certified():
            state = "uncertified" if self._risk is not None else "off"
        self._metrics.set_state(self._name, state)
        if self._counted:
            self._metrics.evidence.labels(self._name).set(self._against.wealth)

    def _is_certified(self) -> bool:
        if self._keeper is None or self._risk is None:
            return False
        in_force = self._told.in_force
        if in_force is None and self._certified:
            return True
        places: Sequence[object] = self._keeper.offline if in_force is None else in_force
        pairs = zip(self._keeper.rules.risks, places, strict=False)
        return any(one is not None and risk <= self._risk for risk, one in pairs)

    def _show_earning(self, keeper: Keeper, now_s: float) -> None:
        in_force = self._told.in_force or (None,) * len(keeper.rules.risks)
        rows = keeper.shown if keeper.proposing else keeper.counts.rows
        pace = self._pace.take(keeper.epoch, rows, now_s)
        found: list[Progress] = []
        if keeper.epoch and keeper.earning:
            found = [
                progress(keeper.rules, keeper.state, keeper.counts, risk, one, pace, keeper.shown)
                for risk, one in zip(keeper.rules.risks, in_force, strict=False)
            ]
        self._metrics.show_earning(
            self._name, keeper.epoch, keeper.counts.disagreements.tolist(), found, keeper.problem
        )
