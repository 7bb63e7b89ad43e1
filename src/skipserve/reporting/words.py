"""The sentences of a report: its first line, and certificates in plain words."""

from __future__ import annotations

from skipserve.artifacts.certificates import Certificate
from skipserve.intervals import percent
from skipserve.reporting.cost import Cost
from skipserve.reporting.report import Findings
from skipserve.reporting.served import Point, Routed
from skipserve.reporting.verdict import after
from skipserve.tasks import counted, too_short_note

# Medians nearer to each other than this are called equal.
EQUAL = 0.03


def first_line(found: Findings) -> str:
    """The first line: whether a fixed depth beats the router, or why that is unknown."""
    if found.routed is None:
        return f"{_no_router(found)} {found.inspection.verdict}"
    point = _point_at(found)
    if found.risk not in found.fixed:
        return (
            f"Whether a fixed depth beats the router is not known here; {_router(found, point)}. "
            f"{_worst(found, found.routed)}"
        )
    blocks = found.fixed[found.risk]
    share = blocks / found.model.depth
    fewer = point.certificate.run_rate < share
    times = [_times(found, cost) for cost in found.costs]
    faster = [router < (1 - EQUAL) * fixed for router, fixed in times]
    slower = [fixed < (1 - EQUAL) * router for router, fixed in times]
    if blocks < found.model.depth:
        rival, best = "a fixed depth", "every fixed depth"
        other = (
            f"stopping every row {after(blocks)} runs {share:.1%} and is certified by the same test"
        )
    else:
        rival, best = "the network without a router", "the network without a router"
        other = "no fixed depth below the whole network can be certified by the same test"
    facts = f"{_router(found, point)}; {other}. {_clock(found)} {_worst(found, found.routed)}"
    if not fewer:
        return f"{rival.capitalize()} beats the router: {facts}"
    if all(slower):
        return f"{rival.capitalize()} beats the router in time, though not in blocks: {facts}"
    if not all(faster):
        return f"The router beats {best} in blocks, but not always in time: {facts}"
    return f"The router beats {best}: {facts}"


def promise(point: Point, found: Findings) -> list[str]:
    """One certificate in plain words."""
    made = point.certificate
    per = max(100, round(1 / made.risk) * 10)
    accuracy = ""
    if point.accuracy is not None and found.inspection.accuracy is not None:
        full = float(found.inspection.accuracy[-1])
        accuracy = (
            f" Right answers: {point.accuracy:.2%}, against {full:.2%} from the whole network."
        )
    task = found.model.task
    those, another = "inputs", "another answer than the whole network would give"
    if task.top is not None:
        those = counted(task)
        another = f"another document among their first {task.top} than the whole network would put"
    return [
        f"Of {per:,} {those} like those it was tested on, at most {round(per * made.risk):,} get "
        f"{another}.",
        f"We are {percent(made.confidence)} sure of that. It was tested on {made.samples:,} {those}"
        f"{too_short_note(made.too_short)} that nobody had used before; {made.disagreements:,} "
        f"differed, {point.tested}.",
        f"On the {point.seen.total:,} {those} of this report {point.seen.count:,} differed, "
        f"{point.seen}, and {point.run_rate:.1%} of the blocks ran.{accuracy}",
    ]


def accuracy_promises(found: Findings) -> list[str]:
    """The certificates of the second risk, accuracy lost, a sentence each."""
    made = {} if found.engine is None else found.engine.certified("accuracy_lost")
    return [accuracy_promise(risk, one) for risk, one in sorted(made.items())]


def accuracy_promise(risk: float, made: Certificate) -> str:
    """One of them."""
    lost = made.accuracy_lost or 0.0
    return (
        f"Accuracy lost, {percent(risk)}: on inputs like those it was tested on, the share of "
        f"right answers falls by at most {percent(risk)}; we are {percent(made.confidence)} sure. "
        f"On {made.samples:,} labelled inputs that nobody had used before it "
        f"{'rose' if lost < 0 else 'fell'} by {abs(lost):.2%}, and {made.run_rate:.1%} of the "
        "blocks ran."
    )


def refused(found: Findings) -> list[str]:
    """Refused risks, and why."""
    return [
        f"A risk of {percent(one.risk)} ({one.measure.replace('_', ' ')}) is not promised: "
        f"{one.reason}."
        for one in found.refused
    ]


def limits(found: Findings) -> list[str]:
    """Limits of the certificates."""
    engine = found.engine
    assert engine is not None
    certificate = found.points[0].certificate
    lines = [
        "It says how often an answer changes, not how often it is wrong: a changed answer may be "
        "the better one.",
        f"An answer counts as changed where {found.model.task.differs}. The numbers of an answer "
        "(probabilities too) may differ otherwise; they are not certified.",
        f"It holds for these {len(engine.files)} files (the certificate has the sha256 of each), "
        f"in {engine.precision.upper()} on {engine.provider.upper()}. Other files, precisions or "
        f"machine types are certified anew: `skipserve certify artifacts/{found.model.name}`.",
        "It holds for inputs drawn like those of the test, as a rate over all of them together, "
        "and not for each class or each kind of input by itself.",
    ]
    if certificate.guard_limit is not None:
        lines.append(
            "Inputs unlike anything seen in calibration run through the whole network (the guard: "
            f"{certificate.held_back:.2%} of the tested rows). A mild drift can pass it."
        )
    else:
        lines.append("There is no guard: inputs unlike those tested are skipped as well.")
    return lines


def class_name(found: Findings, label: int) -> str:
    """The name of a class."""
    names = found.model.task.names
    return f"{names[label]} ({label})" if names else str(label)


def _worst(found: Findings, routed: Routed) -> str:
    if routed.worst is None:
        return f"Answers disagree where {found.model.task.differs}."
    label, suffers, most = routed.worst
    return (
        f"The class that suffers most is {class_name(found, label)}: {suffers.count:,} of "
        f"{suffers.total:,} of its rows are answered otherwise, at most {most:.2%} of such rows "
        "(95% bound)."
    )


def _no_router(found: Findings) -> str:
    name = found.model.name
    if found.engine is None:
        return f"{name} is a checkpoint without an artifact: nothing is certified or timed yet."
    if found.engine.manifest.router is None:
        return f"{name} has no router: every row runs all {found.model.depth} blocks."
    return f"The router of {name} is off: nothing is certified for these files here."


def _router(found: Findings, point: Point) -> str:
    return (
        f"at a certified risk of {percent(found.risk)} the router runs "
        f"{point.certificate.run_rate:.1%} of the blocks"
    )


def _point_at(found: Findings) -> Point:
    return next(one for one in found.points if one.certificate.risk == found.risk)


def _times(found: Findings, cost: Cost) -> tuple[float, float]:
    """Milliseconds a row of the router, and of the faster form of the fixed depth."""
    blocks = found.fixed[found.risk]
    ways = [cost.full_ms] if blocks == found.model.depth else []
    ways += [ms[blocks] for ms in (cost.fixed_ms, cost.cut_ms) if blocks in ms]
    return cost.router_ms[found.risk], min(ways, default=float("inf"))


def _clock(found: Findings) -> str:
    said = []
    for cost in found.costs:
        router, fixed = _times(found, cost)
        rows = "one row at a time" if cost.batch_size == 1 else f"in batches of {cost.batch_size}"
        said.append(f"{router:.3g} ms a row against {fixed:.3g} ms {rows}")
    return f"Measured: {', '.join(said)} (the whole network: {found.costs[0].full_ms:.3g} ms)."
