"""The outcome of a run, in memory and as the JSON report that a later run is compared with."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from skipserve.errors import LoadTestError
from skipserve.loadtest.payloads import Choice
from skipserve.loadtest.periods import PeriodResult
from skipserve.loadtest.tally import Tally, total

VERSION: Literal[2] = 2
ArmName = Literal["asked", "baseline"]
Verdict = Literal["PASS", "FAIL", "INVALID"]


class Check(msgspec.Struct, frozen=True):
    """One check of the verdict.

    Attributes:
        what: Its name.
        verdict: PASS, FAIL or INVALID.
        found: What was found and what was asked, in words.
    """

    what: str
    verdict: Verdict
    found: str


class Arm(msgspec.Struct, frozen=True, dict=True):
    """The periods of one mix: as asked, or at full depth as the baseline.

    Attributes:
        name: Which.
        choices: The mix.
        periods: In the order they ran.
        slice_s: Length of a slice of a period.
    """

    name: ArmName
    choices: list[Choice]
    periods: list[PeriodResult]
    slice_s: float

    @cached_property
    def slices(self) -> list[tuple[int, int, Tally]]:
        """Period, slice and tally, in the order of time."""
        found: dict[tuple[int, int], Tally] = {}
        for number, period in enumerate(self.periods):
            for part in sorted(period.parts, key=lambda part: part.slice):
                tally = found.setdefault((number, part.slice), Tally())
                tally.add(Tally.from_json(part.tally))
        return [(*key, tally) for key, tally in found.items()]

    @cached_property
    def total(self) -> Tally:
        """Everything."""
        return total(tally for _, _, tally in self.slices)

    @cached_property
    def by_choice(self) -> list[Tally]:
        """Everything, by the choices of the mix."""
        parts = [part for period in self.periods for part in period.parts]
        return [
            total(Tally.from_json(part.tally) for part in parts if part.choice == place)
            for place in range(len(self.choices))
        ]

    @property
    def ran_s(self) -> float:
        """Seconds of load."""
        return sum(period.ran_s for period in self.periods)

    @property
    def scheduled(self) -> int:
        """Requests that were due."""
        return sum(period.scheduled for period in self.periods)

    @property
    def on_time(self) -> int:
        """Due requests that were sent before the end of their period."""
        return sum(period.on_time for period in self.periods)

    @property
    def exhausted(self) -> int:
        """Due requests that found every connection waiting for the server."""
        return sum(period.exhausted for period in self.periods)

    @property
    def throughput(self) -> float:
        """Right answers per second, the wait for the last replies included."""
        wall_s = sum(period.wall_s for period in self.periods)
        return self.total.answered / wall_s if wall_s else 0.0

    @property
    def busiest(self) -> float:
        """Largest share of one core that the client used in a period."""
        return max((period.cpu_s / period.wall_s for period in self.periods), default=0.0)


class Report(msgspec.Struct, frozen=True):
    """A whole run.

    Attributes:
        verdict: PASS, FAIL or INVALID.
        checks: What it follows from.
        partial: Whether the run was stopped before its end.
        started: When, ISO 8601 in UTC.
        plan: What was asked, as text.
        environment: Hardware, versions, commit, as text.
        models: What was served, by name.
        arms: As asked, and the baseline if there was one.
        version: Of this format.
    """

    verdict: Verdict
    checks: list[Check]
    partial: bool
    started: str
    plan: dict[str, Any]
    environment: dict[str, str]
    models: dict[str, dict[str, Any]]
    arms: list[Arm]
    version: int = VERSION

    @property
    def asked(self) -> Arm:
        """The mix as asked, which the verdict is about."""
        return self.arms[0]

    @property
    def baseline(self) -> Arm | None:
        """The mix at full depth, if it ran."""
        return self.arms[1] if len(self.arms) > 1 else None


def write_report(file: Path, report: Report, summary: dict[str, Any]) -> None:
    """Write the JSON report; ``summary`` repeats its figures in plain numbers."""
    text = msgspec.json.encode({"summary": summary, **msgspec.to_builtins(report)})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(text, indent=1) + b"\n")


def read_report(file: Path) -> Report:
    """Read a JSON report.

    Raises:
        LoadTestError: If it is missing, or not a report of this version.
    """
    try:
        report = msgspec.json.decode(file.read_bytes(), type=Report)
        if report.version != VERSION or not report.arms:
            raise ValueError(f"version {report.version}, expected {VERSION}")
        _ = [arm.total for arm in report.arms]
    except OSError as error:
        raise LoadTestError(f"{file} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError, LookupError, TypeError) as error:
        raise LoadTestError(
            f"{file} is not the JSON report of a load test ({error}); "
            "name the .json that `skipserve loadtest` wrote"
        ) from None
    return report
