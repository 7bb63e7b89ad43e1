"""The command `skipserve loadtest`."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skipserve.commands import completion, console
from skipserve.commands.capacity import search_capacity
from skipserve.commands.output import print_json
from skipserve.commands.parameters import (
    HOST,
    METRICS_PORT,
    PORT,
    SERVICE,
    STORE,
    Host,
    Json,
    MetricsPort,
    Port,
)
from skipserve.errors import ConfigError

if TYPE_CHECKING:
    from skipserve.loadtest.payloads import Choice
    from skipserve.loadtest.pools import Subject
    from skipserve.loadtest.target import Target

OUT = Path(".build/loadtest")
# Where this package lies in a clone; in an installation no Makefile is there.
CLONE = Path(__file__).resolve().parents[3]
NEEDED = {
    **{"locust": "locust", "hdrh": "hdrhistogram", "scipy": "scipy", "jinja2": "jinja2"},
    "matplotlib": "matplotlib",
}
LOAD, OUTPUT = "Load", "Replies and reports"


def loadtest(
    model: Annotated[
        str,
        typer.Option(
            help="The name of a model, or a mix NAME=WEIGHT,NAME=WEIGHT.",
            autocompletion=completion.model_names,
        ),
    ],
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second, sent on schedule.", rich_help_panel=LOAD),
    ] = None,
    users: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Users that each wait for a reply before they send again, instead of --rate.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds of load: 30 by default, as long again for the baseline; 3 for each "
            "trial of --capacity.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    slo: Annotated[
        str,
        typer.Option(
            help="The objectives; p99.9=…, errors=0.001 and disagreement=0.01 are possible too."
        ),
    ] = "p50=15ms,p99=50ms,errors=0",
    router: Annotated[
        str,
        typer.Option(
            help="What requests ask: default, on, off or a risk; or a mix on=0.8,off=0.2.",
            rich_help_panel=LOAD,
        ),
    ] = "default",
    rows: Annotated[
        str,
        typer.Option(help="Rows in a request, or a mix 1=0.9,8=0.1.", rich_help_panel=LOAD),
    ] = "1",
    shape: Annotated[
        Literal["steady", "step", "spike", "soak"],
        typer.Option(help="The rate over time.", rich_help_panel=LOAD),
    ] = "steady",
    arrivals: Annotated[
        Literal["poisson", "constant"],
        typer.Option(help="The times between requests.", rich_help_panel=LOAD),
    ] = "poisson",
    baseline: Annotated[
        bool,
        typer.Option(
            help="Also send the same requests with the router off, in alternation.",
            rich_help_panel=LOAD,
        ),
    ] = True,
    capacity: Annotated[
        bool, typer.Option("--capacity", help="Search for the highest rate that meets the SLO.")
    ] = False,
    start: Annotated[
        bool,
        typer.Option(
            "--start",
            help="Start the service first and stop it at the end.",
            rich_help_panel=SERVICE,
        ),
    ] = False,
    host: Host = HOST,
    port: Port = PORT,
    metrics_port: MetricsPort = METRICS_PORT,
    connections: Annotated[
        int,
        typer.Option(min=1, help="The most requests that are open at once.", rich_help_panel=LOAD),
    ] = 512,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for a reply.", rich_help_panel=LOAD)
    ] = 10.0,
    seed: Annotated[
        int, typer.Option(min=0, help="The seed of arrivals and mix.", rich_help_panel=LOAD)
    ] = 0,
    artifacts: Annotated[
        Path, typer.Option(help="The folder of artifacts; they give the known answers.")
    ] = Path("artifacts"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows to send. Default: the rows of the recipe, or the few in the manifest.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    model_store: Annotated[
        Path,
        typer.Option(
            help="The folder of archives (.mar) that --start serves.", rich_help_panel=SERVICE
        ),
    ] = STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The report, OUT.html and OUT.json. Default: in .build/loadtest/.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="An earlier report, OLD.json, to compare with.", rich_help_panel=OUTPUT),
    ] = None,
    json: Json = False,
) -> None:
    """Send load to a service and judge it: PASS, FAIL or INVALID.

    Every reply is checked against a known answer. Latency counts from the moment a request was
    due. INVALID means that the run cannot tell: the client was the limit, or samples are too few.

    Exit codes: 0 PASS, 1 FAIL, 2 INVALID or no load test.
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
    from skipserve.loadtest.pools import read_models
    from skipserve.loadtest.report import summarise, write_html
    from skipserve.loadtest.results import read_report, write_report
    from skipserve.loadtest.session import check_disagreement, run
    from skipserve.loadtest.slo import parse_slo
    from skipserve.loadtest.target import Target
    from skipserve.sources.columns import require_rows

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
        shape,
        arrivals,
        baseline,
        max(connections, users or 0),
        timeout,
        seed,
    )
    address = Address(host, port, metrics_port)
    target = Target(address.inference_url, f"{address.metrics_url}/metrics")
    archives = _archives(model_store, choices) if start else []
    models = read_models(artifacts, dict.fromkeys(choice.model for choice in choices))
    if data is not None:
        require_rows(data)
    if not capacity:
        plan.check(objective)
    check_disagreement(plan, objective, models)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(listen_to_signals()).stop
        if archives:
            console.print(f"starting {', '.join(archive.stem for archive in archives)}")
            stack.enter_context(Server(archives, HostConfig(address), stop=stop))
        subjects = _subjects(target, artifacts, choices, data)
        if capacity:
            found = search_capacity(plan, objective, target, subjects, stop, name, json)
            raise typer.Exit(found)
        report = run(plan, objective, target, subjects, stop, console.print)
    changes = compare_reports(earlier, report) if earlier else []
    summary = summarise(report)
    files = {kind: name.with_name(f"{name.name}.{kind}") for kind in ("html", "json")}
    write_report(files["json"], report, summary)
    write_html(files["html"], report, changes)
    if json:
        print_json(
            {
                "verdict": report.verdict,
                "partial": report.partial,
                "checks": report.checks,
                "summary": summary,
                "changes": changes,
                "report": files,
            }
        )
        raise typer.Exit(EXIT[report.verdict])
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


def _archives(model_store: Path, choices: list[Choice]) -> list[Path]:
    archives = [model_store / f"{name}.mar" for name in dict.fromkeys(c.model for c in choices)]
    for archive in archives:
        if not archive.is_file():
            raise ConfigError(
                f"there is no {archive} to start; make it with "
                f"`skipserve build export/{archive.stem}.toml`"
            )
    return archives


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
