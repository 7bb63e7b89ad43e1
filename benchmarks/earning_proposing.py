"""What proposing on traffic is worth after a drift, and how often it errs: a simulation.

Rows of mnist1d_resnet that neither training nor proposing has touched are made larger, until the
guard of calibration holds most of them back; each is drawn with replacement. Two questions:

- ``rate``: blocks run with what so many evidence rows of an epoch earned, those that propose among
  them, with the artifact's own candidates and guard and with what the epoch's first rows propose.
- ``err``: is a candidate whose true risk is above ε ever earned, in any epoch, where every epoch
  proposes anew? The first such candidate of each ladder is watched, looked at after every row.

Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from earning_streams import rows_needed
from numpy.typing import NDArray
from scipy.stats import binomtest

from skipserve.artifacts.artifact import open_artifact
from skipserve.earning.ladder import OWN, Ladder
from skipserve.earning.proposing import About, propose_anew
from skipserve.earning.wealth import level_of
from skipserve.routing.propose import Observations, where_rows_leave
from skipserve.routing.stopping import within
from skipserve.runtime.engine import Engine
from skipserve.runtime.shown import Shown
from skipserve.safety.kind import own_ladder
from skipserve.training.recipes import open_recipe

RISK, DELTA = 0.01, 0.05


@dataclass(frozen=True)
class Traffic:
    """Rows that streams are drawn from.

    Attributes:
        shown: What every exit reads off them.
        about: The model.
    """

    shown: Shown
    about: About

    def outcome(self, ladder: Ladder) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Whether each candidate disagrees on each row [N, candidates], and its run rate."""
        blocks = self.about.blocks
        inside = within(self.shown.distances, ladder.guard_limit)
        seen = Observations(blocks, self.shown.signals, self.shown.agrees, inside)
        right = np.append(seen.agrees, np.ones((len(self.shown), 1), dtype=bool), axis=1)
        wheres = [where_rows_leave(one, seen) for one in ladder.thresholds]
        differ = [~np.take_along_axis(right, one[:, None], axis=1)[:, 0] for one in wheres]
        ran = [float(blocks[one].mean()) / blocks[-1] for one in wheres]
        return np.stack(differ, axis=1), np.array(ran)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("artifacts/mnist1d_resnet"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000, help="that streams are drawn from")
    parser.add_argument("--epoch-rows", type=int, default=10_000)
    parser.add_argument("--propose-rows", type=int, nargs="+", default=[200, 500, 1_000, 2_000])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.8])
    parser.add_argument("--seed", type=int, default=1, help="of the streams of err")
    parser.add_argument("--parts", nargs="+", choices=("rate", "err"), default=("rate", "err"))
    options = parser.parse_args()
    artifact = open_artifact(options.artifact)
    engine, own = Engine.for_many(artifact), own_ladder(artifact)
    recipe = open_recipe("mnist1d")
    rows = np.concatenate([recipe.draw(split).inputs.numpy() for split in ("certify", "test")])
    said: list[dict[str, object]] = []
    for scale in options.scales:
        traffic = traffic_of(engine, rows[: options.rows] * np.float32(scale))
        held = float((~within(traffic.shown.distances[:, -1], own.guard_limit)).mean())
        print(f"\nrows {scale:g} times as large: the guard of calibration holds back {held:.1%}")
        about = {"scale": scale, "held_back": round(held, 4)}
        if "rate" in options.parts:
            found = [rate(traffic, own, count, options) for count in (0, *options.propose_rows)]
            said += [{**about, **one} for one in found]
        if "err" in options.parts:
            said.append({**about, **err(traffic, own, options)})
    print(json.dumps({"benchmark": "earning_proposing", "streams": options.streams, "said": said}))


def traffic_of(engine: Engine, inputs: NDArray[np.float32]) -> Traffic:
    spec, task = engine.manifest.router, engine.manifest.task
    assert spec is not None
    read = engine.read(engine.check(inputs))
    full, early = read.answers[:, -1], np.moveaxis(read.answers[:, :-1], 1, 0)
    farthest = np.maximum.accumulate(read.distances, axis=1)
    shown = Shown(
        read.signals,
        farthest[:, [one.leaves for one in spec.exits]],
        np.stack([task.agree(answers, full) for answers in early], axis=1),
    )
    blocks = np.array([*spec.decisions, engine.manifest.depth])
    return Traffic(shown, About(blocks, spec.risks, spec.guard_quantile))


def proposed(
    rng: np.random.Generator, traffic: Traffic, ladders: dict[str, Ladder], used: str, rows: int
) -> Ladder:
    part = traffic.shown[rng.integers(0, len(traffic.shown), rows)]
    found = propose_anew(part, traffic.about, ladders, used, 1, 0.0)
    if not found.candidates:
        return ladders[OWN]
    return Ladder.of(found.candidates, found.guard_limit, found.proposal)


def rate(
    traffic: Traffic, own: Ladder, propose_rows: int, options: argparse.Namespace, rows: int = 5_000
) -> dict[str, object]:
    rng, needed = np.random.default_rng(0), rows_needed(RISK, level_of(2, DELTA), 200)
    ran, nothing, kept = [], 0, 0
    for _ in range(options.streams):
        ladder = own
        if propose_rows:
            ladder = proposed(rng, traffic, {OWN: own}, OWN, propose_rows)
            kept += ladder is own
        differ, run_rate = traffic.outcome(ladder)
        count = rows - propose_rows
        drawn = np.cumsum(differ[rng.integers(0, len(differ), count)], axis=0)
        seen = np.arange(1, count + 1)[:, None]
        crossed = (seen >= needed[np.minimum(drawn, 200)]).any(axis=0)
        earned = int(np.logical_and.accumulate(crossed).sum())
        ran.append(run_rate[earned - 1] if earned else 1.0)
        nothing += not earned
    told = {
        "propose_rows": propose_rows,
        "run_rate": round(float(np.mean(ran)), 4),
        "nothing_earned": round(nothing / options.streams, 4),
        "kept": round(kept / options.streams, 4),
    }
    print(f"| {' | '.join(f'{name} {value}' for name, value in told.items())} |", flush=True)
    return told


def err(traffic: Traffic, own: Ladder, options: argparse.Namespace) -> dict[str, object]:
    propose_rows = options.propose_rows[-1] if len(options.propose_rows) == 1 else 1_000
    rng, most = np.random.default_rng(options.seed), int(4 * options.epoch_rows * RISK)
    tables = [
        rows_needed(RISK, level_of(epoch, DELTA), most) for epoch in range(1, options.epochs + 1)
    ]
    erred, risks = 0, []
    for _ in range(options.streams):
        ladder, above = own, False
        for needed in tables:
            ladders = {OWN: own, ladder.proposal: ladder}
            ladder = proposed(rng, traffic, ladders, ladder.proposal, propose_rows)
            risk = traffic.outcome(ladder)[0].mean(axis=0)
            bad = np.flatnonzero(risk >= RISK)
            if len(bad):
                risks.append(float(risk[bad[0]]))
                places = rng.geometric(risks[-1], most + 1).cumsum()
                above |= bool((np.minimum(places - 1, options.epoch_rows) >= needed).any())
        erred += above
    interval = binomtest(erred, options.streams).proportion_ci(0.95, method="exact")
    told = {
        "propose_rows": propose_rows,
        "epochs": options.epochs,
        "erred": round(erred / options.streams, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "first_risk_not_below": round(float(np.mean(risks)), 4) if risks else None,
    }
    print(f"| {' | '.join(f'{name} {value}' for name, value in told.items())} |", flush=True)
    return told


if __name__ == "__main__":
    main()
