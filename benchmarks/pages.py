"""Writes the measured tables of README.md and docs/, and the front page's figure, from JSON.

    python benchmarks/pages.py            # says which pages are not as the JSON has it
    python benchmarks/pages.py --write    # writes them
    python benchmarks/alarm.py | python benchmarks/pages.py --take alarm --machine "2 cores of …"

`docs/measured/*.json` hold one table each with machine, date and command; `docs/peers.json` holds
the comparison with other servers, but for its emails, which are of `docs/measured/text_http.json`.
The tables of `docs/build-file.md` are made from the records that read a build file. A page has a
table between `<!-- table NAME -->` and `<!-- end -->`. ``--take NAME`` reads the table that a
benchmark prints into its JSON, with the day and the machine, and writes the pages: every number
changes at once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from pages_build_file import build_tables
from pages_figure import figure
from pages_rows import rows_of

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured"
FIGURE = ROOT / "docs" / "figures" / "depth.svg"
NETWORKS = ("fashion", "mnist1d_plain", "mnist1d_resnet")
RISK = 1  # percent, of the figure
PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PEERS = {
    "mosec": "mosec",
    "fastapi": "FastAPI, async",
    "kserve": "KServe's Python server",
    "torchserve": "TorchServe, stock handler",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--take", metavar="NAME", help="of a file in docs/measured/; from stdin")
    parser.add_argument("--machine", help="that --take was measured on")
    asked = parser.parse_args()
    if asked.take and not asked.machine:
        parser.error("--take needs --machine")
    if asked.take:
        take(MEASURED / f"{asked.take}.json", sys.stdin.read(), asked.machine)
    write = asked.write or asked.take
    wanted = pages()
    changed = [page for page, text in wanted.items() if not _holds(page, text)]
    for page in changed:
        if write:
            page.write_text(wanted[page])
        print(f"{page.relative_to(ROOT)} {'written' if write else 'is not as the JSON has it'}")
    return int(bool(changed) and not write)


def pages() -> dict[Path, str]:
    """Every page that holds a table, and the figure, as they should be."""
    tables = {file.stem: table(json.loads(file.read_text())) for file in MEASURED.glob("*.json")}
    race = json.loads((ROOT / "docs" / "peers.json").read_text())
    tables["peers"] = peers(race, json.loads((MEASURED / "text_http.json").read_text()))
    tables |= build_tables()
    found = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text()
        if PLACE.search(text):
            found[page] = PLACE.sub(lambda at: at[1] + tables[at[2]] + at[3], text)
    found[FIGURE] = figure(bars())
    return found


def take(file: Path, printed: str, machine: str) -> None:
    """Replace the rows of a measured table by those that a benchmark printed today."""
    measured = json.loads(file.read_text())
    today = date.today().isoformat()
    measured |= {"machine": machine, "date": today, "rows": rows_of(printed, measured)}
    file.write_text(as_text(measured))


def as_text(measured: dict[str, Any]) -> str:
    """The JSON of a measured table, with a line for each row."""
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in measured["rows"])
    whole = json.dumps({**measured, "rows": "@"}, indent=1, ensure_ascii=False)
    return whole.replace('"@"', f"[\n{rows}\n ]") + "\n"


def table(measured: dict[str, Any]) -> str:
    """The table, and below it the machine, the date and the command."""
    lines = [_line(measured["columns"]), _line(["---"] * len(measured["columns"]))]
    for row in measured["rows"]:
        cells = zip(measured["formats"], row, strict=True)
        lines.append(_line(form.format(value) for form, value in cells))
    made = f"{measured['machine']}, {measured['date']}, `{measured['command']}`."
    return "\n".join([*lines, "", made, ""])


def peers(race: dict[str, Any], texts: dict[str, Any]) -> str:
    """The front page's comparison: three models at 16 connections, and what was run where."""
    columns = ["server", "emails, 6 layers: requests/s", "p50 / p99 ms", "12 blocks: requests/s"]
    columns += ["p50 / p99 ms", "small network: requests/s", "p50 / p99 ms"]
    lines = [_line(columns), _line(["---"] * len(columns))]
    rows = [
        ("**skipserve, router on**", "skipserve", "on"),
        ("skipserve, full depth", "skipserve", "off"),
        *((title, name, "off") for name, title in PEERS.items()),
    ]
    of_texts = {row[0]: row[2:5] for row in texts["rows"]}
    ways = {"on": "skipserve router on", "off": "skipserve full depth"}
    for title, name, router in rows:
        said = of_texts.get(ways[router] if name == "skipserve" else name)
        cells = [title, *(["–", ""] if said is None else _cells(*said))]
        for model in ("mnist1d_resnet", "moons_residual"):
            cells += _figures(race, model, name, router)
        lines.append(_line(cells))
    machine = race["machine"].removeprefix("Machine: ")
    asked = race["asked"]
    # Of the same round, as in docs/peers.md.
    ours, theirs = (
        _runs(race, "moons_residual", name, "off", 1) for name in ("skipserve", "fastapi")
    )
    over = median(a["p50_s"] / b["p50_s"] for a, b in zip(ours, theirs, strict=True))
    alone = (
        f"Rounds: {asked['rounds']}, of {asked['seconds']} s each (emails: five of 8 s); the table "
        f"has medians. With one\nconnection, skipserve's p50 on the small network is "
        f"{over:.1f} × FastAPI's."
    )
    return "\n".join([*lines, "", machine, alone, ""])


def _runs(
    race: dict[str, Any], model: str, name: str, router: str, connections: int
) -> list[dict[str, Any]]:
    wanted = {"model": model, "name": name, "router": router, "connections": connections}
    runs = [run for group in race["groups"].values() for run in group]
    return [run for run in runs if wanted.items() <= run.items()]


def _figures(race: dict[str, Any], model: str, name: str, router: str) -> list[str]:
    runs = _runs(race, model, name, router, 16)
    if not runs:
        return ["no router", ""]
    rate, p50, p99 = (
        median(run[what] for run in runs) for what in ("requests_per_s", "p50_s", "p99_s")
    )
    return _cells(rate, 1e3 * p50, 1e3 * p99)


def _cells(rate: float, p50_ms: float, p99_ms: float) -> list[str]:
    p50, p99 = (f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}" for ms in (p50_ms, p99_ms))
    return [f"{rate:,.0f}", f"{p50} / {p99}"]


def bars() -> list[tuple[str, float, float]]:
    """Network, blocks run and answers that differ, in percent, at the certified risk."""
    found = []
    for name in NETWORKS:
        measured = json.loads((MEASURED / f"{name}.json").read_text())
        (row,) = [row for row in measured["rows"] if row[0] == RISK]
        found.append((measured["short"], row[1], row[2]))
    return found


def _holds(page: Path, text: str) -> bool:
    return page.exists() and page.read_text() == text


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
