"""The unit for systemd, and what it takes away from the service; bills of what is in an image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, serving
from typer.main import get_command

from skipserve.cli import app
from skipserve.safety.standing import FOLDER

UNIT = ROOT / "deploy" / "systemd" / "skipserve.service"
# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), prctl(PR_SET_NO_NEW_PRIVS): what the unit's
# MemoryDenyWriteExecute and NoNewPrivileges are.
CLOSED = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
if prctl(65, 1, 0, 0, 0) or prctl(38, 1, 0, 0, 0):
    sys.exit("not here")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def analyze(*arguments: str) -> str:
    """What systemd-analyze says of the unit."""
    missing = "systemd-analyze is missing; install it with tests/install-tools.sh"
    assert shutil.which("systemd-analyze"), missing
    command = ["systemd-analyze", *arguments, str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_unit_is_valid() -> None:
    said = analyze("verify").splitlines()
    unknown = [
        line for line in said if "skipserve.service" in line and "not executable" not in line
    ]
    assert not unknown, unknown


def test_the_unit_leaves_little_open() -> None:
    found = re.search(
        r"exposure level for skipserve.service: (\S+)", analyze("security", "--offline=true")
    )
    assert found is not None
    assert float(found[1]) <= 2.0


def test_the_page_names_the_variables_and_the_file_that_the_unit_knows() -> None:
    page = (ROOT / "docs" / "systemd.md").read_text()
    (state,) = re.findall(r"SKIPSERVE_STATE=(\S+)", UNIT.read_text())
    assert f"`touch {state}/{FOLDER}/MODEL`" in page
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    variables = {one.envvar for one in command.params if getattr(one, "envvar", None)}
    assert set(re.findall(r"`(SKIPSERVE_\w+)`", page)) == variables


@pytest.mark.server
def test_it_serves_without_new_privileges_or_executable_memory(
    routed_project: tuple[Path, list[str]], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    (tmp_path / "closed.py").write_text(CLOSED)
    closed.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/closed.py "$@"\n')
    closed.chmod(0o755)
    probe = subprocess.run([closed, "-c", "pass"], capture_output=True, text=True)
    if "not here" in probe.stderr:
        pytest.skip("this kernel cannot refuse executable memory")
    with serving(routed_project[0], python=str(closed)) as running:
        (worker,) = running.workers()
        assert "NoNewPrivs:\t1" in Path(f"/proc/{worker.pid}/status").read_text()
        assert running.ask("small", {"inputs": [[0.5, -0.25]]})[0] == 200


def test_every_package_of_an_image_has_a_licence() -> None:
    script = ROOT / "deploy" / "image" / "licences.py"
    done = subprocess.run(
        [sys.executable, script, "slim"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()[2:]
    locked = (script.parent / "requirements-slim.txt").read_text()
    assert len(lines) == len(re.findall(r"^\S+==", locked, re.MULTILINE))
    assert not [line for line in lines if line.endswith("| not said |")]
