"""The README's commands do what it says they do."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from test_serve import cli, serving
from typer.testing import CliRunner

from skipserve.cli import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.replace("\\\n", " ").splitlines()
]
MINE = [command for command in COMMANDS if "skipserve " in command]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The README's model, built as it stands."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("export", "handlers"):
        shutil.copytree(ROOT / folder, root / folder)
    build = cli("build", "export/moons_residual.toml")
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    return root


@pytest.mark.server
def test_each_curl_answers_what_stands_below_it(project):
    pairs = [
        (first[1], second[1])
        for first, second in itertools.pairwise(BLOCKS)
        if first[1].startswith("curl") and second[0] == "json"
    ]
    assert len(pairs) >= 2
    with serving(project, "moons_residual") as running:
        for command, said in pairs:
            moved = command.replace(":8080/", f":{running.port}/")
            asked = ["curl", "-s", *shlex.split(moved)[1:]]
            answer = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
            expected = json.loads(said)
            if "outputs" not in expected:
                assert answer == expected
                continue
            # Another machine's training ends at slightly other weights.
            for one in answer["outputs"] + expected["outputs"]:
                assert len(one.pop("probabilities")) == 2
            assert answer == expected


def test_the_python_example_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    exec(example, {})
    assert capsys.readouterr().out.startswith("[1] [[")


@pytest.mark.parametrize("command", sorted(set(MINE)))
def test_each_command_is_one_that_exists(command):
    words = shlex.split(command)
    called = words[[word.endswith("skipserve") for word in words].index(True) + 1 :]
    names = [word for word in called if re.fullmatch(r"[a-z]+", word)]
    # A group has commands of its own: as many names as the help knows.
    shown = CliRunner().invoke(app, [names[0], "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word.split("=")[0] for word in called if word.startswith("--")):
        assert option in shown.output, f"{names[0]} has no {option}"


def test_each_make_target_and_path_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {c.split()[1] for c in COMMANDS if c.startswith("make ")}
    asked |= set(re.findall(r"`make (\w+)", TEXT))
    assert asked <= targets
    for path in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert path.startswith("http") or (ROOT / path).exists(), path
    for script in re.findall(r"python ((?:benchmarks|deploy)/[\w/]+\.py)", TEXT):
        assert (ROOT / script).exists(), script
