"""The command `skipserve loadtest`."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipserve.commands import console
from skipserve.errors import ConfigError

if TYPE_CHECKING:
    import threading

    from skipserve.loadtest.payloads import Choice
    from skipserve.loadtest.plan import Plan
    from skipserve.loadtest.pools import Subject
    from skipserve.loadtest.slo import Objective
    from skipserve.loadtest.target import Target

OUT = Path(".build/loadtest")
# Where this package lies in a clone; in an installation no Makefile is there.
CLONE = Path(__file__).resolve().parents[3]
NEEDED = {
    **{"locust": "locust", "hdrh": "hdrhistogram", "scipy": "scipy", "jinja2": "jinja2"},
    "matplotlib": "matplotlib",
}


def loadtest(
    model: Annotated[str, typer.Option(help="NAME, or a mix NAME=WEIGHT,NAME=WEIGHT.")],
    rate: Annotated[float | None, typer.Option(help="Requests a second; open loop.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="Seconds as asked (30), a baseline takes as long again; of a trial (3)."),
    ] = None,
    slo: Annotated[
        str, typer.Option(help="What must hold; also p99.9, errors=0.001, disagreement=0.01.")
    ] = "p50=15ms,p99=50ms,errors=0",
    router: Annotated[
        str, typer.Option(help="default, on, off or a risk; or a mix on=0.8,off=0.2.")
    ] = "default",
    rows: Annotated[str, typer.Option(help="Rows a request; or a mix 1=0.9,8=0.1.")] = "1",
    users: Annotated[
        int | None, typer.Option(min=1, help="Closed loop with so many users, instead of --rate.")
    ] = None,
    shape: Annotated[str, typer.Option(help="steady, step, spike or soak.")] = "steady",
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    baseline: Annotated[bool, typer.Option(help="Alternate with the same mix, router off.")] = True,
    capacity: Annotated[
        bool, typer.Option("--capacity", help="Search the highest rate that meets the SLO.")
    ] = False,
    start: Annotated[bool, typer.Option("--start", help="Start the service, and stop it.")] = False,
    host: Annotated[str, typer.Option(help="Address of the service.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SKIPSERVE_PORT", min=1, max=65533)] = 8080,
    metrics_port: Annotated[
        int, typer.Option(envvar="SKIPSERVE_METRICS_PORT", min=1, max=65535)
    ] = 9464,
    connections: Annotated[int, typer.Option(min=1, help="Requests on their way at once.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a reply.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and mix.")] = 0,
    artifacts: Annotated[Path, typer.Option(help="Where the known answers come from.")] = Path(
        "artifacts"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Rows to send; by default the recipe's, or the few of the manifest."),
    ] = None,
    model_store: Annotated[Path, typer.Option(help="What --start serves.")] = Path("model_store"),
    out: Annotated[
        Path | None, typer.Option(help="Report OUT.html and OUT.json; default .build/loadtest/.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="An earlier report, OLD.json, to compare with.")
    ] = None,
) -> None:
    """Load a service and judge it: PASS (0), FAIL (1) or INVALID (2).

    Every reply is checked against a known answer. Latency counts from the moment a request was
    due. INVALID means that the run cannot tell: the client was the limit, or samples are too few.
    """
    require_packages()
    from skipserve.address import Address
    from skipserve.hosts.config import HostConfig
    from skipserve.hosts.launcher import Server
    from skipserve.hosts.processes import listen_to_signals
    from skipserve.loadtest.compare import compare_reports
    from skipserve.loadtest.gate import EXIT
    from skipserve.loadtest.payloads import parse_mix
    from skipserve.loadtest.plan import Plan
    from skipserve.loadtest.report import summarise, write_html
    from skipserve.loadtest.results import read_report, write_report
    from skipserve.loadtest.session import run
    from skipserve.loadtest.slo import parse_slo
    from skipserve.loadtest.target import Target

    objective = parse_slo(slo)
    choices = parse_mix(model, router, rows)
    if data is not None and len({choice.model for choice in choices}) > 1:
        raise ConfigError("--data holds rows of one model, and the mix names several")
    earlier = read_report(compare) if compare else None
    name = out or OUT / "-".join(dict.fromkeys(choice.model for choice in choices))
    plan = Plan(
        choices,
        duration if duration is not None else 3.0 if capacity else 30.0,
        _rate(rate, users, capacity),
        users,
        _one_of("shape", shape, ("steady", "step", "spike", "soak")),
        _one_of("arrivals", arrivals, ("poisson", "constant")),
        baseline,
        max(connections, users or 0),
        timeout,
        seed,
    )
    if not capacity:
        plan.check(objective)
    address = Address(host, port, metrics_port)
    target = Target(address.inference_url, f"{address.metrics_url}/metrics")
    archives = _archives(model_store, choices) if start else []
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(listen_to_signals()).stop
        if archives:
            console.print(f"starting {', '.join(archive.stem for archive in archives)}")
            stack.enter_context(Server(archives, HostConfig(address), stop=stop))
        subjects = _subjects(target, artifacts, choices, data)
        if capacity:
            _search(plan, objective, target, subjects, stop, name)
        report = run(plan, objective, target, subjects, stop, console.print)
    changes = compare_reports(earlier, report) if earlier else []
    write_report(name.with_name(f"{name.name}.json"), report, summarise(report))
    write_html(name.with_name(f"{name.name}.html"), report, changes)
    for check in report.checks:
        typer.echo(f"{check.verdict:<8}{check.what:<14}{check.found}")
    for change in changes:
        typer.echo(str(change))
    typer.echo(f"{report.verdict}; report in {name}.html and {name}.json")
    raise typer.Exit(EXIT[report.verdict])


def require_packages() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigError: Naming what is missing and what installs it.
    """
    missing = [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        install = "pip install 'skipserve[loadtest]'"
        if (CLONE / "Makefile").is_file():  # pip would put it into another environment
            install = "make .venv/load"
        raise ConfigError(
            f"a load test needs what is not installed: {', '.join(missing)}; "
            f"install it with: {install}"
        )


def _rate(rate: float | None, users: int | None, capacity: bool) -> float:
    if users is not None:
        if rate is not None or capacity:
            raise ConfigError("--users is a closed loop: leave out --rate and --capacity")
        return 0.0
    if rate is None and not capacity:
        raise ConfigError("say how much load: --rate REQUESTS_PER_SECOND, or --users COUNT")
    return 100.0 if rate is None else rate


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ConfigError(f"--{what} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def _archives(model_store: Path, choices: list[Choice]) -> list[Path]:
    archives = [model_store / f"{name}.mar" for name in dict.fromkeys(c.model for c in choices)]
    for archive in archives:
        if not archive.is_file():
            raise ConfigError(
                f"there is no {archive} to start; make it with "
                f"`skipserve build export/{archive.stem}.toml`"
            )
    return archives


def _search(
    plan: Plan,
    objective: Objective,
    target: Target,
    subjects: list[Subject],
    stop: threading.Event,
    name: Path,
) -> None:
    from datetime import datetime, timezone

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
    for one in found:
        held = f"{one.highest:.0f} requests/s hold" if one.highest else "no rate holds"
        above = f", {one.failing:.0f} do not" if one.failing else ""
        partial = "" if one.complete else " (partial: stopped)"
        typer.echo(f"{TITLES[one.name]}: {held}{above}{partial}")
    typer.echo(f"report in {base}.html and {base}.json")
    raise typer.Exit(2 if stop.is_set() else 0)


def _subjects(
    target: Target, artifacts: Path, choices: list[Choice], data: Path | None
) -> list[Subject]:
    from skipserve.loadtest.pools import make_subject

    return [
        make_subject(
            target,
            artifacts / name,
            [choice for choice in choices if choice.model == name],
            data=data,
            say=console.print,
        )
        for name in dict.fromkeys(choice.model for choice in choices)
    ]
