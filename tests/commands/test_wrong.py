"""Wrong command lines: one line each, with what was wrong, what was expected and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine


@pytest.fixture
def folder(
    routed_project: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of a project with the model ``small``, and the working directory."""
    for name in ("export", "artifacts", "model_store"):
        shutil.copytree(routed_project[0] / name, tmp_path / name)
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((4, 2), np.float32))
    (tmp_path / "text.npz").write_text("1,2\n")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "small.mar").write_text("no zip")
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
        ("rollback small two", f"'two': expected a whole number. {USAGE[:8]}"),
        ("inspect small --risk 7", "'7' is not between 0 and 1; write 7% or 0.07"),
        ("inspect small --risk 150%", "'150%' is not between 0 and 1; write 1% or 0.01"),
        ("inspect small --risk 0%", "'0%' is not between 0 and 1; write 1% or 0.01"),
        ("build export/smal.toml", "smal.toml is not there; did you mean 'export/small.toml'?"),
        ("build model_store", "model_store is a folder, expected a build file; there are export/"),
        ("train small.toml", "small.toml is not there; did you mean 'export/small.toml'?"),
        ("bring no.onnx --data rows.npz", "no.onnx is not there; name an .onnx file"),
        ("bring no.onnx --data no.npz", "no.onnx is not there; name an .onnx file"),
        ("bring rows.npz --data rows.npz", "'rows.npz' is no .onnx file, no folder that is there"),
        ("bring net --data rows.npz", "write FILE.onnx, the path of a Hugging Face folder, or mod"),
        ("bring json:load --data export/small.toml", "rows are read from .npz, .npy, .parquet, "),
        ("bring json:load --data rows.npz --fit no.npz", "no.npz is not there; name a file of ro"),
        ("bring nomod.py:fn --data rows.npz", "nomod.py is not there; name a module and its func"),
        ("bring nomod:fn --data rows.npz", "there is no module 'nomod': neither nomod.py here nor"),
        ("bring empty.onnx --data rows.npz", "empty.onnx is not an ONNX file: it holds no graph"),
        ("bring json:load --data rows.npz --name a-b", "--name is 'a-b'; expected letters, digits"),
        ("bring json:load --data rows.npz --task regress", "regress needs a tolerance: the larges"),
        ("bring json:load --data rows.npz --tolerance 0", "'--tolerance': 0: expected more than 0"),
        ("bring json:load --data rows.npz --name small", "small.toml is there already and says so"),
        ("bring artifacts --data rows.npz", "has no config.json; expected a Hugging Face folder"),
        ("predict smal rows.npz --out a.csv", "'smal' is no artifact, and none in artifacts/ has "),
        ("predict zebra rows.npz --out a.csv", "there are small"),
        ("predict small no.npz --out a.csv", "no.npz is not there; name a file of rows (.npz, "),
        ("predict small text.npz --out a.csv", "text.npz is no .npz file; expected what numpy.sa"),
        ("predict small rows.npz --out a.txt", "a.txt: answers are written to .parquet, .csv"),
        ("predict small rows.npz --out a.csv --risk 0.1%", "cannot be routed at 0.001: "),
        ("report net.onnx", "no model yet; `skipserve bring net.onnx --data ROWS` makes one"),
        (
            "inspect rows.npz",
            "'rows.npz' is a file, expected a directory of an artifact or a check",
        ),
        ("inspect small --data rows.npz --labels no.npy", "no.npy is not there; name a file of ro"),
        ("report small --data no.npz", "no.npz is not there; name a file of rows"),
        ("inspect smal", "no name in artifacts/ or checkpoints/; did you mean 'small'?"),
        ("report zebra", "no name in artifacts/ or checkpoints/; there are small"),
        ("report model_store", "neither an artifact (it has no manifest.json) nor a checkpoint"),
        ("certify artifacts/smal", "or model_store/; did you mean 'artifacts/small'?"),
        ("certify model_store/smal.mar", "or model_store/; did you mean 'model_store/small.mar'?"),
        (
            "certify zebra",
            "zebra is not there, as an artifact, an archive (.mar), or a name in art",
        ),
        (
            "certify export",
            "export is no artifact: it has no manifest.json; there are artifacts/sm",
        ),
        (
            "certify rows.npz",
            "rows.npz is a file, expected an artifact directory, an archive (.mar)",
        ),
        ("certify small --data no.npz", "no.npz is not there; name a file of rows"),
        ("certify small --confidence 150%", "'150%' is not between 0 and 1; write 95% or 0.95"),
        ("certify small --confidence 95", "'95' is not between 0 and 1; write 95% or 0.95"),
        ("certify small --threads -1", "'--threads': '-1': expected at least 0"),
        ("train export/small.toml --epochs 0", "'--epochs': '0': expected at least 1"),
        ("train export/small.toml --learning-rate 0", "'--learning-rate': 0: expected more than 0"),
        ("serve smal", "model_store holds no smal.mar; did you mean 'small'?"),
        ("serve small@7", "model_store has no version 7 of small, only 1"),
        ("serve --model-store none", "none is not there; name the folder of archives (.mar) that"),
        ("serve --model-store export", "export holds no .mar; make one with `skipserve build`"),
        (
            "serve --model-store model_store/small.mar",
            "small.mar is a file, expected the folder of",
        ),
        (
            "serve --model-store torn",
            "small.mar is not an archive of this skipserve or is damaged ",
        ),
        ("serve --model-store torn", "(File is not a zip file)"),
        (
            "serve --port 8080 --metrics-port 8080",
            "--port and --metrics-port are both 8080; choose",
        ),
        (
            "serve --server torchserve --port 8080 --metrics-port 8082",
            "--metrics-port is 8082, and ",
        ),
        ("serve --batch-size 0", "'--batch-size': '0': expected at least 1. See `skipserve serve"),
        ("serve --threads -1", "'--threads': '-1': expected at least 0"),
        ("serve --access-log 5", "'--access-log': '5': expected at most 1"),
        ("serve --max-wait-ms 0", "'--max-wait-ms': 0: expected more than 0"),
        ("serve --max-batch-delay-ms nan", "'nan': expected a finite number"),
        ("serve --max-batch-delay-ms 20000", "'20000': expected at most 10000. See"),
        ("serve --ready-timeout 5s", "'--ready-timeout': '5s': expected seconds, such as 30"),
        (
            "serve --server torchserve --join-ms 3",
            "--join-ms has no effect behind TorchServe; leav",
        ),
        ("serve --server torchserve --max-wait-ms 3", "--max-wait-ms has no effect behind TorchSe"),
        (
            "serve --server torchserve --overload-risk 5%",
            "--overload-risk has no effect behind Tor",
        ),
        (
            "serve --server torchserve --body-timeout 30",
            "--body-timeout has no effect behind Torch",
        ),
        ("versions small --model-store none", "none is not there; name the folder of archives"),
        (
            "versions zebra",
            "holds no zebra.mar; there are small; `skipserve build export/zebra.toml`",
        ),
        ("rollback small", "no version of small before 1, which is in force; see `skipserve ver"),
        ("rollback small 1", "version 1 of small is in force already; `skipserve reload` makes"),
        ("report small --text body", "--text without --data: it is about the rows of that file"),
        ("inspect small --query id", "--query without --data: it is about the rows of that file"),
        ("verify no.json artifacts/small --query id", "--query without --data: it is about"),
        ("verify no.json artifacts/small --labels y", "--labels without --data: it is about"),
        ("certify artifacts/small --query id", "--query without --data: it is about the rows of"),
        (
            "certify small --data rows.npz --text body",
            "--text names 'body', but small takes tensors",
        ),
        ("certify small --text body", "--text without --data: it is about the rows of that file"),
        ("attest artifacts/smal", "or model_store/; did you mean 'artifacts/small'?"),
        ("attest small", "on port 1 here; run this as the user"),
        ("attest small", "or did you mean 'artifacts/small'?"),
        (
            "verify no.json smal",
            "smal is not there, as an artifact, an archive (.mar), or a name i",
        ),
        ("sign no.json --key k.pem", "no.json cannot be read: No such file or directory; `skipse"),
        ("verify no.json artifacts/small", "`skipserve attest` writes a certificate"),
        ("plot artifacts", "artifacts holds no curve; make one with `skipserve train`"),
        ("loadtest --model small", "say how much load: --rate REQUESTS_PER_SECOND, or --users"),
        ("loadtest --model small --rate 9 --slo x", "'x' is not MEASURE=LIMIT; for example p50="),
        ("loadtest --model zebra --rate 9", "artifacts/zebra is not an artifact: manifest.json is"),
        (
            "loadtest --model small --rate 10",
            "10 requests/s may come to only 265 requests by chanc",
        ),
        ("loadtest --model small --rate 5", "5 requests/s are about 150 requests; p99 needs 299: "),
        (
            "loadtest --model small --rate 9 --data no.npz",
            "no.npz is not there; name a file of row",
        ),
        (
            "loadtest --model small --rate 99 --start --router off --slo disagreement=0.01",
            "this mix has none: leave it out, or choose a model with a router and --router on",
        ),
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
