"""Certificates of an artifact: what was proved about which files, and what could not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skipserve.artifacts.asked import Precision, Provider
from skipserve.artifacts.router_spec import RouterSpec
from skipserve.certification.measures import MEASURES as MEASURES
from skipserve.certification.measures import Measure as Measure
from skipserve.errors import ArtifactError
from skipserve.schema import Count, Grown, Positive, Record, Sha256

Share = Annotated[float, Field(ge=0, le=1)]
# As JSON has them, one a decision; ``None`` is +inf, always run.
WrittenThresholds = tuple[float | None, ...]


class TestedCandidate(Record):
    """The outcome of one candidate on the samples.

    Attributes:
        disagreements: Rows whose routed answer differed; queries, where the task counts these.
        p_value: Probability of such an outcome or a better one if the risk were ε.
        run_rate: Share of the blocks that ran.
        held_back: Share of the rows the guard held back.
        by_class: Disagreements and samples of each class, where classes are certified one by one.
    """

    disagreements: Count
    p_value: Share
    run_rate: Share
    held_back: Share
    by_class: tuple[tuple[Count, Count], ...] = ()


class Certificate(Grown):
    """A bound that holds for the files of one precision on one provider.

    Attributes:
        risk: ε, which the true risk does not exceed.
        measure: ``disagreement``: share of the answers that differ from full depth;
            ``accuracy_lost``: accuracy of full depth minus that of the routed answers.
        confidence: 1 − δ.
        samples: Rows it was tested on, that nothing else had touched; queries, where the task
            counts these (``score`` with ``top``).
        too_short: Queries beside them of at most ``top`` documents. They cannot disagree.
        disagreements: Those whose routed answer differed.
        accuracy_lost: On the samples; ``None`` if they had no labels.
        p_value: Probability of such an outcome or a better one if the risk were ε.
        run_rate: Share of the blocks that ran.
        held_back: Share of the rows the guard held back.
        thresholds: One a decision; ``None`` is +inf, always run.
        guard_limit: ``None`` is +inf, off.
        candidate: Place of the thresholds in the fixed order, from 0.
        files: The sha256 of every file it was made with, by name.
        precision: Of the files.
        provider: That ran them.
        batch_size: It ran with.
        deciles: What the signal was at each decision, for the rows that got there with these
            thresholds: nine numbers, or ``None`` where too few did. Drift is measured from them.
        tried: What each candidate up to this one did, in order; empty in older files.
        samples_sha256: Of the rows, and of which are of one query where the task counts queries;
            ``None`` in older files.
    """

    LATER: ClassVar[tuple[str, ...]] = ("too_short",)

    risk: float
    measure: Measure = "disagreement"
    confidence: float
    samples: Count
    too_short: Count = 0
    disagreements: Count
    accuracy_lost: float | None = None
    p_value: float
    run_rate: float
    held_back: float
    thresholds: WrittenThresholds
    guard_limit: float | None
    candidate: Count
    files: dict[str, str]
    precision: Precision
    provider: Provider
    batch_size: Positive
    deciles: tuple[tuple[float, ...] | None, ...] = ()
    tried: tuple[TestedCandidate, ...] = ()
    samples_sha256: Sha256 | None = None

    @property
    def by_class(self) -> bool:
        """Whether every class was counted by itself; older files do not say, and count as not."""
        return bool(self.tried and self.tried[-1].by_class)


class Refusal(Record):
    """A risk that could not be certified, and why; requests for it run at full depth."""

    risk: float
    measure: Measure = "disagreement"
    files: dict[str, str]
    provider: Provider
    reason: str


class Certificates(Record):
    """All certificates and refusals, and the candidates from careful to bold.

    Attributes:
        candidates: From careful to bold.
        certificates: What holds.
        refusals: What does not.
    """

    candidates: tuple[WrittenThresholds, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def table(self, decisions: int) -> NDArray[np.float32]:
        """Thresholds of the candidates [candidates, decisions], from careful to bold."""
        rows = [thresholds_of(one) for one in self.candidates]
        return np.array(rows, dtype=np.float32).reshape(len(rows), decisions)

    def sound(self, router: RouterSpec | None) -> tuple[Certificate, ...]:
        """Those that bound what a router does: whoever serves or attests them asks here first.

        They have the thresholds of the candidate that they name and the limit of the router's
        guard, and counted each class by itself if the router asks for that. Their files and their
        confidence are for the caller to look at.

        Args:
            router: Of the artifact; nothing is certified without one.
        """
        if router is None:
            return ()
        return tuple(
            one
            for one in self.certificates
            if is_of(one, self.candidates)
            and one.guard_limit == router.guard_limit
            and (one.by_class or not router.per_class or one.measure != "disagreement")
        )

    def of_files(
        self,
        router: RouterSpec | None,
        files: Mapping[str, str],
        precision: Precision,
        provider: Provider,
    ) -> tuple[Certificate, ...]:
        """Those of :meth:`sound` that were made with these files on this provider."""
        return tuple(
            one
            for one in self.sound(router)
            if one.files == files and (one.precision, one.provider) == (precision, provider)
        )

    def replacing(self, news: Certificates, router: RouterSpec) -> Certificates:
        """A copy in which new certificates and refusals replace older ones of the same risk.

        What was found about other risks, files and providers stays: it bounds those thresholds
        with that guard on that file, whatever else was tested. It goes if it is not of these
        candidates and this guard. A certificate with less confidence than the router asks for
        takes no place from one that counts.

        Args:
            news: What holds now, and what does not.
            router: Of the artifact.

        Raises:
            ArtifactError: If the news are of other candidates.
        """
        if news.candidates != self.candidates:
            raise ArtifactError(
                "candidates were proposed anew while the earlier ones were tested; certify again"
            )
        found = {_subject(one) for one in news.certificates}
        found |= {_subject(one) for one in news.refusals}
        confidence = router.offline_confidence
        weak = {_subject(one) for one in news.certificates if one.confidence < confidence}

        def stands(one: Certificate) -> bool:
            if not (is_of(one, self.candidates) and one.guard_limit == router.guard_limit):
                return False
            subject = _subject(one)
            return subject not in found or (subject in weak and one.confidence >= confidence)

        return Certificates(
            candidates=self.candidates,
            certificates=(*filter(stands, self.certificates), *news.certificates),
            refusals=(
                *(one for one in self.refusals if _subject(one) not in found),
                *news.refusals,
            ),
        )

    def since(self, before: Certificates) -> Certificates:
        """What stands here and did not before."""
        return Certificates(
            candidates=self.candidates,
            certificates=tuple(one for one in self.certificates if one not in before.certificates),
            refusals=tuple(one for one in self.refusals if one not in before.refusals),
        )


def _subject(
    entry: Certificate | Refusal,
) -> tuple[frozenset[tuple[str, str]], str, Measure, float]:
    return frozenset(entry.files.items()), entry.provider, entry.measure, entry.risk


def is_of(certificate: Certificate, candidates: Sequence[WrittenThresholds]) -> bool:
    """Whether a certificate has the thresholds of the candidate that it names."""
    place = certificate.candidate
    return 0 <= place < len(candidates) and candidates[place] == certificate.thresholds


def to_json(limit: float) -> float | None:
    """A threshold or limit for JSON: ``None`` stands for +inf."""
    return None if limit == float("inf") else limit


def thresholds_of(candidate: WrittenThresholds) -> NDArray[np.float32]:
    """Thresholds as they are compared with [decisions]; +inf lets no row leave."""
    with np.errstate(over="ignore"):  # one beyond float32 is +inf, or -inf, and means the same
        return np.array([from_json(one) for one in candidate], dtype=np.float32)


def from_json(value: float | None) -> float:
    """A threshold or limit from JSON: +inf for ``None``."""
    return float("inf") if value is None else value
