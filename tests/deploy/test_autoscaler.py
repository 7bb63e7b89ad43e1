"""The autoscaler of deploy/kubernetes/, and the metric that it asks for."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml
from manifests import DEPLOY, one

# Each worker builds the folders when it reads this file.
pytestmark = pytest.mark.slow


def adapter_rule() -> dict[str, Any]:
    values = yaml.safe_load((DEPLOY / "prometheus-adapter/values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    return rule


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes():
    autoscaler = one("overlays/shared-volume", "HorizontalPodAutoscaler")["spec"]
    (asked,) = (each["pods"] for each in autoscaler["metrics"] if each["type"] == "Pods")
    rule = adapter_rule()
    series = rule["seriesQuery"].partition("{")[0]
    assert asked["metric"]["name"] == re.sub(rule["name"]["matches"], rule["name"]["as"], series)
    assert asked["target"]["type"] == "AverageValue"


def test_the_adapters_query_is_the_95th_percentile_of_each_pods_wait(tmp_path):
    """The adapter fills in the template; promtool has Prometheus evaluate what it asks."""
    rule = adapter_rule()
    query = rule["metricsQuery"]
    for name, value in {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": 'namespace="here",pod=~"busy|idle|two-models"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(name, value)
    assert "<<" not in query
    query = f"round({query}, 0.001)"

    def series(pod: str, le: str, added: int, model: str = "m", namespace: str = "here"):
        labels = f'namespace="{namespace}",pod="{pod}",model="{model}",le="{le}"'
        return {
            "series": f"skipserve_queue_wait_seconds_bucket{{{labels}}}",
            "values": f"7+{added}x8",
        }

    # 95 of 100 waited at most 0.001 + 0.009 × (95 − 90) / 10 = 0.0055 s.
    told = {
        "busy": {"m": (90, 100)},
        "idle": {"m": (0, 0)},
        "two-models": {"m": (80, 80), "n": (10, 20)},
    }
    rows = [
        series(pod, le, added, model)
        for pod, models in told.items()
        for model, (short, all_) in models.items()
        for le, added in (("0.001", short), ("0.01", all_), ("+Inf", all_))
    ]
    rows += [series("busy", le, 50, namespace="there") for le in ("0.001", "0.01", "+Inf")]
    expected = {"busy": 5.5, "idle": 0, "two-models": 5.5}
    test = {
        "tests": [
            {
                "interval": "15s",
                "input_series": rows,
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "2m",
                        "exp_samples": [
                            {"labels": f'{{pod="{pod}"}}', "value": value}
                            for pod, value in expected.items()
                        ],
                    }
                ],
            }
        ]
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
