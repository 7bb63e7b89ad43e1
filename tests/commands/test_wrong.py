"""Wrong command lines: one line each, with what was wrong, what was expected and what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine

from skipserve.errors import suggestion


@pytest.fixture
def folder(
    routed_project: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of a project with the model ``small``, and the working directory."""
    for name in ("export", "artifacts", "model_store"):
        shutil.copytree(routed_project[0] / name, tmp_path / name)
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((4, 2), np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Port 1 belongs to root, and nothing of ours listens there.
NOWHERE = ("--metrics-port", "1")
USAGE = "See `skipserve {} --help`"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("biuld x", "No such command 'biuld'. Did you mean 'build'? See `skipserve --help`"),
        ("router of small", "No such command 'of'. Did you mean 'off'?"),
        ("build", f"Missing argument 'BUILD_FILE'. {USAGE.format('build')}"),
        ("loadtest", f"Missing option '--model'. {USAGE.format('loadtest')}"),
        ("serve --metrics-prot 5", "No such option: --metrics-prot (Possible options: --metrics"),
        ("serve --server tomcat", "'tomcat' is not one of 'granian', 'torchserve'"),
        ("rollback small two", f"valid integer, unable to parse string as an integer. {USAGE[:8]}"),
        ("inspect small --risk 7", "'7' is not between 0 and 1; write 7% or 0.07"),
        ("inspect small --risk 0%", "'0%' is not between 0 and 1; write 1% or 0.01"),
        ("build export/smal.toml", "smal.toml is not there; did you mean 'export/small.toml'?"),
        ("build model_store", "model_store is a folder, expected a build file; there are export/"),
        ("train small.toml", "small.toml is not there; did you mean 'export/small.toml'?"),
        ("bring no.onnx --data rows.npz", "no.onnx is not there; name an .onnx file"),
        ("bring no.onnx --data no.npz", "no.onnx is not there; name an .onnx file"),
        ("bring rows.npz --data rows.npz", "'rows.npz' is no .onnx file, no folder that is there"),
        ("bring net --data rows.npz", "write FILE.onnx, the path of a Hugging Face folder, or mod"),
        ("bring artifacts --data export/small.toml", "rows are read from .npz, .npy, .parquet, "),
        ("bring artifacts --data rows.npz --fit no.npz", "no.npz is not there; name a file of ro"),
        ("bring artifacts --data rows.npz", "has no config.json; expected a Hugging Face folder"),
        ("predict smal rows.npz --out a.csv", "'smal' is no artifact, and none in artifacts/ has "),
        ("predict zebra rows.npz --out a.csv", "there are small"),
        ("predict small no.npz --out a.csv", "no.npz is not there; name a file of rows (.npz, "),
        ("predict small rows.npz --out a.txt", "a.txt: answers are written to .parquet, .csv"),
        ("predict small rows.npz --out a.csv --risk 0.1%", "cannot be routed at 0.001: "),
        ("report net.onnx", "no model yet; `skipserve bring net.onnx --data ROWS` makes one"),
        ("inspect smal", "no name in artifacts/ or checkpoints/; did you mean 'small'?"),
        ("report zebra", "no name in artifacts/ or checkpoints/; there are small"),
        ("report model_store", "neither an artifact (it has no manifest.json) nor a checkpoint"),
        ("certify artifacts/smal", "manifest.json is missing; did you mean 'artifacts/small'?"),
        ("certify model_store/smal.mar", "not there; did you mean 'model_store/small.mar'?"),
        ("serve smal", "model_store holds no smal.mar; did you mean 'small'?"),
        ("serve small@7", "model_store has no version 7 of small, only 1"),
        ("serve --model-store none", "none holds no .mar; make one with `skipserve build`"),
        (
            "versions zebra",
            "holds no zebra.mar; there are small; `skipserve build export/zebra.toml`",
        ),
        ("rollback small", "no version of small before 1, which is in force; see `skipserve ver"),
        ("rollback small 1", "version 1 of small is in force already; `skipserve reload` makes"),
        ("attest artifacts/smal", "manifest.json is missing; did you mean 'artifacts/small'?"),
        ("sign no.json --key k.pem", "no.json cannot be read: No such file or directory; `skipse"),
        ("verify no.json artifacts/small", "`skipserve attest` writes a certificate"),
        ("plot artifacts", "artifacts holds no curve; make one with `skipserve train`"),
        ("loadtest --model small", "say how much load: --rate REQUESTS_PER_SECOND, or --users"),
        ("loadtest --model small --rate 9 --slo x", "'x' is not MEASURE=LIMIT; for example p50="),
        ("loadtest --model no --rate 99 --start", "there is no model_store/no.mar to start; make "),
        ("top --once", "nothing answers at http://127.0.0.1:1/metrics"),
        ("reload", "no service of this user has its metrics on port 1 here; run this as the user"),
        ("router status", "no service of this user has its metrics on port 1 here"),
        ("certificate small --reset --json", "exclude each other; give one of them"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command_line: CommandLine,
    line: str,
    expected: str,
) -> None:
    monkeypatch.setenv("SKIPSERVE_METRICS_PORT", "1")
    ended = command_line(*line.split())
    assert (ended.code, ended.out) == (2, "")
    (only,) = ended.err.splitlines()
    assert only.startswith("error: ")
    assert expected in only


def test_a_name_that_begins_as_the_one_given_is_nearest() -> None:
    names = ["export/net.toml", "export/mnist1d_resnet.toml", "export/mnist1d.toml"]
    assert suggestion("export/mnist.toml", names[:2], "") == f"did you mean {names[1]!r}?"
    assert suggestion("export/mnist1.toml", names, "") == f"did you mean {names[2]!r}?"
    assert suggestion("m", names[:1], "") == "there are export/net.toml"


def test_a_missing_source_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """Importing torch takes seconds, and minutes on a machine that is busy."""
    ask = (
        "import sys\nfrom skipserve.cli import main\n"
        "sys.argv = ['skipserve', 'bring', 'no.onnx', '--data', 'rows.npz']\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "no.onnx is not there" in done.stderr


def test_a_fault_of_ours_is_told_apart_from_a_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("skipserve.artifacts.versions.versions_of", broken)
    ended = command_line("versions", "small")
    assert ended.code == 70
    assert "ZeroDivisionError: ours" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: this is a fault of skipserve")


def test_ctrl_c_is_exit_code_130(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("skipserve.artifacts.versions.versions_of", interrupted)
    assert command_line("versions", "small").code == 130


def test_a_risk_that_cannot_be_certified_is_exit_code_1(
    folder: Path, command_line: CommandLine
) -> None:
    ended = command_line("certify", "artifacts/small", "--risk", "0.001%", "--json")
    assert ended.code == 1
    found = json.loads(ended.out)
    assert 1e-5 in [one["risk"] for one in found["refused"]]
    assert 1e-5 not in [one["risk"] for one in found["certified"]]
