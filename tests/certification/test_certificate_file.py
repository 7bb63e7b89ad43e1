"""A certificate as a file: exported, checked by others, signed."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from certificate_values import faults, put, sealed
from running import ROOT, cli
from typer.testing import CliRunner, Result

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates_file import CERTIFICATES
from skipserve.certification.attesting import artifact_file
from skipserve.certification.certificate_file import (
    Offline,
    json_schema,
    write_certificate,
)
from skipserve.certification.certificate_reading import read_certificate
from skipserve.certification.findings import Fault, NotCertified
from skipserve.certification.recount import check_counts
from skipserve.certification.signing import signed
from skipserve.certification.trial import Trial
from skipserve.cli import app
from skipserve.errors import ArtifactError, ConfigError
from skipserve.schema import parse
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.slow


def test_one_kind_of_fault_each(values, attested, tmp_path):
    file = tmp_path / "certificate.json"
    for text, fault in (
        ("not json", Fault.SCHEMA),
        ("[1]", Fault.SCHEMA),
        ("{}", Fault.SCHEMA),
        ('{"certificate_version": 1, "certificate_version": 1}', Fault.SCHEMA),
        ('{"certificate_version": NaN}', Fault.SCHEMA),
        ('{"certificate_version": 2}', Fault.VERSION),
        (json.dumps({**values, "extra": 1}), Fault.SCHEMA),
    ):
        file.write_text(text)
        with pytest.raises(NotCertified) as caught:
            read_certificate(file)
        assert caught.value.fault == fault, text
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(NotCertified, match="not text"):
        read_certificate(file)
    name = next(iter(values["files"]))
    forged = put(values, ("files", name), "0" * 64)
    assert faults(sealed(forged), attested, tmp_path) == {Fault.FILES}
    more = {**values, "files": {**values["files"], "more.onnx": "0" * 64}}
    assert faults(sealed(more), attested, tmp_path) == {Fault.FILES}
    fewer = {one: value for one, value in values["files"].items() if one != name}
    assert faults(sealed({**values, "files": fewer}), attested, tmp_path) == {Fault.FILES}
    assert faults(put(values, ("versions", "numpy"), "0"), attested, tmp_path) == {Fault.SEAL}


def test_the_published_schema_is_that_of_the_records(values):
    published = ROOT / "docs" / "schemas" / "certificate.schema.json"
    assert published.read_text() == json_schema(), "skipserve verify --schema > docs/schemas/…"
    schema = json.loads(published.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "extra": 1}, schema)


def test_signatures_of_others_do_not_count(values, attested, keys, tmp_path):
    other = signed(values, keys / "other.pem")
    assert faults(other, attested, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}
    unsigned = {**values, "signature": None}
    assert faults(unsigned, attested, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}
    for key in (keys / "mine.pub", keys / "none"):
        with pytest.raises(ConfigError):
            signed(values, key)
    with pytest.raises(ConfigError, match="no public key"):
        faults(values, attested, tmp_path, keys / "mine.pem")


@pytest.mark.parametrize("value", ["", "x", "\x80", "ä" * 88])
def test_what_is_no_base64_is_no_signature(values, attested, keys, tmp_path, value):
    changed = put(values, ("signature", "value"), value)
    assert faults(changed, attested, tmp_path, keys / "mine.pub") == {Fault.SIGNATURE}


def test_certificates_without_the_counts_before_are_not_exported(attested, tmp_path):
    older = shutil.copytree(attested.directory, tmp_path / "small")
    written = json.loads((older / CERTIFICATES).read_text())
    for one in written["certificates"]:
        del one["tried"]
    (older / CERTIFICATES).write_text(json.dumps(written))
    with pytest.raises(ArtifactError, match="run `skipserve certify` again"):
        artifact_file(open_artifact(older))
    (older / CERTIFICATES).unlink()
    with pytest.raises(ConfigError, match="nothing of the kind is certified of small"):
        artifact_file(open_artifact(older))


def called(*arguments: object) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def verified(*arguments: object) -> Result:
    return called("verify", *arguments)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cli(*map(str, arguments)), capture_output=True, text=True)


def test_from_attested_to_verified(routed_project, keys, tmp_path):
    root = routed_project[0]
    file, attested = tmp_path / "certificate.json", root / "artifacts" / "small"
    assert called("attest", attested, "--out", file).exit_code == 0
    assert called("sign", file, "--key", keys / "mine.pem").exit_code == 0
    samples = open_recipe("two_moons").draw("certify")
    np.save(tmp_path / "rows.npy", samples.inputs.numpy())
    np.save(tmp_path / "labels.npy", samples.labels.numpy())
    rows = ("--data", tmp_path / "rows.npy", "--labels", tmp_path / "labels.npy")
    done = run("verify", file, attested, "--key", keys / "mine.pub", *rows)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("counted anew") == 4
    assert "nobody but the holder of the key wrote it" in done.stdout


def test_a_file_of_an_older_skipserve_is_signed_as_it_stands(values, attested, keys, tmp_path):
    # An older one wrote neither of these, and its hash is of what it wrote.
    older = {**copy.deepcopy(values), "signature": None}
    for bound in older["bounds"]:
        bound.pop("too_short", None)
        bound.pop("slice", None)
    older = sealed(older)
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(older))
    assert called("sign", file, "--key", keys / "mine.pem").exit_code == 0
    written = json.loads(file.read_text())
    assert written.pop("signature") and older.pop("signature") is None
    assert written == older
    done = verified(file, attested.directory, "--key", keys / "mine.pub")
    assert done.exit_code == 0, done.output


def test_queries_that_are_too_short_are_written_only_where_there_are_any(values):
    offline = values["bounds"][0]
    assert "too_short" not in offline
    some = parse(Offline, {**offline, "too_short": 7}, "certificate")
    assert some.model_dump(mode="json") == {**offline, "too_short": 7}


def test_a_liar_who_knows_the_mathematics_is_found_by_counting(
    routed_project, values, keys, tmp_path
):
    lie = {**values, "bounds": [copy.deepcopy(values["bounds"][0])]}
    (kept,) = lie["bounds"]
    for one in kept["tried"]:
        one["disagreements"], one["p_value"] = 0, (1 - kept["risk"]) ** kept["samples"]
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(sealed(lie)))
    archive = routed_project[0] / "model_store" / "small.mar"
    believed = verified(file, archive)
    assert believed.exit_code == 0, believed.stderr
    assert "this detects accidents, and no forgery" in believed.stdout
    assert "counts attested" in believed.stdout
    np.save(tmp_path / "rows.npy", open_recipe("two_moons").draw("certify").inputs.numpy())
    caught = verified(file, archive, "--data", tmp_path / "rows.npy")
    assert caught.exit_code == Fault.COUNTS
    np.save(tmp_path / "rows.npy", open_recipe("two_moons").draw("test").inputs.numpy())
    others = verified(file, archive, "--data", tmp_path / "rows.npy")
    assert others.exit_code == Fault.COUNTS
    forged = verified(file, archive, "--key", keys / "mine.pub")
    assert forged.exit_code == Fault.SIGNATURE


def test_counts_of_candidates_that_were_run_are_honest_though_reading_foresees_others(
    attested, made, monkeypatch
):
    # Where one was foreseen otherwise than it ran, all were run when this was certified.
    def foresee(trial, thresholds):
        seen = trial.run(thresholds)
        return replace(seen, disagreements=seen.disagreements + 1)

    monkeypatch.setattr(Trial, "foresee", foresee)
    drawn = open_recipe("two_moons").draw("certify")
    rows, labels = drawn.inputs.numpy(), drawn.labels.numpy()
    assert max(len(one.tried) for one in made.bounds if isinstance(one, Offline)) > 1
    assert list(check_counts(made, attested, rows, labels, lambda line: None)) == []
    # What neither way gives is found.
    bound = next(one for one in made.bounds if isinstance(one, Offline))
    tried = [replace_count(bound.tried[0], 2), *bound.tried[1:]]
    lie = made.model_copy(update={"bounds": (bound.model_copy(update={"tried": tuple(tried)}),)})
    (found, *_) = check_counts(lie, attested, rows, labels, lambda line: None)
    assert found.fault == Fault.COUNTS
    assert "candidate 1 disagrees on" in found.sentence


def replace_count(tried, more):
    return tried.model_copy(update={"disagreements": tried.disagreements + more})


def test_what_cannot_be_checked_is_one_line(made, attested, tmp_path):
    file = tmp_path / "certificate.json"
    missing = run("verify", file, attested.directory)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    file.write_text("{}")
    assert verified(file, attested.directory).exit_code == Fault.SCHEMA
    write_certificate(file, made.model_dump(mode="json"))
    other = shutil.copytree(attested.directory, tmp_path / "small")
    (other / "plain.fp32.onnx").write_bytes(b"other")
    changed = verified(file, other)
    assert isinstance(changed.exception, ArtifactError)
    assert "plain.fp32.onnx" in str(changed.exception)
