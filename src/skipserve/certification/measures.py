"""The two measures of risk."""

from __future__ import annotations

from typing import Literal, get_args

# ``disagreement``: share of the answers that differ from full depth. ``accuracy_lost``: accuracy of
# full depth minus that of the routed answers.
Measure = Literal["disagreement", "accuracy_lost"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
