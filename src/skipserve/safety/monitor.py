"""The launcher's watch over the routers: what is earned, the alarm, drift, the switch.

The guard stops the unfamiliar row by row; this is for drift too mild for it. Each second the counts
of all workers are read. What the evidence rows prove is put in force (keeper.py). When they say
that what is in force no longer holds, it is withdrawn, the workers serve at full depth, and an
epoch of earning begins that lets the router back in; so does `skipserve router on MODEL`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from skipserve.errors import StateError
from skipserve.safety.model_watch import ModelWatch, Watched
from skipserve.telemetry.exposition import Exposition


class Monitor:
    """Watches every model of one instance; :meth:`tick` is called once a second.

    Args:
        metrics: Where the outcome is shown, and the workers' counts are found.
        models: To watch.
        clock: Seconds since 1970; asked once, for a clock that jumps is none.
    """

    def __init__(
        self,
        metrics: Exposition,
        models: Sequence[Watched],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        # Of the clock of tick(); what is written down must mean something after a restart.
        self._since_1970_s = clock() - time.monotonic()
        self._models = {model.name: self._model(model) for model in models}
        self._held: Collection[str] = ()

    def hold(self, coming: Collection[Watched]) -> None:
        """Draw no conclusions on some models: two artifacts of one name count together.

        Args:
            coming: The artifacts that begin to answer beside those that are watched.

        Raises:
            OSError: If a switch cannot be thrown; then all are watched as before.
        """
        for one in coming:
            self._models[one.name].hold(one)
        self._held = {one.name for one in coming}

    def follow(self, now_s: float, models: Sequence[Watched], fresh: Collection[str]) -> None:
        """Watch these models from now on, and none else.

        Args:
            now_s: Seconds on the clock of :meth:`tick`.
            models: As at the start.
            fresh: Those whose artifact or settings are others than before. What was counted until
                now says nothing of them; of other files, neither does what was withdrawn.

        Raises:
            OSError: As :meth:`tick`.
        """
        self._held = ()
        counts = self._metrics.samples("counter_*.db")
        before, self._models = self._models, {}
        problem: OSError | StateError | None = None
        for model in models:
            name = model.name
            if name in before and name not in fresh:
                self._models[name] = before[name]
                before[name].take(model.switch)
                continue
            if name in before:
                before.pop(name).forget()
            try:
                self._models[name] = self._model(model)
                self._models[name].begin(now_s, counts)
            except (OSError, StateError) as error:  # the others are watched all the same
                problem = error
        for name, gone in before.items():
            if name not in self._models:
                gone.forget()
        if problem is not None:
            raise problem

    def tick(self, now_s: float) -> None:
        """Look at what was counted until now.

        Args:
            now_s: Seconds on a clock that never jumps.

        Raises:
            OSError: If the workers' files cannot be read, or a switch cannot be thrown.
        """
        counts = self._metrics.samples("counter_*.db")
        gauges = self._metrics.samples("gauge_livemax_*.db")
        problem: OSError | StateError | None = None
        for name, model in self._models.items():
            if name in self._held:
                continue
            try:
                model.tick(now_s, counts, gauges)
            except (OSError, StateError) as error:  # the others are looked at all the same
                problem = error
        if problem is not None:
            raise problem

    def _model(self, model: Watched) -> ModelWatch:
        return ModelWatch(self._metrics, model, self._since_1970_s)
