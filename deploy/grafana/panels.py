"""What every panel has: unit, thresholds, description, and words for no traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    HeatmapCellLayout,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
NO_TRAFFIC = "no traffic"

Query = prometheus.Dataquery
# (value from which it holds, colour); the first has no value.
Steps = Sequence[tuple[float | None, str]]
NEUTRAL: Steps = [(None, "blue")]
ANY: Steps = [(None, "green"), (1, "red")]
MS_15: Steps = [(None, "green"), (0.015, "red")]
HELD_BACK: Steps = [(None, "green"), (0.05, "orange"), (0.2, "red")]

Panel = (
    bargauge.Panel
    | heatmap.Panel
    | stat.Panel
    | statetimeline.Panel
    | table.Panel
    | timeseries.Panel
)
P = TypeVar(
    "P",
    bargauge.Panel,
    heatmap.Panel,
    stat.Panel,
    statetimeline.Panel,
    table.Panel,
    timeseries.Panel,
)


def query(expr: str, legend: str = "") -> Query:
    """A query over the time shown."""
    return Query().datasource(DATASOURCE).expr(expr).legend_format(legend).range()


def now(expr: str, legend: str = "") -> Query:
    """A query of the newest value only."""
    return query(expr, legend).instant()


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    steps: Steps = NEUTRAL,
    *,
    log: bool = False,
) -> timeseries.Panel:
    """Lines over time; thresholds are drawn dashed, unless there is only the first step."""
    panel = _common(timeseries.Panel(), title, description, unit, queries, steps).min(0)
    if log:
        panel = panel.scale_distribution(
            common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        )
    if len(steps) > 1:
        panel = panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    return (
        panel.line_width(2)
        .fill_opacity(0)
        .legend(legend.placement(LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .height(8)
    )


def band(panel: timeseries.Panel, low: str, high: str) -> timeseries.Panel:
    """Fill the space between the lines called ``low`` and ``high`` of a panel."""
    thin = DynamicConfigValue("custom.lineWidth", 0)
    fill = [
        DynamicConfigValue("custom.fillBelowTo", low),
        DynamicConfigValue("custom.fillOpacity", 20),
    ]
    return panel.override_by_name(low, [thin]).override_by_name(high, [thin, *fill])


def number(
    title: str, description: str, unit: str, queries: Sequence[Query], steps: Steps = NEUTRAL
) -> stat.Panel:
    """The figures of this moment, coloured by their thresholds.

    Take queries of :func:`now`: over time, the last value would outlive the traffic it came from.
    """
    return (
        _common(stat.Panel(), title, description, unit, queries, steps)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
    )


def word(title: str, description: str, queries: Sequence[Query]) -> stat.Panel:
    """The names of the series that are there."""
    return (
        _common(stat.Panel(), title, description, "none", queries, NEUTRAL)
        .text_mode(BigValueTextMode.NAME)
        .graph_mode(BigValueGraphMode.NONE)
        .height(4)
    )


def bars(
    title: str, description: str, unit: str, queries: Sequence[Query], steps: Steps = NEUTRAL
) -> bargauge.Panel:
    """One horizontal bar a series."""
    return (
        _common(bargauge.Panel(), title, description, unit, queries, steps)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .orientation(VizOrientation.HORIZONTAL)
        .min(0)
        .height(8)
    )


def heat(title: str, description: str, unit: str, expr: str, steps: Steps) -> heatmap.Panel:
    """A histogram over time; ``expr`` keeps the label ``le``."""
    buckets = query(expr, "{{le}}").format(PromQueryFormat.HEATMAP)
    return (
        _common(heatmap.Panel(), title, description, unit, [buckets], steps)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(HeatmapCellLayout.LE))
        .color(heatmap.HeatmapColorOptions().scheme("Blues").steps(64).reverse(True))
        .hide_legend()
        .height(8)
    )


def states(title: str, description: str, queries: Sequence[Query]) -> statetimeline.Panel:
    """A strip of time for each series of zeros and ones."""
    words = ValueMap({"0": ValueMappingResult(text=" "), "1": ValueMappingResult(text="yes")})
    steps: Steps = [(None, "transparent"), (1, "blue")]
    colour = dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
    panel = _common(
        statetimeline.Panel(), title, description, "bool_yes_no", queries, steps, [words]
    )
    return panel.color_scheme(colour).fill_opacity(70).height(8)


def facts(title: str, description: str, expr: str, hidden: Sequence[str]) -> table.Panel:
    """The labels of a series whose value is 1."""
    target = now(expr).format(PromQueryFormat.TABLE)
    organise = DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": dict.fromkeys(("Time", "Value", "__name__", *hidden), True)},
    )
    panel = _common(table.Panel(), title, description, "none", [target], NEUTRAL)
    return panel.with_transformation(organise).height(5)


def _common(
    panel: P,
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    steps: Steps,
    words: Sequence[ValueMapping] = (),
) -> P:
    nothing = SpecialValueMap(
        DashboardSpecialValueMapOptions(
            match=SpecialValueMatch.NULL_AND_NAN, result=ValueMappingResult(text=NO_TRAFFIC)
        )
    )
    bounds = [Threshold(value, colour) for value, colour in steps]
    for ref, target in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(target.ref_id(ref))
    return (
        panel.title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(bounds))
        .mappings([*words, nothing])
        .no_value(NO_TRAFFIC)
    )
