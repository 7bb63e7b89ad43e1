"""The objective a run is judged by: ``p50=15ms,p99=50ms,errors=0,disagreement=0.01``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from skipserve.errors import ConfigError

UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
RATES = ("errors", "disagreement")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s)")
EXAMPLE = "p50=15ms,p99=50ms,errors=0,disagreement=0.01"


@dataclass(frozen=True)
class Objective:
    """The objective of a load test.

    Attributes:
        percentiles: Percent and the latency in seconds it must stay under, in the order given.
        errors: Largest share of the requests that may fail, or ``None`` if not asked.
        disagreement: Largest share of the routed rows that may differ from full depth.
    """

    percentiles: tuple[tuple[float, float], ...] = ()
    errors: float | None = None
    disagreement: float | None = None

    def __str__(self) -> str:
        parts = [f"p{percent:g}={limit_s * 1e3:g}ms" for percent, limit_s in self.percentiles]
        rates = [(name, getattr(self, name)) for name in RATES]
        return ",".join(parts + [f"{name}={limit:g}" for name, limit in rates if limit is not None])


def parse_slo(text: str) -> Objective:
    """Read an objective.

    Raises:
        ConfigError: If a part cannot be parsed, names an unknown measure or one twice.
    """
    percentiles: dict[float, float] = {}
    rates: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"slo: {part!r} is not MEASURE=LIMIT; for example {EXAMPLE}")
        found = _PERCENTILE.fullmatch(name)
        if found and 0 < float(found[1]) < 100:
            known, key, limit = percentiles, float(found[1]), _seconds(name, value)
            if key in known:
                raise ConfigError(f"slo: {name} is given twice")
            percentiles[key] = limit
        elif name in RATES:
            if name in rates:
                raise ConfigError(f"slo: {name} is given twice")
            rates[name] = _ratio(name, value)
        else:
            near = difflib.get_close_matches(name, ["p50", "p99", *RATES], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"slo: unknown measure {name!r}{hint}; measures are p50, p99, p99.9 (any "
                f"percentile above 0 and below 100), {' and '.join(RATES)}"
            )
    if not percentiles and not rates:
        raise ConfigError(f"slo: nothing is asked for; for example {EXAMPLE}")
    return Objective(tuple(percentiles.items()), **rates)


def _seconds(name: str, value: str) -> float:
    found = _DURATION.fullmatch(value)
    if not found or float(found[1]) == 0:
        raise ConfigError(
            f"slo: {name}={value} is not a duration; expected a number above 0 with its unit, "
            "us, ms or s, such as 15ms"
        )
    return float(found[1]) * UNITS[found[2]]


def _ratio(name: str, value: str) -> float:
    try:
        ratio = float(value)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio < 1:
        raise ConfigError(f"slo: {name}={value} is not a ratio; expected 0 or more and below 1")
    return ratio
