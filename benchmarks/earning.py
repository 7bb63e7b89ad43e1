"""What certificates that are earned on traffic are worth, and how often they err: a simulation.

Every row of an epoch shows the losses of all candidates. Four questions, 10,000 streams each:

- ``err``: is a candidate whose true risk is above ε ever earned, over 1,000,000 evidence rows and
  all epochs in them? Only the first such candidate in the order is watched, and what stands before
  it is taken as earned: more streams err so than really would.
- ``rate``: blocks run with what 5,000 evidence rows earned, beside an offline certificate on them.
- ``alarm``: evidence rows until a drift is withdrawn, and until something is earned again.
- ``drift``: gradual and recurring drift; what is served in all, of which how much disagrees.

Losses are synthetic, or those of mnist1d_resnet with each signal: rows that neither training nor
proposing has touched, drawn with replacement. The models are built in --project, a few minutes
each the first time. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from earning_drift import LOOK, Plan, rows_to_alarm, serve
from earning_streams import Floats, Rows, earned_after, ever_crosses, rows_to_earn
from numpy.typing import NDArray

from skipserve import intervals
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import from_json
from skipserve.building.buildfile import read_build_file
from skipserve.building.steps import run_steps
from skipserve.earning.wealth import level_of
from skipserve.runtime.engine import Engine
from skipserve.runtime.losses import candidate_losses
from skipserve.runtime.wave import Limits
from skipserve.tasks import SignalName

ROOT = Path(__file__).parent.parent
RISK, DELTA = 0.01, 0.05
PARTS = ("err", "rate", "alarm", "drift")
# Risks of synthetic candidates; the first that is not allowed stands exactly at ε.
LADDER = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0]) * RISK
CHUNK, BATCH = 1_000, 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each stream")
    parser.add_argument("--epoch-rows", type=int, default=10_000, help="evidence rows of an epoch")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--project", type=Path, default=ROOT / "build" / "earning")
    parser.add_argument(
        "--signals",
        nargs="*",
        choices=get_args(SignalName),
        default=get_args(SignalName),
        help="of the real models; none for synthetic losses alone",
    )
    options = parser.parse_args()
    said: dict[str, Any] = {"benchmark": "earning", "streams": options.streams}
    of = {"synthetic": Rows.nested(LADDER, 0.5 * (LADDER / LADDER[0]) ** -0.36)}
    if {"err", "rate"} & set(options.parts):
        of |= {signal: losses(options.project, signal) for signal in options.signals}
    if "err" in options.parts:
        said["err"] = [err(name, rows, options) for name, rows in of.items()]
        table(said["err"], "losses|ε|first risk not below it|streams that err|95 % interval")
    if "rate" in options.parts:
        said["rate"] = [rate(name, rows, options.streams) for name, rows in of.items()]
        table(said["rate"], "losses|offline runs|earned runs|ratio|earned above ε")
    if "alarm" in options.parts:
        said["alarm"] = list(alarm(options.streams))
        table(said["alarm"], "what|mean|median|95 %|within 3,000")
        said["false"] = [false_alarms(options.streams)]
        table(said["false"], "rows at exactly ε|withdrawn though it holds|95 % interval")
    if "drift" in options.parts:
        said["drift"] = list(drift(options))
        table(
            said["drift"],
            "drift|served rows that disagree|the same, 95 % of streams|at full depth|withdrawn"
            "|earned again: median|95 %",
        )
    print(json.dumps(said))


def table(rows: list[dict[str, str]], head: str) -> None:
    print(f"\n| {' | '.join(head.split('|'))} |\n|{'---|' * (head.count('|') + 1)}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |", flush=True)


def losses(project: Path, signal: SignalName) -> Rows:
    """What the candidates of mnist1d_resnet with this signal do to rows; kept in a file."""
    name = f"mnist1d_{signal}"
    kept = project / "losses" / f"{name}.npz"
    if not kept.is_file():
        weights = project / "export" / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        for file in (ROOT / "export" / "weights").glob("mnist1d_resnet.*"):
            shutil.copy(file, weights / f"{name}{file.suffix}")
        text = (ROOT / "export" / "mnist1d_resnet.toml").read_text()
        text = text.replace('signal = "confidence"', f'signal = "{signal}"')
        text = text.replace('name = "mnist1d_resnet"', f'name = "{name}"')
        text += '\n[export]\nformats = ["onnx"]\nprecisions = ["fp32"]\n'
        file = project / "export" / f"{name}.toml"
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
        build = read_build_file(file)
        if not build.artifact.is_dir():
            run_steps(build, lambda epoch: None, lambda line: None)
        draws = [build.trained.recipe.draw(split) for split in ("certify", "test")]
        rows = np.concatenate([one.inputs.numpy() for one in draws])
        kept.parent.mkdir(exist_ok=True)
        np.savez_compressed(kept, **evidence(Engine(open_artifact(build.artifact)), rows))
    with np.load(kept) as values:
        return Rows.seen(values["disagrees"], values["run_rate"])


def evidence(engine: Engine, inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What each candidate does to rows that all give evidence, as the service judges them."""
    spec, depth = engine.manifest.router, engine.manifest.depth
    assert spec is not None
    ends, parts = np.array([*spec.decisions, depth]), []
    for start in range(0, len(inputs), BATCH):
        rows = engine.check(inputs[start : start + BATCH])
        count = len(rows)
        limits = Limits(
            np.full((count, len(spec.decisions)), np.inf, np.float32),
            np.full(count, from_json(spec.guard_limit), np.float32),
            drawn=np.ones(count, dtype=bool),
        )
        task = engine.manifest.task
        parts.append(candidate_losses(engine.run(rows, limits), task, engine.candidates, ends))
    return {
        "disagrees": np.concatenate([one.disagrees for one in parts]).T,
        "run_rate": np.concatenate([one.blocks for one in parts]).mean(axis=0) / depth,
    }


def err(name: str, of: Rows, options: argparse.Namespace) -> dict[str, str]:
    # Where every candidate is harmless at ε, the boldest is tested against its own risk.
    epsilon = min(RISK, float(of.risks.max()))
    above = np.flatnonzero(of.risks >= epsilon * (1 - 1e-9))
    risk = float(of.risks[above[0]])
    rng = np.random.default_rng(0)
    asked = (epsilon, DELTA, options.rows, options.epoch_rows)
    erred = sum(
        int(ever_crosses(rng, risk, *asked, CHUNK).sum()) for _ in range(0, options.streams, CHUNK)
    )
    interval = intervals.rate(erred, options.streams)
    return {
        "losses": name,
        "epsilon": f"{epsilon:.3%}",
        "risk": f"{risk:.3%}",
        "erred": f"{erred / options.streams:.2%}",
        "interval": f"{interval.low:.2%} – {interval.high:.2%}",
    }


def rate(name: str, of: Rows, streams: int, rows: int = 5_000) -> dict[str, str]:
    # Bolder ones are as good as never earned, and would only take time.
    some = of.first(int((of.risks < 2.5 * RISK).argmin()) or len(of.risks))
    rng, level = np.random.default_rng(1), level_of(1, DELTA)
    allowed = max(d for d in range(rows) if intervals.p_value(d, rows, RISK) <= DELTA)
    parts = [
        earned_after(rng, some, RISK, level, rows, CHUNK // 2)
        for _ in range(0, streams, CHUNK // 2)
    ]
    earned, differ = (np.concatenate(one) for one in zip(*parts, strict=True))
    passed = np.logical_and.accumulate(differ <= allowed, axis=1).sum(axis=1)
    ran = np.concatenate([[1.0], some.run_rate])
    above = np.concatenate([[False], some.risks > RISK * (1 + 1e-9)])
    return {
        "losses": name,
        "offline": f"{ran[passed].mean():.2%}",
        "earned": f"{ran[earned].mean():.2%}",
        "ratio": f"{ran[earned].mean() / ran[passed].mean():.3f}",
        "above": f"{np.maximum.accumulate(above)[earned].mean():.2%}",
    }


def alarm(streams: int) -> Iterator[dict[str, str]]:
    plan = Plan(LADDER)
    for what, calm in (("3 ε from the first row", 0), ("3 ε after 10,000 rows at 0.6 ε", 10_000)):
        found = rows_to_alarm(np.random.default_rng(2), plan, calm, 3.0, 20_000, streams)
        yield {"what": f"withdrawn: {what}", **spread(found)}
    for epoch in (2, 3, 5, 10):
        level = level_of(epoch, DELTA)
        for times in (0.0, 0.3) if epoch == 2 else (0.3,):
            rng = np.random.default_rng(3)
            found = rows_to_earn(rng, max(times * RISK, 1e-12), RISK, level, 20_000, streams)
            yield {"what": f"earned again: {times:g} ε, epoch {epoch}", **spread(found)}


def false_alarms(streams: int, rows: int = 20_000) -> dict[str, str]:
    found = rows_to_alarm(np.random.default_rng(5), Plan(LADDER), 0, 1.0, rows, streams, LOOK)
    raised = int(np.isfinite(found).sum())
    interval = intervals.rate(raised, streams)
    return {
        "rows": f"{rows:,}",
        "raised": f"{raised / streams:.2%}",
        "interval": f"{interval.low:.2%} – {interval.high:.2%}",
    }


def spread(found: Floats) -> dict[str, str]:
    return {
        "mean": f"{found[np.isfinite(found)].mean():,.0f}",
        "median": f"{np.median(found):,.0f}",
        "p95": f"{np.quantile(found, 0.95, method='higher'):,.0f}",
        "within": f"{(found <= 3_000).mean():.1%}",
    }


def drift(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    # On calm traffic the boldest is at 0.6 ε; where it is at 3 ε, the most careful are below 0.3 ε.
    risks = np.geomspace(0.01, 0.6, 14) * RISK
    plan = Plan(risks, epoch_rows=options.epoch_rows)

    def gradual(served: Floats) -> Floats:
        return 1 + 4 * np.clip((served - 0.4 * options.rows) / (0.2 * options.rows), 0, 1)

    def recurring(served: Floats) -> Floats:
        return np.where(served % (0.2 * options.rows) < 0.05 * options.rows, 5.0, 1.0)

    def calm_first(served: Floats) -> Floats:
        return recurring(served + 0.05 * options.rows)

    kinds = (("gradual", gradual), ("recurring", recurring), ("the same, calm first", calm_first))
    for what, how in kinds:
        found = serve(np.random.default_rng(4), plan, how, options.rows, options.streams)
        again = np.array([*found.earned_again, *[np.inf] * found.never_again])
        yield {
            "drift": f"{what}, share {plan.share:.0%}",
            "disagrees": f"{found.disagrees.mean() / RISK:.2f} ε",
            "p95": f"{np.quantile(found.disagrees, 0.95) / RISK:.2f} ε",
            "full": f"{found.full_depth.mean():.1%}",
            "withdrawn": f"{found.withdrawals.mean():.2f}",
            "again": f"{np.median(again):,.0f}" if len(again) else "–",
            "again95": f"{np.quantile(again, 0.95, method='higher'):,.0f}" if len(again) else "–",
        }


if __name__ == "__main__":
    main()
