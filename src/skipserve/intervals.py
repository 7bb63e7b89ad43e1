"""Counted rates: the exact binomial test, exact intervals, and how many samples a claim needs.

Everything that counts rows asks here: certificates, reports, load tests and `skipserve top`. It
needs no SciPy, because what serves has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

# Bisections of an interval of length 1: far below what any count can tell apart.
_HALVINGS = 60
# More terms of a binomial sum take longer than its closed form.
_MOST_TERMS = 100_000
_TINY = 1e-300
_EPSILON = 1e-15


@dataclass(frozen=True)
class Rate:
    """A counted rate with an interval for the true rate.

    Attributes:
        count: Rows that were counted.
        total: Rows that were looked at.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The observed rate; NaN if no row was looked at."""
        return self.count / self.total if self.total else math.nan

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


@lru_cache(maxsize=256)
def spelled(value: float) -> str:
    """A chosen number with all its digits and no exponent, such as ``0.00005``.

    A label or a request names a risk so, and finds the certificate of exactly that risk.
    Prometheus and JavaScript spell numbers of this size the same way.
    """
    return f"{Decimal(repr(float(value))):f}"


def percent(value: float) -> str:
    """A chosen rate in per cent, such as a risk or a confidence: exactly that number."""
    return f"{Decimal(repr(float(value))).scaleb(2):f}%"


def short_time(seconds: float) -> str:
    """A time in words: ``34 µs``, ``12.4 ms``, ``1.25 s``."""
    if seconds < 999.5e-6:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def ratio(text: str) -> float:
    """The number that ``1%`` or ``0.01`` means: of one number in two spellings, the same.

    Raises:
        ValueError: If it is no number.
    """
    if not text.endswith("%"):
        return float(text)
    try:
        return float(Decimal(text[:-1]).scaleb(-2))
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number") from None


def p_value(count: int, total: int, rate: float) -> float:
    """Probability of at most ``count`` among ``total`` if the true rate is ``rate``.

    This is the exact binomial p-value against "the true rate is at least ``rate``". It is summed
    term by term in logarithms; of many terms it is the incomplete beta function.

    Args:
        count: Rows that were counted, such as disagreements.
        total: Rows that were looked at.
        rate: In (0, 1), such as ε.
    """
    if count < 0:
        return 0.0
    if count >= total:
        return 1.0
    if count > _MOST_TERMS:
        return min(1.0, max(0.0, _beta(total - count, count + 1, 1 - rate)))
    yes, no, ways = math.log(rate), math.log1p(-rate), math.lgamma(total + 1)
    terms = [
        ways - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * yes + (total - k) * no
        for k in range(count + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, terms)))


def upper_bound(count: int, total: int, confidence: float) -> float:
    """Largest true rate that the count does not rule out (Clopper and Pearson, 1934).

    Args:
        count: Rows that were counted.
        total: Rows that were looked at; 1.0 is returned if there are none.
        confidence: 1 − δ, one-sided.
    """
    if count >= total:
        return 1.0
    return _root(lambda rate: _beta(count + 1, total - count, rate), confidence)


def lower_bound(count: int, total: int, confidence: float) -> float:
    """Smallest true rate that the count does not rule out (Clopper and Pearson, 1934).

    Args:
        count: Rows that were counted.
        total: Rows that were looked at.
        confidence: 1 − δ, one-sided.
    """
    if count <= 0:
        return 0.0
    return _root(lambda rate: _beta(count, total - count + 1, rate), 1 - confidence)


def rate(count: int, total: int, confidence: float = 0.95) -> Rate:
    """A counted rate with its two-sided exact interval.

    Each end holds by itself at ``(1 + confidence) / 2``: an interval at 0.9 has ends at 0.95.

    Args:
        count: Rows that were counted.
        total: Rows that were looked at.
        confidence: Of both ends together.
    """
    end = (1 + confidence) / 2
    return Rate(count, total, lower_bound(count, total, end), upper_bound(count, total, end))


def samples_needed(risk: float, confidence: float) -> int:
    """Fewest samples that rule out a rate of ``risk`` if none of them is counted.

    That many are needed to certify ``risk``. The largest of that many samples is an upper end for
    the percentile ``1 - risk``: 5 for p50, 299 for p99, 2,995 for p99.9 at 0.95.

    Args:
        risk: In (0, 1).
        confidence: 1 − δ.
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def _root(rising: Callable[[float], float], value: float) -> float:
    """The place in [0, 1] where a rising function takes a value."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return high


def _beta(a: int, b: int, x: float) -> float:
    """The regularised incomplete beta function, P(Binomial(a + b − 1, x) ≥ a)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _continued_fraction(a, b, x) / a


def _continued_fraction(a: int, b: int, x: float) -> float:
    """The continued fraction of the beta function (Press et al., Numerical Recipes, 6.4)."""
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, 100 + 10 * math.isqrt(a + b)):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            found *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return found


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
