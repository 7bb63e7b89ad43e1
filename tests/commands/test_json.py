"""--json prints one object on stdout; what needs a service is tested with that service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from skipserve.cli import app


@pytest.fixture
def folder(
    routed_project: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of a project with the model ``small``, and the working directory."""
    for name in ("export", "artifacts", "model_store"):
        shutil.copytree(routed_project[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*arguments: str, code: int = 0) -> tuple[Any, Result]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout), done


def test_predict(folder: Path) -> None:
    np.savez("rows.npz", inputs=np.array([[0.5, 0.2], [1.0, 0.0]], np.float32))
    found, _ = called("predict", "small", "rows.npz", "--out", "a.npz", "--risk", "2%")
    assert 0 < found.pop("run_rate") <= 1
    assert found == {"model": "small", "rows": 2, "unanswered": 0, "risk": 0.02, "out": "a.npz"}


def test_versions(folder: Path) -> None:
    found, _ = called("versions", "small")
    (one,) = found["versions"]
    assert (found["model"], one["version"], one["in_force"]) == ("small", 1, True)
    assert one["archive"] == "model_store/small.mar"


def test_a_certificate_that_holds_and_one_that_does_not(folder: Path) -> None:
    assert CliRunner().invoke(app, ["attest", "artifacts/small"]).exit_code == 0
    found, _ = called("verify", "certificate.json", "artifacts/small")
    assert found["verified"] and not found["signature_checked"]
    assert {(one["measure"], one["risk"]) for one in found["bounds"]} >= {("disagreement", 0.05)}
    values = json.loads(Path("certificate.json").read_text())
    Path("certificate.json").write_text(json.dumps({**values, "model": "other"}))
    found, done = called("verify", "certificate.json", "artifacts/small", code=12)
    assert not found["verified"]
    assert found["findings"][0]["kind"] == "seal"
    assert done.stderr.startswith("not verified: ")


def test_certify_says_what_is_certified_and_what_it_does_with_it_on_stderr(folder: Path) -> None:
    found, done = called("certify", "artifacts/small", "--risk", "5%")
    kept = [one for one in found["certified"] if one["measure"] == "disagreement"]
    assert [one["risk"] for one in kept] == [0.02, 0.05]
    assert all(one["served"] and one["samples"] == 10_000 for one in kept)
    assert "not served yet: `skipserve build export/small.toml`" in done.stderr
