"""The committed dashboard equals what dashboard.py writes, and its panels are complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
COMMITTED = GRAFANA / "dashboards" / "skipserve.json"
DASHBOARD = json.loads(COMMITTED.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="the SDK asks for Python 3.11")
def test_the_dashboard_is_what_its_code_writes(tmp_path):
    out = tmp_path / "dashboard.json"
    subprocess.run([sys.executable, GRAFANA / "dashboard.py", "--out", out], check=True)
    assert out.read_text() == COMMITTED.read_text(), "run python deploy/grafana/dashboard.py"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_unit_thresholds_description_and_words_for_no_traffic(panel):
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 10
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"]
    assert defaults["noValue"] == "no traffic"
    special = [one["options"] for one in defaults["mappings"] if one["type"] == "special"]
    assert special == [{"match": "null+nan", "result": {"text": "no traffic"}}]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_what_the_page_shows_of_the_service():
    titles = {panel["title"] for panel in PANELS}
    heat = [panel["title"] for panel in PANELS if panel["type"] == "heatmap"]
    assert heat[:2] == ["Latency, a block left out", "Latency, full depth"]
    assert titles >= {"Latency", "Disagreement", "Alarm", "Drift", "Router state", "Queue wait"}
    line = next(panel for panel in PANELS if panel["title"] == "Latency")["fieldConfig"]["defaults"]
    assert line["thresholds"]["steps"][1]["value"] == 0.015
    assert line["custom"]["thresholdsStyle"]["mode"] == "dashed"
    names = [one["name"] for one in DASHBOARD["annotations"]["list"]]
    assert names == ["Fall-backs", "Earned something bolder"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


def test_variables():
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "model", "instance", "block", "slice"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["instance"]["includeAll"]


def test_a_panel_of_one_model_asks_for_no_other():
    for panel in PANELS:
        if panel["title"].endswith(("every model", "Build", "restarts")):
            continue
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h")
            promql_parser.parse(expr)
            assert '="$model"' in expr, panel["title"]


def test_provisioning_names_what_the_dashboard_asks_for():
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    assert [one["type"] for one in source["datasources"]] == ["prometheus"]
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/skipserve.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
