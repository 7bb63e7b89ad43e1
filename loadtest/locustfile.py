"""What Locust opens, for its web page and its distributed workers:

    locust -f loadtest/locustfile.py --model moons_residual --rate 100 --seconds 30 -u 64 -r 64

`-u` is how many requests can be on their way at once; what is due comes from a schedule that the
workers share. Latencies count from the moment a request was due, and every reply is checked. What
is printed at the end comes from HDR histograms; Locust's own table rounds to whole milliseconds.
`skipserve loadtest` judges a run; this only shows it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from skipserve.errors import SkipserveError
from skipserve.loadtest.dispatcher import Dispatcher
from skipserve.loadtest.payloads import Pool, parse_mix
from skipserve.loadtest.periods import Period, PeriodResult
from skipserve.loadtest.pools import make_subject
from skipserve.loadtest.results import Arm
from skipserve.loadtest.schedule import shape
from skipserve.loadtest.target import Target
from skipserve.loadtest.users import ModelUser

TIMEOUT_S = 10.0
# Only a test that has begun can be ended.
BEGUN_S = 1.0
DISPATCHER = Dispatcher({}, TIMEOUT_S)


class Asking(ModelUser):
    """One connection to the service."""

    dispatcher = DISPATCHER
    host = "http://127.0.0.1:8080"
    connection_timeout = network_timeout = TIMEOUT_S


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The options of `skipserve loadtest` that shape the load; they are on the web page, too."""
    parser.add_argument("--model", default="moons_residual", help="NAME or NAME=WEIGHT,…")
    parser.add_argument("--router", default="default", help="default, on, off or a risk; or a mix")
    parser.add_argument("--rows", default="1", help="rows a request; or a mix")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load")
    parser.add_argument("--shape", default="steady", help="steady, step, spike or soak")
    parser.add_argument("--arrivals", default="poisson", help="poisson or constant")
    parser.add_argument("--closed", type=int, default=0, help="users of a closed loop, no rate")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and mix")
    parser.add_argument("--artifacts", default="artifacts", help="where known answers come from")
    parser.add_argument(
        "--service-metrics", default="http://127.0.0.1:9464/metrics", help="the service's own"
    )


@events.init.add_listener
def listen(environment: Environment, **_: Any) -> None:
    """Workers wait for their share of the load, whoever hands it out for what they measured."""
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        runner.register_message("share", take_share)
    if not isinstance(runner, WorkerRunner):
        runner.register_message("measured", collect)


@events.test_start.add_listener
def hand_out(environment: Environment, **_: Any) -> None:
    """Give every worker its part of one schedule."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        return
    try:
        period = asked(options)
    except SkipserveError as error:
        # Locust logs what a listener raises, and goes on: its users would wait for ever.
        print(f"error: {error}", file=sys.stderr)
        environment.process_exit_code = 2
        end(environment, BEGUN_S)
        return
    clients = [None]
    if isinstance(runner, MasterRunner):
        clients = [client.id for client in runner.clients.ready]
    environment.waiting_for, environment.measured = len(clients), []
    for part, client in enumerate(clients):
        share = {
            "part": part,
            "parts": len(clients),
            "period": msgspec.to_builtins(period),
            "host": environment.host or Asking.host,
            "metrics": options.service_metrics,
            "artifacts": str(Path(options.artifacts).resolve()),
        }
        runner.send_message("share", share, client)


def asked(options: Any) -> Period:
    """The load that options describe.

    Raises:
        ConfigError: If one of them is wrong.
    """
    segments = shape(options.shape, options.rate, options.seconds)
    return Period(
        parse_mix(options.model, options.router, options.rows),
        [(one.duration_s, one.rate) for one in segments],
        options.arrivals,
        options.seed,
        options.seconds,
        options.closed or None,
    )


def end(environment: Environment, later_s: float = 0.0) -> None:
    """End the test, and Locust where it has no page that could start another."""
    runner = environment.runner
    headless = environment.parsed_options.headless
    gevent.spawn_later(later_s, runner.quit if headless else runner.stop)


@events.test_stopping.add_listener
def stop(environment: Environment, **_: Any) -> None:
    """End the schedule when somebody presses stop."""
    DISPATCHER.stop()


def take_share(environment: Environment, msg: Any, **_: Any) -> None:
    """Run a share of the load, and tell what it measured."""

    def drive() -> None:
        share = msg.data
        period = msgspec.convert(share["period"], Period)
        # In a native thread: a worker that does not answer for three seconds is given up.
        DISPATCHER.hold(gevent.get_hub().threadpool.apply(work_out, (share, period)))
        # Working out the answers took seconds that no rate should be divided by.
        environment.stats.clear_all()
        result = DISPATCHER.run(period, share["part"], share["parts"])
        measured = {"period": share["period"], "result": msgspec.to_builtins(result)}
        environment.runner.send_message("measured", measured)

    gevent.spawn(drive).link_exception(lambda _: environment.runner.quit())


def work_out(share: dict[str, Any], period: Period) -> list[Pool]:
    """Rows and answers of every model in a period."""
    target = Target(share["host"], share["metrics"])
    choices = {
        name: [choice for choice in period.choices if choice.model == name]
        for name in dict.fromkeys(choice.model for choice in period.choices)
    }
    artifacts = Path(share["artifacts"])
    return [make_subject(target, artifacts / name, mix).pool for name, mix in choices.items()]


def collect(environment: Environment, msg: Any, **_: Any) -> None:
    """Add up what the workers measured; the last one ends the test."""
    period = msgspec.convert(msg.data["period"], Period)
    environment.measured.append(msgspec.convert(msg.data["result"], PeriodResult))
    if len(environment.measured) < environment.waiting_for:
        return
    arm = Arm("asked", period.choices, environment.measured, period.duration_s)
    for name in ("corrected", "uncorrected", "lag"):
        sample = getattr(arm.total, name)
        figures = (f"p{p:g} {sample.percentile(p) * 1e3:.3f}" for p in (50, 90, 99, 99.9))
        print(f"{name:>12} ms: {', '.join(figures)}")
    tally = arm.total
    print(
        f"{tally.answered} of {tally.requests} right, {tally.disagreements} of "
        f"{tally.routed_rows} routed rows disagree with full depth"
    )
    end(environment)
