"""The search of `skipserve loadtest --capacity`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from skipserve.commands import console
from skipserve.commands.exits import ExitCode
from skipserve.commands.output import print_json

if TYPE_CHECKING:
    import threading

    from skipserve.loadtest.plan import Plan
    from skipserve.loadtest.pools import Subject
    from skipserve.loadtest.slo import Objective
    from skipserve.loadtest.target import Target


def search_capacity(
    plan: Plan,
    objective: Objective,
    target: Target,
    subjects: list[Subject],
    stop: threading.Event,
    name: Path,
    json: bool,
) -> ExitCode:
    """Search for the highest rate that holds, write the report, and say what was found."""
    from skipserve.loadtest.capacity import find_capacity
    from skipserve.loadtest.environment import describe
    from skipserve.loadtest.plan import as_text
    from skipserve.loadtest.report import TITLES, write_capacity
    from skipserve.loadtest.session import about

    facts = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "plan": as_text(plan, objective, target),
        "environment": describe(),
        "models": {subject.pool.model: about(subject) for subject in subjects},
    }
    found = find_capacity(plan, objective, target, subjects, stop, console.print)
    base = name.with_name(f"{name.name}-capacity")
    write_capacity(base, found, facts, stop.is_set())
    code = ExitCode.NO_RESULT if stop.is_set() else ExitCode.OK
    if json:
        files = {kind: base.with_name(f"{base.name}.{kind}") for kind in ("html", "json")}
        print_json({"capacity": found, "partial": stop.is_set(), "report": files})
        return code
    for one in found:
        none = f"no rate holds from {one.lowest:.3g} requests/s on; lower ones were not tried"
        held = f"{one.highest:.0f} requests/s hold" if one.highest else none
        above = f", {one.failing:.0f} do not" if one.failing and one.highest else ""
        partial = "" if one.complete else " (partial: stopped)"
        typer.echo(f"{TITLES[one.name]}: {held}{above}{partial}")
    typer.echo(f"report in {base}.html and {base}.json")
    return code
