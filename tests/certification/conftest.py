"""The small routed model, copies of it to change, and its certificate as a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from certificate_values import EPSILON, SHARE
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.certification.attesting import certificate_file
from skipserve.certification.certificate_file import (
    Crossing,
    Earned,
    Epoch,
)
from skipserve.certification.signing import signed
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.training.recipes import open_recipe


@pytest.fixture
def project(routed_project, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(routed_project[0], tmp_path / "project"))


@pytest.fixture(scope="module")
def directory(routed_project):
    return routed_project[0] / "artifacts" / "small"


@pytest.fixture
def copied(project):
    return project / "artifacts" / "small"


@pytest.fixture(scope="module")
def routed(directory):
    return skipserve.open(directory, provider="cpu")


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("test").inputs.numpy()


COUNTS = ((400, 2), (700, 15), (900, 22))


@pytest.fixture(scope="module")
def attested(directory):
    """The artifact, certified."""
    return open_artifact(directory)


@pytest.fixture(scope="module")
def made(attested):
    """Everything that is certified of the artifact, and a bound as traffic would have earned it."""
    levels = [level_of(number, 0.05 * SHARE) for number in (1, 2, 3)]
    crossings = [
        Crossing(rows=n, disagreements=d, log_wealth=float(log_wealth(n, d, EPSILON)))
        for n, d in COUNTS
    ]
    earned = Earned(
        risk=EPSILON,
        confidence=0.95,
        share=SHARE,
        guard_limit=attested.manifest.router.guard_limit,
        candidates=attested.certificates.candidates[: len(COUNTS)],
        epoch=2,
        crossings=tuple(crossings),
        epochs=(
            Epoch(number=1, because="start", level=levels[0], rows=3_000),
            Epoch(number=2, because="alarm", level=levels[1], rows=5_000),
            Epoch(number=3, because="rows", level=levels[2], rows=17),
        ),
    )
    kind = {"precision": "fp32", "provider": "cpu"}
    return certificate_file(attested, [earned], files=attested.hashes("onnx", "fp32"), **kind)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A private key and its public one, and the public key of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        private = ed25519.Ed25519PrivateKey.generate()
        plain = serialization.NoEncryption()
        pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / f"{name}.pem").write_bytes(private.private_bytes(pem, kind, plain))
        public = private.public_key().public_bytes(
            pem, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{name}.pub").write_bytes(public)
    return folder


@pytest.fixture(scope="module")
def values(made, keys):
    """The signed certificate as JSON has it."""
    return signed(made.model_dump(mode="json"), keys / "mine.pem")
