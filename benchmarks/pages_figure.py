"""The front page's figure: how much of each network runs, and how many answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from skipserve.style import PALETTE

WIDTH, LEFT, SCALE, STEP = 560, 16, 528, 60


def figure(bars: Sequence[tuple[str, float, float]]) -> str:
    """An SVG of bars, light and dark.

    Args:
        bars: Network, blocks run and answers that differ from full depth, in percent.
    """
    rows = [("Any of them at full depth", 100.0, 0.0), *bars]
    height = 44 + STEP * len(rows)
    parts = [
        _text(
            LEFT, 24, "Blocks run when at most 1 % of answers may differ (certified)", "ink title"
        )
    ]
    for i, (name, run, differ) in enumerate(rows):
        top = 48 + STEP * i
        length = SCALE * run / 100
        parts += [
            _text(LEFT, top + 10, name, "ink"),
            f'<rect class="whole" x="{LEFT}" y="{top + 18}" width="{SCALE}" height="22" rx="2"/>',
            f'<rect class="{"run" if i else "full"}" x="{LEFT}" y="{top + 18}" '
            f'width="{length:.1f}" height="22" rx="2"/>',
        ]
        said = f"{run:g} % of the blocks; {differ:.2f} % of the answers differ"
        if i:
            parts.append(_text(LEFT + length + 8, top + 34, said, "ink"))
        else:
            parts.append(_text(LEFT + 8, top + 34, "100 % of the blocks", "paper"))
    said = "; ".join(f"{name}: {run:g} % of the blocks" for name, run, _ in rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(said)}</title>\n{_style()}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _style() -> str:
    light, dark = ({name: pair[i] for name, pair in PALETTE.items()} for i in (0, 1))

    def rules(colours: dict[str, str]) -> str:
        return (
            f".paper{{fill:{colours['paper']}}}.ink{{fill:{colours['ink']}}}"
            f".whole{{fill:{colours['grid']}}}.run{{fill:{colours['norm']}}}"
            f".full{{fill:{colours['muted']}}}"
        )

    return (
        "<style>text{font:14px system-ui,sans-serif}.title{font-weight:600;font-size:16px}"
        f"{rules(light)}@media(prefers-color-scheme:dark){{{rules(dark)}}}</style>\n"
        '<rect class="paper" width="100%" height="100%"/>'
    )


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(words)}</text>'
