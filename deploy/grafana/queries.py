"""The PromQL that panels share, for the model and the instances chosen above the dashboard.

A share of nothing is left out (``> 0``, ``>= 0``), so that a panel without traffic says so.
"""

from __future__ import annotations

ONE = 'model="$model",instance=~"$instance"'
WINDOW = "$__rate_interval"

BLOCKS = "skipserve_block_rows_total"
DURATION = "skipserve_request_duration_seconds"
DISAGREEMENT = "model_risk:skipserve_disagreement"
ON = ',router="on"'
SKIPPED = ',action="skipped"'
# What a model's traffic earns is told by slice; without slices there is one without a name.
SLICES = ',slice=~"$slice"'


def gauge(metric: str, more: str = "") -> str:
    """A metric as it is."""
    return f"{metric}{{{ONE}{more}}}"


def rate(metric: str, more: str = "") -> str:
    """A counter per second."""
    return f"rate({metric}{{{ONE}{more}}}[{WINDOW}])"


def everywhere(metric: str, label: str = "model") -> str:
    """A counter per second, summed over all instances: what can be compared with TorchServe's."""
    return f'sum(rate({metric}{{{label}="$model"}}[{WINDOW}]))'


def increase(metric: str, more: str = "", window: str = WINDOW) -> str:
    """What was added to a counter."""
    return f"increase({metric}{{{ONE}{more}}}[{window}])"


def total(expr: str, by: str = "") -> str:
    """The sum over instances."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def share(part: str, whole: str, by: str = "") -> str:
    """Part of a whole, per label if asked."""
    return f"{total(part, by)} / ({total(whole, by)} > 0)"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """A quantile of a histogram."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {total(rate(f'{metric}_bucket', more), kept)}) >= 0"


def mean(metric: str) -> str:
    """The mean of a histogram."""
    return share(rate(f"{metric}_sum"), rate(f"{metric}_count"))


def wilson(part: str, whole: str, sign: str) -> str:
    """One end of Wilson's 95 % interval of a share of rows (z = 1.96).

    Args:
        part: Increase of a counter.
        whole: Increase of the counter that holds it.
        sign: ``-`` for the lower end, ``+`` for the upper one.
    """
    p, n = f"({total(part)} / ({total(whole)} > 0))", total(whole)
    spread = f"1.96 * sqrt({p} * (1 - {p}) / {n} + 0.9604 / {n} ^ 2)"
    return f"({p} + 1.9208 / {n} {sign} {spread}) / (1 + 3.8416 / {n})"
