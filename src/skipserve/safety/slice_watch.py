"""The launcher's watch over one slice of a model's traffic: what is in force, and the alarm."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skipserve.earning.ladder import OWN, Places
from skipserve.earning.progress import Pace, Progress, progress
from skipserve.safety.alarm import Evidence
from skipserve.safety.keeper import Keeper
from skipserve.safety.kind import Kind
from skipserve.safety.switch import ControlState, Switch, SwitchState
from skipserve.slices import sliced
from skipserve.telemetry.exposition import Exposition, Samples

Seen = Mapping[float, tuple[int, int]]  # rows and disagreements by ε

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objective:
    """What a model's settings ask of the watch.

    Attributes:
        risk: That requests get which ask for nothing; ``None``: full depth.
        level: Evidence at which the alarm is raised.
    """

    risk: float | None
    level: float


class SliceWatch:
    """Watches a slice; traffic that is one whole is a slice without a name.

    Args:
        metrics: Where the outcome is shown.
        model: What the model is served as.
        of_slice: Name of the slice.
        asked: By the model's settings.
        switch: Of the model's router.
        keeper: Of what the slice has earned; ``None`` where there is no router.

    Attributes:
        name: Of the slice.
    """

    def __init__(
        self,
        metrics: Exposition,
        model: str,
        of_slice: str,
        asked: Objective,
        switch: Switch,
        keeper: Keeper | None,
    ) -> None:
        self._metrics = metrics
        self._model, self.name = model, of_slice
        self._called = sliced(model, of_slice)
        self._asked = asked
        self._switch = switch
        self._keeper = keeper
        self._told = switch.control(of_slice)
        self._said: Places | None = None
        self._certified = False
        self._counted: dict[float, tuple[int, int]] = {}
        self._against = Evidence(())
        self._pace = Pace()
        metrics.fallbacks.labels(model, of_slice)
        metrics.bolder.labels(model, of_slice)

    def take(self, switch: Switch) -> None:
        """Go on with another handle of the same switch."""
        self._switch = switch

    @property
    def told(self) -> ControlState:
        """What the workers were told last."""
        return self._told

    def hold(self, own_stand: bool) -> None:
        """Let nobody count, nor use what was earned; the switch is held.

        Args:
            own_stand: Whether the workers of another artifact, which read this too, may go by its
                own certificates.
        """
        in_force = None if own_stand and self._told.in_force is None else ()
        self._tell(ControlState(self._switch.control(self.name).state, 0, in_force))

    def begin(self, counts: Samples) -> None:
        """Leave out what was counted until now, of another artifact; the switch is held."""
        self._counted = dict(self._evidence_counts(counts))
        self._against = Evidence(sorted(self._counted))
        control = self._switch.control(self.name)
        own = self._keeper is None or control.in_force is None
        state: SwitchState = "on" if control.state == "fell_back" else control.state
        self._tell(ControlState(state, in_force=None if own else ()))

    def look(self, now_1970_s: float, counts: Samples, kinds: set[Kind]) -> None:
        """Look at what was counted until now; the switch is held.

        Args:
            now_1970_s: Seconds since 1970, on a clock that never jumps.
            counts: Of all workers.
            kinds: What they run on.
        """
        news = self._news(counts)
        control = self._switch.control(self.name)
        if control.state != self._told.state:
            self._commanded(control)
        self._against.update(news)  # of what was in force until now
        if self._keeper is not None:
            self._keeper.look(kinds, now_1970_s)
        # Before anything else comes in force: of that, this evidence would say nothing any more.
        if self._told.state == "on" and self._against.wealth >= self._asked.level:
            self._fall_back()
        elif self._keeper is not None:
            self._tell_what_is_kept(self._keeper)

    def show(self, now_s: float, gauges: Samples) -> None:
        """Show how the slice stands."""
        opened = {labels["model"] for labels, _ in gauges.get("skipserve_model_info", ())}
        if self._model in opened:  # else its workers are just starting again
            risks = gauges.get("skipserve_certified_risk_ratio", ())
            self._certified = any(self._is_mine(labels) for labels, _ in risks)
        state: str = self._told.state
        if state == "on" and not self._is_certified():
            state = "uncertified" if self._asked.risk is not None else "off"
        self._metrics.set_state(self._model, self.name, state)
        if self._counted:
            wealth = self._against.wealth
            self._metrics.evidence.labels(self._model, self.name).set(wealth)
        if self._keeper is not None:
            self._show_earning(self._keeper, now_s)

    def _commanded(self, control: ControlState) -> None:
        logger.warning("the router of %s was switched by hand: %s", self._called, control.state)
        fell_back = self._told.state == "fell_back"
        if fell_back and control.state == "on" and self._keeper is not None:
            self._keeper.reset()
        self._told = control
        self._restart_alarm()

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
            ControlState(
                *(state, keeper.epoch, places, keeper.eager),
                *(ladders if any(ladders) else (), keeper.state.proposal, keeper.proposing),
                own=in_force is not None and keeper.own,
            )
        )

    def _tell(self, control: ControlState) -> None:
        if control != self._told or control != self._switch.control(self.name):
            self._switch.write(control, self.name)
        self._told = control

    def _say(self, keeper: Keeper, now: Places | None) -> None:
        """Say where something bolder, or more careful, is in force by what was earned."""
        before, self._said = self._said, now
        if now is None:
            logger.warning("%s goes by its artifact's own certificates", self._called)
            return
        pairs = zip(keeper.rules.risks, before or keeper.offline, now, strict=True)
        for risk, old, new in pairs:
            if new == old:
                continue
            if new is None:
                logger.warning("%s has no earned certificate of risk %g now", self._called, risk)
                continue
            proof = "as an earlier epoch earned"
            if (keeper.state.earned(risk), keeper.state.proposal) == new:
                differ = int(keeper.counts.disagreements[new.candidate])
                rows = f"{keeper.counts.rows:,} evidence rows of epoch {keeper.epoch}"
                proof = f"earned on {rows}, of which {differ} disagree"
            logger.warning(
                "%s has candidate %d of %d in force at risk %g, %s",
                *(self._called, new.candidate + 1, keeper.size(new), risk, proof),
            )
            if keeper.state.bolder(old, new) == new:
                self._metrics.bolder.labels(self._model, self.name).inc()

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
            if self._is_mine(labels)
        }

    def _is_mine(self, labels: Mapping[str, str]) -> bool:
        return labels["model"] == self._model and labels.get("slice", "") == self.name

    def _restart_alarm(self) -> None:
        self._against = Evidence(sorted(self._counted))

    def _fall_back(self) -> None:
        seen, level = self._against, self._asked.level
        self._metrics.fallbacks.labels(self._model, self.name).inc()
        logger.error(
            "%s fell back to full depth: %d of %d evidence rows disagree, wealth %.3g of %.3g; it "
            "skips again once that is earned anew, or by `skipserve router on %s`",
            *(self._called, seen.disagreements, seen.rows, seen.wealth, level, self._model),
        )
        if self._keeper is not None:
            self._keeper.withdraw(seen.rows, seen.disagreements, self._told.epoch)
            self._tell(
                ControlState(
                    *("fell_back", self._keeper.epoch, ()),
                    proposal=self._keeper.state.proposal,
                    proposing=self._keeper.proposing,
                )
            )
        else:
            self._tell(ControlState("fell_back", in_force=()))

    def _is_certified(self) -> bool:
        risk = self._asked.risk
        if self._keeper is None or risk is None:
            return False
        in_force = self._told.in_force
        if in_force is None and not self._keeper.opened:
            return self._certified
        places: Sequence[object] = self._keeper.offline if in_force is None else in_force
        pairs = zip(self._keeper.rules.risks, places, strict=False)
        return any(place is not None and of <= risk for of, place in pairs)

    def _show_earning(self, keeper: Keeper, now_s: float) -> None:
        in_force = self._told.places or (None,) * len(keeper.rules.risks)
        rows = keeper.shown if keeper.proposing else keeper.counts.rows
        pace = self._pace.take((keeper.epoch, keeper.proposing), rows, now_s)
        found: list[Progress] = []
        if keeper.epoch and keeper.earning:
            found = [
                progress(keeper.rules, keeper.state, keeper.counts, risk, one, pace, keeper.shown)
                for risk, one in zip(keeper.rules.risks, in_force, strict=False)
            ]
        counts = keeper.counts.disagreements.tolist()
        self._metrics.show_earning(
            *(self._model, self.name, keeper.epoch, counts, found, keeper.problem)
        )
