"""Texts over HTTP: routed against full depth, and against other servers of the plain graph.

    python benchmarks/text_http.py export/minilm_spam.toml emails.jsonl [--column body]

skipserve serves what was brought, at its own risk and at full depth; KServe, LitServe, mosec and
FastAPI serve its plain graph behind the same tokenizer (benchmarks/peers, which makes their
environments where they are missing). One text a request, wrk drives them in turn, round by round,
from the same machine; a ratio is one of the same round, figures are medians. First every server is
tried with several batch sizes, workers and threads, and keeps the best; settings are kept in
.build/peers/text_http.json, `--fresh` tries them again.

Some 6 minutes for the settings, 1 a round. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from contenders import OURS, load_of
from models import WORK, prepare_texts
from report import machine
from run import race_group, try_all

from skipserve.building.buildfile import read_build_file

RIVALS = ("kserve", "litserve", "mosec", "fastapi")
KEPT = WORK / "text_http.json"
ROWS = 256
# What is wanted: of full depth on the same host, and of the best rival.
AIMS = {"full depth": 3.0, "best rival": 2.5}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path, help="the build file of what was brought")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--column", default="body")
    parser.add_argument("--peers", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--connections", type=int, nargs="+", default=[16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of each run of wrk")
    parser.add_argument("--trial", type=int, default=5, help="seconds of each trial of settings")
    parser.add_argument("--port", type=int, default=18_080, help="first of the ports used")
    parser.add_argument("--fresh", action="store_true", help="choose settings anew")
    options = parser.parse_args()
    build = read_build_file(options.build)
    lines = options.texts.open().readlines()[-ROWS:]
    model = prepare_texts(build, [json.loads(line)[options.column] for line in lines])
    chosen = _settings(model, options)
    state: dict[str, Any] = {"settings": {model.name: chosen}, "failures": {}}
    runs = race_group(model, options.peers, state, options)
    print(f"\n{machine()}; {len(model.rows)} texts, ε = {model.risk:g}\n")
    found = [_table(runs, connections, chosen) for connections in options.connections]
    print(json.dumps({"benchmark": "text_http", "rows": found, "failures": state["failures"]}))


def _settings(model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The settings of each contender with the most requests/s."""
    kept: dict[str, Any] = {}
    if KEPT.is_file() and not options.fresh:
        kept = json.loads(KEPT.read_text())
    chosen = kept.setdefault(model.name, {})
    for contender in [OURS, *options.peers]:
        have = chosen.setdefault(contender, {})
        if any(load_of(count) not in have for count in options.connections):
            best = try_all(model, contender, options)
            have.update({load: asdict(each) for load, each in best.items()})
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return chosen


def _table(runs: list[dict[str, Any]], connections: int, chosen: dict[str, Any]) -> dict[str, Any]:
    """Medians by server, and the ratios to the routed one of the same round."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for run in runs:
        if run["connections"] == connections and "error" not in run:
            found.setdefault((run["name"], run["router"]), {})[run["round"]] = run
    routed = found[OURS, "on"]
    print(f"{connections} connections:\n")
    columns = "server | settings | requests/s | p50 ms | p99 ms | routed skipserve is ×"
    print(f"| {columns} |\n|---|---|---|---|---|---|")
    ratios, load = {}, load_of(connections)
    for (name, router), of in found.items():
        word = {"on": "router on", "off": "full depth"}[router] if name == OURS else ""
        title = f"{name} {word}".strip()
        ratio = median(
            routed[turn]["requests_per_s"] / run["requests_per_s"]
            for turn, run in of.items()
            if turn in routed
        )
        ratios[title] = round(ratio, 2)
        settings = "{batch_size}, {workers} × {threads}".format(**chosen[name][load])
        rate, p50, p99 = (
            median(run[what] for run in of.values())
            for what in ("requests_per_s", "p50_s", "p99_s")
        )
        cells = f"{rate:.1f} | {1e3 * p50:.0f} | {1e3 * p99:.0f} | {ratio:.2f}"
        print(f"| {title} | {settings} | {cells} |")
    rivals = {name: ratio for name, ratio in ratios.items() if not name.startswith(OURS)}
    reached = {"full depth": ratios[f"{OURS} full depth"]}
    if rivals:
        reached["best rival"] = min(rivals.values())
    told = ", ".join(f"{reached[aim]:.2f} × {aim} (wanted {AIMS[aim]})" for aim in reached)
    print(f"\n{told}\n")
    return {"connections": connections, "ratios": ratios, **reached}


if __name__ == "__main__":
    main()
