"""Certificates in force for the open files, and the thresholds they allow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import Precision, Provider
from skipserve.artifacts.certificates import (
    Certificate,
    Certificates,
    Measure,
    from_json,
    thresholds_of,
)
from skipserve.errors import InputError
from skipserve.intervals import spelled
from skipserve.runtime.prediction import Rung, Setting

ByRisk = dict[tuple[Measure, float], Certificate]

logger = logging.getLogger(__name__)


class Settings:
    """Settings of the router that the open files allow.

    Args:
        artifact: The artifact, with its certificates.
        files: Hashes of the files that run, by role.
        precision: Theirs.
        provider: Where they run.
    """

    def __init__(
        self, artifact: Artifact, files: Mapping[str, str], precision: Precision, provider: Provider
    ) -> None:
        self._manifest = artifact.manifest
        self._files, self._precision, self._provider = files, precision, provider
        spec = artifact.manifest.router
        decisions = len(spec.decisions) if spec else 0
        self._confidence = spec.offline_confidence if spec else 1.0
        self.off = Setting(np.full(decisions, np.inf, dtype=np.float32), np.inf)
        self._certified, self._weak = self._usable(artifact.certificates)
        self.guard_limit = from_json(spec.guard_limit) if spec else np.inf
        self.candidates = artifact.certificates.table(decisions)

    def certified(self, measure: Measure) -> dict[float, Certificate]:
        """The certificates in force, by risk."""
        return {
            risk: certificate
            for (of, risk), certificate in self._certified.items()
            if of == measure
        }

    def at(self, risk: float | None, measure: Measure) -> Setting:
        """Thresholds for a risk; see :meth:`skipserve.runtime.engine.Engine.setting`.

        Raises:
            InputError: If it is not between 0 and 1.
        """
        if risk is None:
            return self.off
        _check(risk)
        held = self.certified(measure)
        allowed = [certified for certified in held if certified <= risk]
        if not allowed:
            return replace(self.off, reason=self._why_off(risk, measure), measure=measure)
        certificate = held[max(allowed)]
        return Setting(
            thresholds_of(certificate.thresholds),
            from_json(certificate.guard_limit),
            certificate.risk,
            measure=measure,
            candidate=certificate.candidate,
        )

    def earned(
        self, risk: float, measure: Measure, in_force: Sequence[Rung | None], own: bool
    ) -> Setting:
        """Thresholds for a risk, from the candidates that traffic has earned.

        Args:
            risk: ε asked for.
            measure: What ε shall bound.
            in_force: For each risk of the model, a candidate; ``None``: none.
            own: Whether the artifact's own certificates hold as well, of what traffic cannot earn:
                another measure, and risks that are none of the model's.

        Raises:
            InputError: If the risk is not between 0 and 1.
        """
        _check(risk)
        if measure != "disagreement":
            if own:
                return self.at(risk, measure)
            return replace(self.off, reason=f"{measure} is certified offline only", measure=measure)
        spec = self._manifest.router
        risks = spec.risks if spec else ()
        allowed = {
            of: rung
            for of, rung in zip(risks, in_force, strict=False)
            if of <= risk and rung is not None
        }
        of = max(allowed, default=0.0)
        if own and any(of < other <= risk for other in self.certified(measure).keys() - {*risks}):
            return self.at(risk, measure)
        if not allowed:
            return replace(self.off, reason=f"no certificate of risk {spelled(risk)} is earned yet")
        rung = allowed[of]
        return Setting(
            *(rung.thresholds, rung.guard_limit, of),
            candidate=rung.candidate,
            proposed=rung.proposed,
        )

    def fixed(self, decision: int) -> Setting:
        """The setting at which every row stops at one decision."""
        thresholds = self.off.thresholds.copy()
        # Under ``skip`` a stage that is left out does not end the row: the later ones must go too.
        thresholds[decision:] = -np.inf
        return Setting(thresholds, np.inf)

    def _usable(self, made: Certificates) -> tuple[ByRisk, ByRisk]:
        """Certificates for the open files: with the required confidence, and with less."""
        held: ByRisk = {}
        weak: ByRisk = {}
        router = self._manifest.router
        for one in made.of_files(router, self._files, self._precision, self._provider):
            where = held if one.confidence >= self._confidence else weak
            where[one.measure, one.risk] = one
        for (measure, risk), one in weak.items():
            if (measure, risk) not in held:
                logger.warning(
                    "%s: the certificate of %s %g is not used: its confidence is %g, the model "
                    "asks for %g",
                    *(self._manifest.name, measure, risk, one.confidence, self._confidence),
                )
        return held, weak

    def _why_off(self, risk: float, measure: Measure) -> str:
        if self._manifest.router is None:
            return "the model has no router"
        weak = [one for (of, at), one in self._weak.items() if of == measure and at <= risk]
        if weak:
            best = max(weak, key=lambda one: (one.confidence, one.risk))
            return (
                f"risk {spelled(best.risk)} is certified with a confidence of "
                f"{spelled(best.confidence)}, the model asks for {spelled(self._confidence)}; "
                "run `skipserve certify` where it serves"
            )
        held = self.certified(measure)
        if held:
            have = ", ".join(map(spelled, sorted(held)))
            return f"risk {spelled(risk)} is not certified, only {have}"
        what = "" if measure == "disagreement" else f" of {measure}"
        return (
            f"no certificate{what} for these files in {self._precision} on {self._provider}; "
            "run `skipserve certify` where it serves"
        )


def _check(risk: float) -> None:
    if not 0 < risk < 1:
        raise InputError("invalid_risk", f"risk must lie between 0 and 1, got {spelled(risk)}")
