"""The end of the build file of a small brought network: few exits, and a risk it reaches."""

from __future__ import annotations


def small_router(*at: int) -> str:
    """Sections [exits], [router] and [serving], the last open for more.

    Args:
        at: Blocks run at each exit.
    """
    return f"""[exits]
at = {list(at)}
first = 0
hidden = 0
corrupted = false
[router]
risks = [0.2]
[serving]
risk = 0.2
# Which rows run at full depth for evidence is chance.
evidence = 0
"""
