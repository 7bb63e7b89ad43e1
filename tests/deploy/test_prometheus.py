"""Rules, alerts and queries of the dashboard, in promtool and in a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import promql_parser
import pytest
import yaml
from observed import MODEL
from running import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
RECORDED = [rule for group in RULES for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/skipserve.json").read_text())
TESTS = sorted((DEPLOY / "prometheus/tests").glob("*.yml"))

FOREIGN = {"up"}  # Prometheus's own
# What stays empty in a test of a minute, and why.
EMPTY = {"model:skipserve_skip:ratio_rate6h_before": "needs traffic of half an hour ago"}
# What only a model that proposes on traffic has; test_proposing_served.py sees these of one.
PROPOSING = ("skipserve_earning_proposing_rows", "skipserve_earning_proposing_needed_rows")
SERIES = {
    f'{PROPOSING[0]}{{model="{MODEL}",instance="a"}}': "200",
    f'{PROPOSING[1]}{{model="{MODEL}",instance="a"}}': "1000",
    f'skipserve_earning_in_force{{model="{MODEL}",instance="a",risk="0.05"}}': "3",
    f'skipserve_earning_proposed{{model="{MODEL}",instance="a",risk="0.05"}}': "1",
}
OF_PROPOSING = {
    "panel Next certificate B": ("{}", 0.2),
    "panel Candidate in force B": ('{risk="0.05"}', 3),
}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration():
    run("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_silent(file):
    run("promtool", "test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_is_tested_both_ways_and_has_its_paragraph(alert):
    name = alert["alert"]
    cases = [
        bool(case["exp_alerts"])
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
    ]
    assert set(cases) == {True, False}
    file, anchor = alert["annotations"]["runbook_url"].split("#")
    _, _, paragraph = (ROOT / file).read_text().partition(f"\n## {name}\n")
    assert anchor == name.lower()
    assert len(paragraph.partition("\n## ")[0]) > 200
    assert alert["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_names_no_alert_that_is_gone():
    titles = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert titles == {alert["alert"] for alert in ALERTS}


def test_the_runbook_names_panels_that_exist():
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    named = set(
        re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", (ROOT / "docs/runbook.md").read_text())
    )
    assert named - titles == {"Status → Targets"}  # a page of Prometheus


def queries() -> dict[str, str]:
    """Every query of the dashboard, with one model and all instances and blocks chosen."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            found[f"variable {variable['name']}"] = f"count by ({selector[2]}) ({selector[1]})"
    chosen = {"$model": MODEL, "$instance": ".*", "$block": ".*", "$slice": ".*"}
    spans = {"$__rate_interval": "5m", "$__range": "5m"}
    for name, expr in found.items():
        for variable, value in (chosen | spans).items():
            expr = expr.replace(variable, value)
        found[name] = expr
    return found


def selectors(expr: str) -> list[promql_parser.VectorSelector]:
    """What an expression reads, each with its label matchers."""
    found = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


@dataclass
class Prometheus:
    """A running Prometheus."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url) as reply:
            return json.load(reply)["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        return self.api("query", query=expr)["result"]

    def shown(self, expr: str, seconds: int = 600) -> set[str]:
        """Every value that a panel over the last seconds has shown."""
        now = time.time()
        series = self.api(
            "query_range", query=expr, start=str(now - seconds), end=str(now), step="2"
        )["result"]
        return {value for one in series for _, value in one["values"]}

    def names(self) -> set[str]:
        return set(self.api("label/__name__/values"))


@pytest.fixture(scope="module")
def prometheus(observed, tmp_path_factory):
    """The real Prometheus with the committed files; it scrapes each second and not each 15."""
    directory = tmp_path_factory.mktemp("prometheus")
    for name in ("prometheus.yml", "rules.yml", "alerts.yml"):
        text = (DEPLOY / "prometheus" / name).read_text()
        (directory / name).write_text(re.sub(r"interval: \d+s", "interval: 1s", text))
    targets = (DEPLOY / "prometheus/targets.yml").read_text()
    targets = targets.replace("9464", str(observed.running.metrics_port))
    (directory / "targets.yml").write_text(targets)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (directory / "log").open("w")
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=log,
    )
    try:
        started = Prometheus(port)
        until(lambda: answers(started) and len(started.ask("up == 1")) == 1)
        drive(observed, started)
        yield started
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def answers(started: Prometheus) -> bool:
    with contextlib.suppress(URLError):
        return bool(started.api("status/buildinfo"))
    return False


def drive(observed, started: Prometheus) -> None:
    """Real load until Prometheus saw it in several scrapes and evaluated its rules on it."""
    deadline = time.monotonic() + 60
    while True:
        observed.traffic(150)
        observed.traffic(10, router="off")
        observed.bad_request()
        drifted = started.ask("model_stage:skipserve_signal:psi_1h")
        shown = started.ask("skipserve_signal_drift_ratio")
        if drifted and shown and started.ask("count_over_time(up[1m]) > 8"):
            return
        assert time.monotonic() < deadline, (drifted, shown)


@pytest.mark.server
def test_nothing_is_alarming_about_good_traffic(prometheus):
    ringing = {alert["labels"]["alertname"] for alert in prometheus.api("alerts")["alerts"]}
    busy_machine = {"SkipserveP50Above15ms", "SkipserveBudgetBurnsFast"}
    every_row_is_drawn = {"SkipserveEvidenceStarved"}
    # A thousand rows again and again: few of them get to a later stage.
    few_rows = {"SkipserveSignalDrifted"}
    assert ringing <= busy_machine | every_row_is_drawn | few_rows


@pytest.fixture(scope="module")
def fallen(observed, prometheus):
    """The same after the alarm switched skipping off."""
    observed.until_it_falls_back()
    until(lambda: prometheus.ask("increase(skipserve_router_fallbacks_total[1m]) > 0"))
    yield prometheus
    observed.switch_on()


@pytest.fixture(scope="module")
def earned(observed, fallen):
    """The same once its traffic has earned anew: every query has something to say."""
    deadline = time.monotonic() + 120
    bolder = "increase(skipserve_earning_bolder_total[1m]) > 0"
    while not all(map(fallen.ask, (bolder, "skipserve_earning_in_force"))):
        assert time.monotonic() < deadline
        observed.traffic(50)
    return fallen


@pytest.mark.server
def test_every_rule_is_evaluated_and_returns_data(fallen):
    groups = fallen.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert len(rules) == len(RECORDED) + len(ALERTS)
    names = fallen.names()
    silent = {rule["record"] for rule in RECORDED} - names
    assert silent == EMPTY.keys()


@pytest.mark.server
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_what_an_alert_looks_at_is_there(fallen, alert):
    empty = {one.name for one in selectors(alert["expr"]) if not fallen.ask(str(one))}
    assert empty <= EMPTY.keys()


@pytest.mark.server
def test_a_fall_back_rings(fallen):
    until(lambda: fallen.ask('ALERTS{alertname="SkipserveRouterFellBack", alertstate="firing"}'))


@pytest.mark.parametrize("name", OF_PROPOSING)
def test_a_query_about_proposing_shows_data_of_a_model_that_proposes(name, tmp_path):
    series = [{"series": one, "values": value} for one, value in SERIES.items()]
    labels, value = OF_PROPOSING[name]
    asked = {"expr": queries()[name], "exp_samples": [{"labels": labels, "value": value}]}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}
    file = tmp_path / "proposing.yml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    run("promtool", "test", "rules", file)


@pytest.mark.server
@pytest.mark.parametrize("name", [one for one in queries() if one not in OF_PROPOSING])
def test_every_query_of_the_dashboard_shows_data(earned, name):
    # At some time: once the boldest candidate is earned, nothing is left to earn next.
    assert earned.shown(queries()[name]) - {"NaN"}


@pytest.mark.server
def test_every_metric_of_ours_is_used_and_no_query_names_another(earned):
    used = {
        one.name
        for expr in (
            *queries().values(),
            *(rule["expr"] for rule in RECORDED),
            *(alert["expr"] for alert in ALERTS),
        )
        for one in selectors(expr)
    }
    recorded = {rule["record"] for rule in RECORDED}
    ours = {name for name in earned.names() if name.startswith("skipserve_")}
    assert used - recorded - FOREIGN - {*PROPOSING} <= ours
    assert {family(name) for name in ours} <= {family(name) for name in used}
    assert recorded <= used, "a rule that nothing reads"


def family(name: str) -> str:
    """A histogram's three metrics are one."""
    return re.sub(r"_(bucket|sum|count)$", "", name)
