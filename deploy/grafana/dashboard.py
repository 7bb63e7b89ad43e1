"""The dashboard as code; ``python deploy/grafana/dashboard.py`` writes its JSON."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from earning_rows import earning
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from overview_rows import every_model, glance
from panels import DATASOURCE
from queries import SLICES, increase
from router_rows import agreement, depth, drift, intervals
from service_rows import latency, runtime, traffic

OUT = Path(__file__).parent / "dashboards" / "skipserve.json"
ROWS = {
    "Now": glance,
    "Every model": every_model,
    "Latency": latency,
    "Traffic": traffic,
    "Depth": depth,
    "Skip rate of each block in its interval": intervals,
    "Agreement": agreement,
    "Earning": earning,
    "Drift": drift,
    "Runtime": runtime,
}


def build() -> dashboard.Dashboard:
    """Everything, in the order of the page."""
    page = (
        dashboard.Dashboard("skipserve")
        .uid("skipserve")
        .description("How fast it is, how deep inputs go, and whether skipping still agrees.")
        .tags(["skipserve"])
        .readonly()
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(_choice("model", "Model", "label_values(skipserve_model_info, model)"))
        .with_variable(
            _choices("instance", "Instance", "label_values(skipserve_build_info, instance)")
        )
        .with_variable(
            _choices(
                "block",
                "Block",
                'label_values(skipserve_block_rows_total{model="$model"}, block)',
            )
        )
        .with_variable(
            _choices(
                "slice", "Slice", 'label_values(skipserve_router_state{model="$model"}, slice)'
            ).all_value(".*")
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Fall-backs")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f"{increase('skipserve_router_fallbacks_total', SLICES, '1m')} > 0")
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Earned something bolder")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("green")
            .expr(f"{increase('skipserve_earning_bolder_total', SLICES, '1m')} > 0")
        )
    )
    ids = itertools.count(1)
    for title, panels in ROWS.items():
        page = page.with_row(dashboard.Row(title).id(next(ids)))
        for panel in panels():
            page = page.with_panel(panel.id(next(ids)))
    return page


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )


def _choices(name: str, label: str, query: str) -> dashboard.QueryVariable:
    everything = VariableOption(selected=True, text="All", value="$__all")
    return _choice(name, label, query).multi(True).include_all(True).current(everything)


def main() -> None:
    """Write the JSON that Grafana reads."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    text = json.dumps(build().build(), cls=JSONEncoder, indent=2, ensure_ascii=False)
    parser.parse_args().out.write_text(text + "\n")


if __name__ == "__main__":
    main()
