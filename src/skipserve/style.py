"""The look of figures: one palette for light and dark, and SVG that can be inlined.

Figures are drawn once with the light palette. In a page each colour of the palette becomes a CSS
variable, so that the page's own light or dark scheme sets it; letters stay letters.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# name: (light, dark); the series after Okabe and Ito, told apart by the colour-blind too.
PALETTE = {
    "paper": ("#fdfdfc", "#15181c"),
    "ink": ("#1d2126", "#e4e6e9"),
    "muted": ("#5c6670", "#9aa4af"),
    "grid": ("#d9dde1", "#343a41"),
    "panel": ("#f3f4f5", "#1e2227"),
    "norm": ("#0072b2", "#58b4e9"),
    "projected_norm": ("#00866a", "#3fc9a3"),
    "margin": ("#b8860b", "#e8b93a"),
    "confidence": ("#c8500a", "#ff8b4d"),
    "agreement": ("#4f7a28", "#9ccc65"),
    "random": ("#8a929b", "#7d8791"),
    "oracle": ("#a0528c", "#dd93c8"),
    "gate": ("#7a5cc0", "#a892ee"),
    "asked": ("#0b66c3", "#5eb0ff"),
    "baseline": ("#c2570c", "#f5a15b"),
}
LIGHT = {name: light for name, (light, _) in PALETTE.items()}

# Inches: as wide as a column of the page, so that letters on a phone stay legible.
WIDTH, HEIGHT = 5.4, 3.7


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Set up Matplotlib for one figure; ``name`` makes its SVG ids unique."""
    import matplotlib as mpl

    mpl.use("Agg")
    ink, muted, grid = LIGHT["ink"], LIGHT["muted"], LIGHT["grid"]
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9.5,
        "axes.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": muted,
        "axes.labelcolor": ink,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "text.color": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "figure.constrained_layout.use": True,
        "figure.facecolor": LIGHT["paper"],
        "savefig.facecolor": LIGHT["paper"],
    }
    with mpl.rc_context(settings):
        yield


def to_svg(figure: Figure) -> str:
    """A figure as an SVG element to stand in a page; equal figures give equal text."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Ids of groups repeat from figure to figure; those of clip paths and markers are salted.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text)
    for name, light in LIGHT.items():
        text = text.replace(light, f"var(--{name})")
    return text


def to_png(figure: Figure) -> bytes:
    """A figure as a PNG on light paper."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def css_variables(dark: bool) -> str:
    """The palette as CSS declarations."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in PALETTE.items())
