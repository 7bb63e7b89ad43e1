"""Progress of a long command: a bar on a terminal, elsewhere a line after some silent seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from skipserve.commands import console

if TYPE_CHECKING:
    from skipserve.training.history import Epoch

# Less than the ten seconds that are promised: a busy machine wakes nobody on time.
EVERY_S = 8.0


class Watch:
    """Told what is being done, says so on a console.

    Args:
        out: Where; a terminal gets a bar as well.
        doing: What is being done first.
        every_s: Seconds of silence after which it speaks, where there is no terminal.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        out: Console,
        doing: str,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._every_s = every_s
        self._clock = clock
        self._doing = doing
        self._share: float | None = None
        self._epoch = ""
        self._since = self._spoke = clock()
        self._paced = (self._since, 0.0)  # when a share of the work was done for the first time

    def say(self, line: str) -> None:
        """Print a line that has to be read."""
        self._spoke = self._clock()
        self._out.print(line, soft_wrap=True, markup=False)

    def progress(self, doing: str, share: float | None) -> None:
        """Say what is being done; without a share of it that is done, something new begins."""
        now = self._clock()
        if share is None:
            self._since, self._epoch = now, ""
        elif (
            self._share is None
        ):  # what went before, a first import perhaps, says nothing of the pace
            self._paced = (now, share)
        self._doing, self._share = doing, share

    def epoch(self, epoch: Epoch) -> None:
        """Say what an epoch of training left behind."""
        self._epoch = f", loss {epoch.loss:.4f}, test accuracy {epoch.accuracy:.1%}"

    @property
    def share(self) -> float | None:
        """The share of the present work that is done, if it is known."""
        return self._share

    def line(self) -> str:
        """The present work, the time since it began, and the time that is left."""
        now, share, left = self._clock(), self._share, ""
        gone = now - self._since
        began, had = self._paced
        if share is not None and share > had:
            left = f", about {_seconds((now - began) * (1 - share) / (share - had))} left"
        return f"{self._doing}{self._epoch}, {_seconds(gone)} so far{left}"

    def look(self) -> None:
        """Print the line if nothing was printed for long."""
        if self._clock() - self._spoke >= self._every_s:
            self.say(self.line())


@contextmanager
def watching(
    doing: str = "starting", out: Console = console, every_s: float = EVERY_S
) -> Iterator[Watch]:
    """A watch that speaks by itself until the block ends."""
    watch = Watch(out, doing, every_s)
    ended = threading.Event()
    thread = threading.Thread(target=_keep_looking, args=(watch, out, ended, every_s), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def _keep_looking(watch: Watch, out: Console, ended: threading.Event, every_s: float) -> None:
    if not out.is_terminal:
        while not ended.wait(min(0.5, every_s)):
            watch.look()
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=None)
        while not ended.wait(0.2):
            _show(bar, task, watch)


def _show(bar: Progress, task: TaskID, watch: Watch) -> None:
    share = watch.share
    total = None if share is None else 1.0
    bar.update(task, total=total, completed=share or 0.0, description=watch.line())


def _seconds(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole / 60:.0f} min"
