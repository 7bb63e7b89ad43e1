"""The certificate file: one JSON file that others can check without the artifact.

It holds every number that its conclusion follows from: candidates in the order they were tested in,
what each did, and at which level. :mod:`skipserve.certification.verification` computes them anew.
docs/schemas/certificate.schema.json describes it for programs in other languages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from skipserve.artifacts.asked import Precision, Provider
from skipserve.artifacts.certificates import Measure, TestedCandidate, WrittenThresholds
from skipserve.artifacts.manifest import Manifest, Name
from skipserve.files import replace_text
from skipserve.schema import Count, Grown, Positive, Record, Sha256
from skipserve.slices import Slice

CERTIFICATE_VERSION: Literal[1] = 1
SEALED_WITHOUT = ("sha256", "signature")

# More samples of one certificate take too long to check.
MOST_SAMPLES = 1_000_000_000

Open = Annotated[float, Field(gt=0, lt=1)]


class Offline(Grown):
    """One bound, certified on a data set.

    Attributes:
        method: ``exact_binomial`` for disagreement, ``betting`` for accuracy lost; candidates are
            tested in their order until one fails.
        risk: ε.
        measure: What ε bounds.
        confidence: 1 − δ.
        guard_limit: ``None`` is +inf, off.
        candidates: Thresholds, from careful to bold; the last is the one that is certified. In
            them ``None`` is +inf, always run.
        samples: Rows; queries, where the task counts these (``score`` with ``top``).
        too_short: Queries beside them of at most ``top`` documents. They cannot disagree.
        samples_sha256: Of the rows, and of which are of one query where the task counts queries;
            ``None`` where it was not kept.
        batch_size: They ran with.
        tried: What each candidate did, in the same order.
    """

    LATER: ClassVar[tuple[str, ...]] = ("too_short",)

    kind: Literal["offline"] = "offline"
    method: Literal["exact_binomial", "betting"]
    risk: Open
    measure: Measure
    confidence: Open
    guard_limit: float | None
    candidates: Annotated[tuple[WrittenThresholds, ...], Field(min_length=1)]
    samples: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    too_short: Count = 0
    samples_sha256: Sha256 | None = None
    batch_size: Positive
    tried: Annotated[tuple[TestedCandidate, ...], Field(min_length=1)]


class Crossing(Record):
    """The moment at which the wealth of a candidate crossed its level.

    Attributes:
        rows: Evidence rows of the epoch until then.
        disagreements: Of this candidate among them.
        log_wealth: Natural logarithm of the wealth that follows from the two.
    """

    rows: Positive
    disagreements: Count
    log_wealth: float


class Epoch(Record):
    """One line of the ledger of epochs.

    Attributes:
        number: From 1.
        because: What began it: the model's ``start``, so many ``rows``, the ``alarm``, a ``reset``.
        level: δ_j that it may err with.
        rows: Evidence rows of it until it ended, or until the certificate was written.
    """

    number: Positive
    because: Literal["start", "rows", "alarm", "reset"]
    level: Open
    rows: Count


class Proposal(Record):
    """The ladder that an epoch's first rows proposed; its other rows are evidence for it.

    Attributes:
        rows: That proposed; they count for nothing else.
        name: A hash of guard limit and candidates; the first 32 digits, in hex, of the sha256 of
            ``[guard_limit, candidates]`` as Python's ``json`` writes it.
        candidates: All that were proposed, from careful to bold.
    """

    rows: Positive
    name: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    candidates: Annotated[tuple[WrittenThresholds, ...], Field(min_length=1)]


def _whole(value: object) -> object:
    # As it was written before a bound said of which slice it is.
    return None if value == "" else value


class Earned(Record):
    """One bound, earned on the model's own traffic.

    Attributes:
        method: A mixture of likelihood ratios against "the risk is at least ε" for every candidate,
            which may be looked at after every row.
        risk: ε of the disagreement with full depth.
        confidence: 1 − δ.
        share: Of δ that all epochs have together; one half where the other half is an offline
            certificate's.
        slice: Of the traffic; ``None`` is all of it.
        guard_limit: ``None`` is +inf, off.
        candidates: Thresholds, from careful to bold; the last is the one that was earned.
        epoch: That earned it.
        crossings: Of each candidate, in the same order.
        epochs: All until the certificate was written.
        proposal: That guard and candidates are of; ``None`` where they are the artifact's own.
    """

    kind: Literal["earned"] = "earned"
    method: Literal["mixture_of_likelihood_ratios"] = "mixture_of_likelihood_ratios"
    risk: Open
    measure: Literal["disagreement"] = "disagreement"
    confidence: Open
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    slice: Annotated[Slice | None, BeforeValidator(_whole)] = None
    guard_limit: float | None
    candidates: Annotated[tuple[WrittenThresholds, ...], Field(min_length=1)]
    epoch: Positive
    crossings: Annotated[tuple[Crossing, ...], Field(min_length=1)]
    epochs: Annotated[tuple[Epoch, ...], Field(min_length=1)]
    proposal: Proposal | None = None


Bound = Annotated[Offline | Earned, Field(discriminator="kind")]


class Signature(Record):
    """A signature over everything in the file but itself.

    Attributes:
        algorithm: How it was signed.
        public_key: Of the signer, 32 bytes in base64.
        value: The signature, 64 bytes in base64.
    """

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str
    value: str


class CertificateFile(Record):
    """All that is certified about the files of one precision on one provider.

    Attributes:
        certificate_version: Of this form.
        model: Its name.
        files: The sha256 of every file it was made with, by name.
        precision: Of the files.
        provider: That ran them.
        task: When answers agree, as the manifest says it.
        preprocessing: What becomes of texts or pictures, the same; ``None`` where tensors are taken
            alone.
        bounds: What is certified, each bound at its own confidence.
        versions: Packages that made it.
        sha256: Of everything else here but the signature, as :func:`canonical` writes it.
        signature: ``None`` if the file is not signed.
    """

    certificate_version: Literal[1] = CERTIFICATE_VERSION
    model: Name
    files: Annotated[dict[str, Sha256], Field(min_length=1)]
    precision: Precision
    provider: Provider
    task: dict[str, Any]
    preprocessing: dict[str, Any] | None
    bounds: Annotated[tuple[Bound, ...], Field(min_length=1)]
    versions: dict[str, str]
    sha256: Sha256
    signature: Signature | None = None


def meaning(manifest: Manifest) -> dict[str, Any]:
    """Fields of the manifest that a certificate repeats: task and preprocessing."""
    said = manifest.model_dump(include={"task", "preprocessing"})
    return {"task": said["task"], "preprocessing": said["preprocessing"]}


def write_certificate(file: Path, values: dict[str, Any]) -> None:
    """Write a certificate, replacing an older file as a whole.

    Args:
        file: To write.
        values: As JSON has them: those that the hash and the signature are of.
    """
    replace_text(file, json.dumps(values, indent=2, allow_nan=False) + "\n")


def canonical(values: dict[str, Any], without: Iterable[str] = ()) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII, numbers as Python formats them.

    Args:
        values: Of a certificate, as JSON has them.
        without: Keys at the top that are left out.
    """
    left = {key: value for key, value in values.items() if key not in set(without)}
    text = json.dumps(left, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def seal(values: dict[str, Any]) -> str:
    """The SHA-256 of a certificate's values without the hash itself and the signature."""
    return hashlib.sha256(canonical(values, SEALED_WITHOUT)).hexdigest()


def json_schema() -> str:
    """The JSON Schema of a certificate file, as published in docs/schemas/."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **CertificateFile.model_json_schema(),
    }
    return json.dumps(schema, indent=2) + "\n"
