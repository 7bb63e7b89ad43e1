"""A risk as a person types it: 0.01 or 1%."""

from __future__ import annotations

import typer


def parse_risk(text: str | float) -> float:
    """The ratio that ``1%`` or ``0.01`` means; a default comes as a number.

    Raises:
        BadParameter: If it is no number between 0 and 1.
    """
    try:
        percent = isinstance(text, str) and text.endswith("%")
        risk = float(str(text)[:-1]) / 100 if percent else float(text)
    except ValueError:
        risk = -1.0
    if not 0 < risk < 1:
        raise typer.BadParameter(f"{text!r} is no risk; write a share such as 1% or 0.01")
    return risk
