"""The launcher's watch over one router: each slice of its traffic, and the drift of its signal."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import StateError
from skipserve.safety.drift_watch import DriftWatch
from skipserve.safety.keeper import Keeper
from skipserve.safety.kind import Kind
from skipserve.safety.own import own_may_stand
from skipserve.safety.slice_watch import Objective, SliceWatch
from skipserve.safety.switch import Switch
from skipserve.telemetry.exposition import Exposition, Samples

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
        router = manifest.router
        self._metrics = metrics
        self._name = manifest.name
        self._decisions = len(router.decisions) if router else 0
        self._switch = model.switch
        self._since_1970_s = since_1970_s
        risk = model.serving.risk if router else None
        asked = Objective(risk, 1 / model.serving.alarm_alpha)
        self._names = manifest.slices.names
        self._slices = [
            SliceWatch(
                *(metrics, manifest.name, one, asked, model.switch),
                Keeper(model.artifact, model.folder, one) if router else None,
            )
            for one in self._names
        ]
        self._drift = DriftWatch(metrics, self._name, self._decisions)
        if router is not None:
            metrics.alarm_level.labels(self._name).set(asked.level)

    def forget(self) -> None:
        """Show nothing of it any more."""
        self._metrics.forget(self._name, self._decisions)

    def take(self, switch: Switch) -> None:
        """Go on with another handle of the same switch."""
        self._switch = switch
        for one in self._slices:
            one.take(switch)

    def hold(self, coming: Watched) -> None:
        """Let nobody count, nor use what was earned, while two artifacts answer for this name.

        Args:
            coming: The other one. Its workers read the same switch, so the certificates of both
                are out of force where the alarm was ever raised for it.
        """
        stand = {one: own_may_stand(coming.artifact, coming.folder, one) for one in self._names}
        with self._switch.held():
            for one in self._slices:
                one.hold(stand[one.name])

    def begin(self, now_s: float, counts: Samples) -> None:
        """Leave out what was counted until now, of another artifact of this name."""
        self._drift.begin(now_s, counts)
        with self._switch.held():
            self._mend()
            for one in self._slices:
                one.begin(counts)

    def tick(self, now_s: float, counts: Samples, gauges: Samples) -> None:
        """Look at what was counted until now.

        Raises:
            OSError: If the switch cannot be thrown for a slice; the others were looked at.
            StateError: The same.
        """
        kinds = self._kinds(gauges)
        problem: OSError | StateError | None = None
        # Held, so that no command of the operator gets lost between looking and throwing.
        with self._switch.held():
            self._mend()
            for one in self._slices:
                try:
                    one.look(now_s + self._since_1970_s, counts, kinds)
                except (OSError, StateError) as error:
                    problem = error
        for one in self._slices:
            one.show(now_s, gauges)
        self._drift.show(now_s, counts)
        if problem is not None:
            raise problem

    def _mend(self) -> None:
        """Let the switch hold these slices; nobody has switched anything off by a damaged one."""
        if not self._switch.is_damaged:
            self._switch.keep(self._names)
        else:
            logger.error(
                "the switch of %s was damaged, and nothing was skipped meanwhile; it says again "
                "what it said before",
                self._name,
            )
            self._switch.tell({one.name: one.told for one in self._slices})

    def _kinds(self, gauges: Samples) -> set[Kind]:
        return {
            Kind(labels["backend"], labels["provider"], labels["precision"])  # type: ignore[arg-type]
            for labels, _ in gauges.get("skipserve_model_info", ())
            if labels["model"] == self._name
        }
