"""Writing certificate files, which hold every number that a checker needs."""

from __future__ import annotations

from collections.abc import Iterable

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.asked import Precision, Provider
from skipserve.artifacts.certificates import Certificate, WrittenThresholds
from skipserve.certification.certificate_file import (
    CertificateFile,
    Earned,
    Offline,
    meaning,
    seal,
)
from skipserve.errors import ArtifactError, ConfigError
from skipserve.versions import version_if_installed

MADE_BY = ("skipserve", "onnxruntime", "numpy")
_NOTHING = (
    "nothing of the kind is certified of {}: there is no certificate to write; run `skipserve "
    "certify`, or wait until one is earned"
)


def certificate_file(
    artifact: Artifact,
    earned: Iterable[Earned],
    *,
    files: dict[str, str],
    precision: Precision,
    provider: Provider,
    withdrawn: bool = False,
) -> CertificateFile:
    """The certificate file of an artifact's files: offline bounds and earned bounds, sealed.

    Args:
        artifact: With its certificates.
        earned: On traffic.
        files: The sha256 of each, by name.
        precision: Of the files.
        provider: That ran them.
        withdrawn: Whether the alarm has put the artifact's own certificates out of force: they are
            left out.

    Raises:
        ArtifactError: If what the certificates follow from was not kept.
        ConfigError: If there is nothing.
    """
    certificates, router = artifact.certificates, artifact.manifest.router
    own = [
        offline(one, certificates.candidates)
        for one in certificates.of_files(router, files, precision, provider)
        if not withdrawn
    ]
    found: tuple[Offline | Earned, ...] = (*own, *earned)
    if not found:
        raise ConfigError(_NOTHING.format(artifact.manifest.name))
    versions = {package: version_if_installed(package) for package in MADE_BY}
    made = CertificateFile(
        model=artifact.manifest.model,
        files=files,
        precision=precision,
        provider=provider,
        **meaning(artifact.manifest),
        bounds=found,
        versions={package: version for package, version in versions.items() if version},
        sha256="0" * 64,
    )
    return made.model_copy(update={"sha256": seal(made.model_dump(mode="json"))})


def offline(certificate: Certificate, candidates: tuple[WrittenThresholds, ...]) -> Offline:
    """An offline bound with every number that it follows from.

    Args:
        certificate: One of the artifact.
        candidates: The artifact's, in order.

    Raises:
        ArtifactError: If what the candidates before it did was not kept.
    """
    if len(certificate.tried) != certificate.candidate + 1:
        raise ArtifactError(
            "the certificates were made by an older skipserve, which kept no counts of the "
            "candidates before the certified one; run `skipserve certify` again"
        )
    return Offline(
        method="exact_binomial" if certificate.measure == "disagreement" else "betting",
        risk=certificate.risk,
        measure=certificate.measure,
        confidence=certificate.confidence,
        guard_limit=certificate.guard_limit,
        candidates=candidates[: certificate.candidate + 1],
        samples=certificate.samples,
        too_short=certificate.too_short,
        samples_sha256=certificate.samples_sha256,
        batch_size=certificate.batch_size,
        tried=certificate.tried,
    )


def artifact_file(
    artifact: Artifact, precision: str | None = None, provider: str | None = None
) -> CertificateFile:
    """The certificate file of an artifact for one precision and provider.

    Args:
        artifact: With its certificates.
        precision: Of the files; may be left out where only one is certified.
        provider: The same.

    Raises:
        ArtifactError: If what the certificates follow from was not kept.
        ConfigError: If nothing is certified, or it is not said which of several.
    """
    found = [
        one
        for one in artifact.certificates.sound(artifact.manifest.router)
        if one.precision == (precision or one.precision)
        and one.provider == (provider or one.provider)
    ]
    kinds = {(one.precision, one.provider, tuple(sorted(one.files.items()))) for one in found}
    if len(kinds) > 1:
        have = ", ".join(f"{one[0]} on {one[1]}" for one in sorted(kinds))
        raise ConfigError(
            f"{artifact.manifest.name} is certified for {have}: name one precision and provider"
        )
    if not found:
        raise ConfigError(_NOTHING.format(artifact.manifest.name))
    one = found[0]
    return certificate_file(
        artifact, (), files=one.files, precision=one.precision, provider=one.provider
    )
