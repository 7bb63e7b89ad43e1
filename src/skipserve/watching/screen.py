"""The numbers of a running service on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from skipserve.errors import WatchError
from skipserve.watching.numbers import Earning, ModelNumbers, Numbers, numbers
from skipserve.watching.scrape import Scrape, fetch

# Long enough for a quantile to mean something, short enough to see a change.
WINDOW_S = 30.0
TARGET_S = 0.015
DRIFT_SMALL, DRIFT_LARGE = 0.1, 0.25  # the usual bounds of a population stability index
BLOCKS = " ▁▂▃▄▅▆▇█"
GOOD, WARN, BAD, DIM = "green", "yellow", "bold red", "dim"
STATES = {"on": GOOD, "off": DIM, "uncertified": WARN, "disabled": WARN, "fell_back": BAD}


def watch(url: str, interval_s: float, console: Console) -> None:
    """Draw the numbers again and again until Ctrl-C.

    Args:
        url: The metrics port of the service.
        interval_s: Seconds between two looks.
        console: Where to draw.

    Raises:
        WatchError: If nothing answers at the start; later it is shown and asked again.
    """
    seen = deque([fetch(url)])
    with Live(Text("looking …"), console=console, screen=True, auto_refresh=False) as live:
        for frame in frames(url, interval_s, seen):
            live.update(frame, refresh=True)


def once(url: str, interval_s: float, console: Console) -> None:
    """Print what happened between two looks.

    Args:
        url: The metrics port of the service.
        interval_s: Seconds between them.
        console: Where to print.

    Raises:
        WatchError: If nothing answers.
    """
    console.print(draw(url, two_looks(url, interval_s)))


def two_looks(url: str, interval_s: float) -> Numbers:
    """Numbers between two readings.

    Args:
        url: The metrics port of the service.
        interval_s: Seconds between them.

    Raises:
        WatchError: If nothing answers.
    """
    before = fetch(url)
    time.sleep(interval_s)
    return numbers(before, fetch(url))


def frames(url: str, interval_s: float, seen: deque[Scrape]) -> Iterator[RenderableType]:
    """What the screen shows, one frame every ``interval_s`` seconds."""
    frame: RenderableType = Text("looking …")
    while True:
        time.sleep(interval_s)
        try:
            seen.append(fetch(url))
        except WatchError as error:
            yield Group(Text(f"{error}; asking again", style=BAD), frame)
            continue
        while len(seen) > 2 and seen[-1].time_s - seen[1].time_s >= WINDOW_S:
            seen.popleft()
        frame = draw(url, numbers(seen[0], seen[-1]))
        yield frame


def draw(url: str, found: Numbers) -> RenderableType:
    """One frame."""
    head = Text.assemble(
        ("skipserve ", "bold"), f"{found.version} at {url}, the last {found.seconds:.0f} s"
    )
    if found.restarts:
        head.append(f"; {found.restarts:.0f} worker restarts", style=BAD)
    return Group(head, *(_model(one) for one in found.models))


def _model(one: ModelNumbers) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM, no_wrap=True)
    table.add_column()
    table.add_row("requests", _requests(one))
    if one.requests_per_s:
        table.add_row("latency", _latency(one))
    if one.state != "off" or one.skip_rates:
        table.add_row("router", _router(one))
        table.add_row("skip rate", _skip(one))
        table.add_row("agreement", _agreement(one))
    for earning in one.earning:
        table.add_row(earning.of_slice or "certificate", _earning(earning))
    title = Text.assemble((one.model, "bold"), (f"  {one.runs_on}", DIM))
    return Panel(table, title=title, title_align="left", border_style=DIM)


def _requests(one: ModelNumbers) -> Text:
    if not one.requests_per_s:
        return Text("no traffic", style=DIM)
    style = BAD if one.errors else GOOD
    return Text.assemble(f"{one.requests_per_s:,.1f}/s   ", (f"5xx {_percent(one.errors)}", style))


def _latency(one: ModelNumbers) -> Text:
    if one.p50_s is None:
        return Text("no request was answered with 200", style=WARN)
    style = GOOD if one.p50_s <= TARGET_S else BAD
    return Text.assemble(
        (f"p50 {_ms(one.p50_s)}", style),
        f"   p90 {_ms(one.p90_s)}   p99 {_ms(one.p99_s)}   "
        f"{_percent(one.within_target)} within 15 ms",
    )


def _router(one: ModelNumbers) -> Text:
    text = Text(one.state, style=STATES.get(one.state, WARN))
    if one.risk is not None:
        text.append(f"   certified ε {_percent(one.risk)}", style="default")
    if one.held_back is not None:
        text.append(f"   held back {_percent(one.held_back)}", style="default")
    if one.fallbacks:
        text.append(f"   fell back {one.fallbacks:.0f} times", style=BAD)
    return text


def _skip(one: ModelNumbers) -> Text:
    if one.skip_rate is None:
        return Text("no traffic with the router on", style=DIM)
    bars = "".join(BLOCKS[round(rate * (len(BLOCKS) - 1))] for rate in one.skip_rates)
    return Text.assemble(
        f"{_percent(one.skip_rate)}   ", (f"▏{bars}▕", "cyan"), f" blocks 1…{len(one.skip_rates)}"
    )


def _agreement(one: ModelNumbers) -> Text:
    if one.disagreement is None:
        text = Text("no evidence yet", style=DIM)
    else:
        style = BAD if one.breaks_certificate else GOOD
        text = Text.assemble(
            (f"{_percent(1 - one.disagreement)}", style),
            f" of {one.evidence_rows:,.0f} evidence rows since the start",
        )
    if one.alarm is not None and one.alarm_level:
        style = BAD if one.alarm >= one.alarm_level else "default"
        text.append(f"   alarm {one.alarm:.2g} of {one.alarm_level:.3g}", style=style)
    if one.drift is not None:
        style = BAD if one.drift > DRIFT_LARGE else WARN if one.drift > DRIFT_SMALL else "default"
        text.append(f"   drift {one.drift:.2f}", style=style)
    return text


def _earning(one: Earning) -> Text:
    if one.problem:
        return Text("nothing can be earned now; the log says why", style=BAD)
    # The row of the router says it where traffic is one whole.
    text = Text(one.state, style=STATES.get(one.state, WARN)) if one.of_slice else Text()
    text.append(f"{'   ' if one.of_slice else ''}{one.told()}   epoch {one.epoch:.0f}", "default")
    for risk, candidate in sorted(one.in_force.items(), key=lambda entry: float(entry[0])):
        text.append(f"   ε {_percent(float(risk))}: candidate {candidate:.0f}")
    return text


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.3g} %"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3g} ms"
