"""The drawings of docs/how-it-works.md, as SVG files for light and dark screens.

python docs/site/drawings.py     # writes docs/figures/{cuts,leaving,safety}.svg
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from skipserve.style import PALETTE

FIGURES = Path(__file__).parents[1] / "figures"
WIDTH = 460
CLASSES = {
    "paper": "fill:{paper}",
    "ink": "fill:{ink}",
    "muted": "fill:{muted}",
    "box": "fill:{panel};stroke:{muted}",
    "block": "fill:{panel};stroke:{norm};stroke-width:1.5",
    "exit": "fill:{panel};stroke:{confidence};stroke-width:1.5",
    "line": "fill:none;stroke:{muted};stroke-width:1.5",
    "stream": "fill:none;stroke:{norm};stroke-width:4",
    "out": "fill:none;stroke:{confidence};stroke-width:2",
    "cut": "fill:none;stroke:{muted};stroke-dasharray:4 4",
    "dot": "fill:{norm}",
    "end": "fill:{confidence}",
}


class Drawing:
    """Shapes from top to bottom, as wide as a phone."""

    def __init__(self, title: str, height: int) -> None:
        self.title, self.height = title, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, style: str = "ink", at: str = "start") -> None:
        self.parts.append(
            f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{at}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, w: float, h: float, style: str, *lines: str) -> None:
        """A box with lines of text in its middle."""
        self.parts.append(
            f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4"/>'
        )
        for i, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 5 + 17 * (i - (len(lines) - 1) / 2), line, at="middle")

    def line(self, style: str, *points: tuple[float, float], arrow: bool = False) -> None:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<path class="{style}" d="{path}"{end}/>')

    def dot(self, x: float, y: float, style: str = "dot", radius: float = 6) -> None:
        self.parts.append(f'<circle class="{style}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')

    def __str__(self) -> str:
        def rules(scheme: int) -> str:
            colours = {name: pair[scheme] for name, pair in PALETTE.items()}
            rule = "".join(f".{n}{{{css.format_map(colours)}}}" for n, css in CLASSES.items())
            return f"{rule}#arrow path{{fill:{colours['muted']}}}"

        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>text{{font:14px system-ui,sans-serif}}{rules(0)}"
            f"@media(prefers-color-scheme:dark){{{rules(1)}}}</style>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
            '<path d="M0 0L8 4L0 8z"/></marker></defs>\n'
            '<rect class="paper" width="100%" height="100%"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def cuts() -> Drawing:
    """A stream, its blocks, and the cuts between them."""
    made = Drawing("A stream runs through all blocks; a cut before each block has an exit", 500)
    stream, top, step = 150, 60, 120
    made.box(90, 12, 120, 30, "box", "input, stem")
    made.line("stream", (stream, 42), (stream, top + 3 * step + 6))
    for k in range(3):
        cut, block = top + 14 + step * k, top + 66 + step * k
        made.line("cut", (100, cut), (270, cut))
        made.text(96, cut + 5, f"cut {k}", "muted", "end")
        made.line("out", (stream, cut), (278, cut))
        made.box(280, cut - 22, 168, 44, "exit", "exit: head, signal,", "guard")
        made.line("line", (stream, block - 24), (100, block - 24), (100, block - 19), arrow=True)
        made.box(14, block - 18, 112, 34, "block", f"block {k + 1}: f(x)")
        made.line(
            "line", (100, block + 16), (100, block + 26), (stream - 10, block + 26), arrow=True
        )
        made.parts.append(f'<circle class="box" cx="{stream}" cy="{block + 26}" r="9"/>')
        made.text(stream, block + 31, "+", at="middle")
        made.text(stream + 16, block + 31, "x ← x + f(x)", "muted")
    made.line("line", (stream, top + 3 * step + 8), (stream, top + 3 * step + 26), arrow=True)
    made.box(80, top + 3 * step + 28, 140, 44, "box", "last head:", "full-depth answer")
    return made


def leaving() -> Drawing:
    """Four rows of a batch that run to different depths."""
    made = Drawing("Four rows of one batch leave at different cuts", 330)
    places = [92, 172, 252, 332]
    for x, words in zip(places, ("cut 0", "cut 4", "cut 8", "end, 12"), strict=True):
        made.text(x, 24, words, "muted", "middle")
        made.line("cut", (x, 32), (x, 262))
    rows = [
        ("row 1", 0, "0 blocks"),
        ("row 2", 1, "4 blocks"),
        ("row 3", 3, "12 blocks"),
        ("row 4", 3, "held back"),
    ]
    for i, (name, place, said) in enumerate(rows):
        y = 64 + 56 * i
        end = places[place]
        made.text(8, y + 5, name)
        made.line("stream", (54, y), (end, y))
        for x in places[:place]:
            made.dot(x, y, "dot", 4)
        made.line("out", (end, y), (364, y), arrow=True)
        made.dot(end, y, "end")
        made.text(368, y + 5, said)
    made.text(8, 290, "Blue: what a row runs. Orange: where its answer is read.", "muted")
    made.text(8, 310, "The rows that stay go on together, in a smaller batch.", "muted")
    return made


def safety() -> Drawing:
    """What certifies, what guards each row, what watches over time."""
    made = Drawing("Certificate before serving, guard for each row, alarm over time", 560)
    made.text(8, 24, "before serving", "muted")
    made.box(8, 34, 200, 44, "box", "rows set aside,", "or traffic at full depth")
    made.line("line", (208, 56), (248, 56), arrow=True)
    made.box(250, 34, 202, 44, "exit", "certificate: at most ε", "differ, 95 % confidence")
    made.line("line", (351, 78), (351, 226), arrow=True)
    made.text(343, 120, "thresholds", "muted", "end")
    made.text(8, 154, "each row", "muted")
    made.box(8, 164, 200, 44, "exit", "guard: is this row like", "those of calibration?")
    made.line("line", (108, 140), (108, 162), arrow=True)
    made.line("line", (208, 186), (300, 186), (300, 226), arrow=True)
    made.text(216, 180, "yes", "muted")
    made.box(250, 228, 202, 44, "block", "router: the row leaves", "when it is settled")
    made.line("line", (108, 208), (108, 298), arrow=True)
    made.text(116, 240, "no", "muted")
    made.box(8, 300, 200, 34, "block", "full depth")
    made.line("line", (351, 272), (351, 300), arrow=True)
    made.box(250, 302, 202, 34, "box", "answer")
    made.line("line", (208, 318), (248, 318), arrow=True)
    made.text(8, 374, "over time", "muted")
    made.line("line", (351, 336), (351, 392), arrow=True)
    made.text(343, 366, "1 % of the rows run both ways", "muted", "end")
    made.box(250, 394, 202, 44, "exit", "alarm: do more than ε", "disagree?")
    made.line("line", (250, 416), (210, 416), arrow=True)
    made.text(230, 408, "yes", "muted", "middle")
    made.box(8, 394, 200, 44, "box", "certificate withdrawn,", "all rows at full depth")
    made.line("line", (108, 438), (108, 478), arrow=True)
    made.box(8, 480, 200, 44, "box", "traffic earns", "a new certificate")
    made.text(220, 507, "then rows leave early again", "muted")
    return made


DRAWINGS = {"cuts": cuts, "leaving": leaving, "safety": safety}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FIGURES / f"{name}.svg").write_text(str(draw()))
